"""One video as the tracker sees it: the size of its frames, and the features of the current one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from .backbone import ROI_FEATURES
from .config import STRIDE, TrackerConfig
from .device import upload
from .frame import network_size
from .frame_features import Features
from .timing import StageClock

_MOST_ENLARGED = 2.0  # features of a whole frame, a GPU's and the first one's, cost its square


class View:
    """The current frame of one video, resized to what the network sees.

    Args:
        config: how frames are resized.
        features: from the size of the resized frames and the mean to their features.
        mean: [3], what is subtracted from the pixels; on the device of everything else.
        image_wh: of the video's images, pixels.
        target_side: mean side of the smallest target, pixels of the image.
        clock: told what takes how long in this video.

    Attributes:
        features: of the resized frame.
        scale: [4] factor from x, y, w, h in pixels of the image to those of the resized frame.
        pixel: width and height of a pixel of the image, in pixels of the resized frame.
    """

    features: Features
    scale: Tensor
    pixel: tuple[float, float]

    def __init__(
        self,
        config: TrackerConfig,
        features: Callable[[tuple[int, int], Tensor], Features],
        mean: Tensor,
        image_wh: tuple[int, int],
        target_side: float,
        clock: StageClock,
    ) -> None:
        self.clock = clock
        short_side, max_side = config.short_side, config.max_side
        side = target_side * min(short_side / min(image_wh), max_side / max(image_wh))  # in the resized frame
        most = math.inf if config.target_size is None else config.target_size
        least = min(most, config.least_target_size or 0.0)
        self._enlarged = min(_MOST_ENLARGED, min(max(side, least), most) / side)
        self._config = config
        self._features_of_size = features
        self._mean = mean
        self._set_size(image_wh)

    @property
    def frame_wh(self) -> tuple[int, int]:
        """Width and height of the resized frame, pixels."""
        height, width = self.features.frame_hw
        return width, height

    def begin(self, image: Tensor, growth: float = 1.0) -> tuple[float, float] | None:
        """Turn to a new frame.

        Args:
            image: uint8 [H, W, 3], RGB.
            growth: of the targets since they were learnt, both in pixels of the resized frame: it is sized anew, in
                whole steps of ``config.resize_step``, where this has come to one.

        Returns:
            None, or where the resized frame has another size, the factors on x and y in it. Where the images' size has
            changed, the video is taken to have been rescaled.
        """
        image_wh, old_wh, change = (image.shape[1], image.shape[0]), self.frame_wh, None
        resized = self._follow(growth)
        if resized or image_wh != self._image_wh:
            self._set_size(image_wh)
            new_wh = self.frame_wh
            change = new_wh[0] / old_wh[0], new_wh[1] / old_wh[1]
        self._image = image
        self.features.begin(image)
        return change

    def _follow(self, growth: float) -> bool:
        """Whether frames are to have another size from now on."""
        step, before = self._config.resize_step, self._enlarged
        if step is not None and 0 < growth < math.inf:
            steps = int(math.log(growth) / math.log(step))  # towards 0
            self._enlarged = min(self._enlarged / step**steps, _MOST_ENLARGED)
        return self._enlarged != before

    def shifted_features(self) -> ShiftedFeatures:
        """Features of the whole current frame, to learn new targets from."""
        width, height = self.pixel
        whole = torch.tensor([0.0, 0.0, *self.frame_wh], dtype=torch.float32, device=self._mean.device)
        copies, offsets = [], []
        for row, column in product(range(self._config.first_shifts), repeat=2):
            right, down = (
                round(n * STRIDE / self._config.first_shifts / side) for n, side in ((column, width), (row, height))
            )
            features = self.features
            if row or column:
                features = self._features_of_size(features.frame_hw, self._mean)
                features.begin(_moved(self._image, right, down))
            features.require(whole)
            copies.append(features)
            offsets.append(whole.new_tensor((right * width, down * height, 0.0, 0.0)))
        return ShiftedFeatures(copies, offsets)

    def _set_size(self, image_wh: tuple[int, int]) -> None:
        self._image_wh = image_wh
        frame_hw = network_size(
            image_wh[1],
            image_wh[0],
            self._config.short_side * self._enlarged,
            self._config.max_side * self._enlarged,
        )
        self.features = self._features_of_size(frame_hw, self._mean)
        self.pixel = (frame_hw[1] / image_wh[0], frame_hw[0] / image_wh[1])
        self.scale = upload(torch.tensor(self.pixel * 2, dtype=torch.float32, device="cpu"), self._mean.device)


class ShiftedFeatures:
    """Features of boxes from copies of one frame that lie differently in the grid of feature cells.

    Attributes:
        copies: features of the moved frames, each with what its boxes are moved by: [4] x, y, w, h, pixels of the
            resized frame.
    """

    def __init__(self, copies: Sequence[Features], offsets_xywh: Sequence[Tensor]) -> None:
        self.copies = list(zip(copies, offsets_xywh, strict=True))

    def of_boxes(self, boxes_xywh: Tensor) -> Tensor:
        """RoI features [N, 4608] of the boxes [N, 4], each from the next copy."""
        n = len(self.copies)
        parts = [features.of_boxes(boxes_xywh[i::n] + offset) for i, (features, offset) in enumerate(self.copies)]
        if n == 1:
            return parts[0]
        in_turn = parts[0].new_empty((len(boxes_xywh), ROI_FEATURES))
        for i, part in enumerate(parts):
            in_turn[i::n] = part
        return in_turn


def _moved(image: Tensor, right: int, down: int) -> Tensor:
    """The image [H, W, 3] moved by so many pixels, its edge repeated, on the same canvas."""
    height, width = image.shape[:2]
    rows = torch.arange(-down, height - down, device=image.device).clamp(min=0)
    columns = torch.arange(-right, width - right, device=image.device).clamp(min=0)
    return image[rows][:, columns]
