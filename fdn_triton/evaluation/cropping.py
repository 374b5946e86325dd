"""Features as MDNet computes them, each box cropped, resized and convolved on its own: what FDN is compared with.

MDNet (Nam and Han, CVPR 2016) warps a box and its surroundings to 107x107 pixels, the box on the 75x75 in the middle
and 16 pixels of context around it, and convolves that without any padding: 107 -> 51 -> 25 (pool) -> 11 -> 5 (pool)
-> 3. The 3x3 cells that are left take the place of the RoI layer's 3x3 bins; their centres are 16 pixels apart, on
pixels 37, 53 and 69, and each sees all but 32 pixels of the crop (75 of 107). Weights and everything else are the
tracker's, so that a difference in speed is that of cropping. Weights trained with max-RoIAlign see other features than
they know here: the accuracy is not MDNet's.

MDNet crops the image itself; here it is the resized frame, whose pixels are bilinear interpolations of the image's.
What lies outside is the mean. Samples are interpolated without antialiasing, as there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbone import POOLED_LAYERS, ROI_FEATURES, Backbone, normalise_and_pool
from ..errors import InputError
from ..frame import network_input
from ..frame_features import Features

CROP_SIDE = 107
CONTEXT = 16
"""Pixels of a crop on each side of the box."""
_BATCH = 128  # crops convolved at once


def _normalised_and_pooled(x: Tensor) -> Tensor:
    return normalise_and_pool(x, padding=0)


class CroppedFeatures(Features):
    """Features of boxes, each from a crop of its own; a :class:`~fdn_triton.frame_features.Features`.

    Args:
        backbone: whose convolutions are used; its RoI layer is not.
        frame_hw: of the resized frame, pixels.
        mean: [3] per channel, subtracted from the pixels; on the trunk's device.
        pooled: ReLU, LRN and 3x3 max-pooling with stride 2 behind the first two convolutions.

    Raises:
        InputError: five convolutions leave nothing of a crop without padding.
    """

    def __init__(
        self,
        backbone: Backbone,
        frame_hw: tuple[int, int],
        mean: Tensor,
        pooled: Callable[[Tensor], Tensor] = _normalised_and_pooled,
    ) -> None:
        if backbone.network.conv_layers != 3:
            raise InputError("MDNet's crops give 3x3 features to three convolutions only: leave --conv-layers out")
        self.frame_hw = frame_hw
        self._backbone = backbone
        self._mean = mean
        self._pooled = pooled
        self._frame = torch.empty(0)

    def begin(self, image: Tensor) -> None:
        """Start on a new frame: uint8 [H, W, 3], RGB."""
        self._frame = network_input(image, self.frame_hw, self._mean)

    def require(self, boxes_xywh: Tensor) -> None:
        """Nothing: boxes share no computation."""

    def of_boxes(self, boxes_xywh: Tensor) -> Tensor:
        """Features [..., 4608] of the boxes [..., 4], ordered (y, x, channel) as the RoI layer's."""
        features = [self._convolved(self.crops(boxes)) for boxes in boxes_xywh.reshape(-1, 4).split(_BATCH)]
        return torch.cat(features).reshape(*boxes_xywh.shape[:-1], ROI_FEATURES)

    def crops(self, boxes_xywh: Tensor) -> Tensor:
        """[N, 3, 107, 107] of the boxes [N, 4] and their context."""
        height, width = self.frame_hw
        inside = CROP_SIDE - 2 * CONTEXT
        # Centre of pixel k of a crop, in box sizes from the box's corner.
        steps = (torch.arange(CROP_SIDE, dtype=torch.float32, device=boxes_xywh.device) + 0.5 - CONTEXT) / inside
        x = boxes_xywh[:, :1] + steps * boxes_xywh[:, 2:3]
        y = boxes_xywh[:, 1:2] + steps * boxes_xywh[:, 3:]
        n = len(boxes_xywh)
        # grid_sample wants [-1, 1] from border to border; the crops are stacked to a tall one, for there is one frame.
        grid = torch.empty((n, CROP_SIDE, CROP_SIDE, 2), dtype=torch.float32, device=boxes_xywh.device)
        grid[..., 0] = (2 * x / width - 1)[:, None, :]
        grid[..., 1] = (2 * y / height - 1)[:, :, None]
        tall = F.grid_sample(
            self._frame, grid.view(1, n * CROP_SIDE, CROP_SIDE, 2), padding_mode="zeros", align_corners=False
        )
        crops = tall.reshape(3, n, CROP_SIDE, CROP_SIDE).transpose(0, 1)
        return crops.contiguous(memory_format=torch.channels_last)

    def _convolved(self, crops: Tensor) -> Tensor:
        x = crops.to(self._backbone.dtype)
        for i, convolution in enumerate(self._backbone.convolutions()):
            x = F.conv2d(x, convolution.weight, convolution.bias, convolution.stride)
            x = self._pooled(x) if i < POOLED_LAYERS else F.relu_(x)
        return (x * self._backbone.feature_scale).float().permute(0, 2, 3, 1).reshape(len(crops), ROI_FEATURES)
