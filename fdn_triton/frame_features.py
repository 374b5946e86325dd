"""The features of one frame, computed only where they are needed and never twice.

Candidates need the features around the target, negatives those of a wider surrounding, the first frame all of them.
On a CPU, :class:`FrameFeatures` keeps the resized frame and one map per stage of the trunk and, for each, the rectangle
of it that holds values. Growing to a larger rectangle computes the cells between the two, from the cells of the stage
before, with the frame's borders padded as in :meth:`Backbone.forward`: the values are those of the whole frame, up to
rounding. The maps live on from frame to frame, because fresh memory costs a CPU more than the layers that fill it.

On other devices all features are computed at once: there, launches of a fixed shape are worth more than small ones.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import POOL, POOL_PADDING, POOL_STRIDE, POOLED_LAYERS, Backbone, normalise_and_pool
from .config import STRIDE
from .cuda_graph import CapturedSequence
from .frame import network_input
from .kernels.onednn import linear
from .rectangle import NOTHING, Rectangle

_BAND_BYTES = 3 << 20  # of a convolution's output: it is normalised and pooled while it is in the cache


class Features(Protocol):
    """What the tracker takes the features of boxes from; its boxes are in pixels of the resized frame.

    Attributes:
        frame_hw: of the resized frame, pixels.
    """

    frame_hw: tuple[int, int]

    @abstractmethod
    def begin(self, image: Tensor) -> None:
        """Start on a new frame: uint8 [H, W, 3], RGB, not changed until the next one."""

    @abstractmethod
    def require(self, boxes_xywh: Tensor) -> None:
        """Prepare what :meth:`of_boxes` needs for the boxes [..., 4]."""

    @abstractmethod
    def of_boxes(self, boxes_xywh: Tensor) -> Tensor:
        """RoI features [..., 4608] of the boxes [..., 4]."""

    def linear_of_boxes(self, boxes_xywh: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A linear layer on the features of boxes [K, 4]: with a weight [out, 4608] and a bias [out], [K, out].

        Features that can do without themselves have their own way.
        """
        return linear(self.of_boxes(boxes_xywh), weight, bias)


FeatureProvider = Callable[[Backbone, tuple[int, int], Tensor], Features]
"""From the trunk, a size of frames and the mean: :class:`FrameFeatures`, or what is compared with it."""


class FrameFeatures(Features):
    """Features of the frames of one size.

    Args:
        backbone: the trunk and the RoI layer.
        frame_hw: of the resized frame, pixels.
        mean: [3] per channel, subtracted from the pixels; on the trunk's device.
    """

    def __init__(self, backbone: Backbone, frame_hw: tuple[int, int], mean: Tensor) -> None:
        self.frame_hw = frame_hw
        self._backbone = backbone
        self._mean = mean
        self._capture = backbone.device.type == "cuda"
        self._graph: CapturedSequence[Tensor] | None = None
        self._graph_hw: tuple[int, ...] = ()
        self._stages: list[_Stage] = []
        if backbone.device.type == "cpu":
            convolutions = backbone.convolutions()
            source = _Map(3, frame_hw, int(convolutions[0].padding[0]), backbone.dtype)
            self._frame = _ResizedFrame(source, mean)
            for i, (convolution, unpadded) in enumerate(zip(convolutions, backbone.unpadded_convolutions, strict=True)):
                last = i + 1 == len(convolutions)
                border = 0 if last else int(convolutions[i + 1].padding[0])
                scale = float(backbone.feature_scale) if last else 1.0
                # The RoI layer reads fp32: it is small, and a CPU has no fast arithmetic of half types.
                dtype = torch.float32 if last else backbone.dtype
                self._stages.append(_Stage(convolution, unpadded, i < POOLED_LAYERS, scale, source, border, dtype))
                source = self._stages[-1].map
        self._features = self._stages[-1].map.padded if self._stages else torch.empty(0)

    def begin(self, image: Tensor) -> None:
        """Start on a new frame: uint8 [H, W, 3], RGB, not changed until the next one."""
        if not self._stages:
            self._features = self._whole(image.to(self._mean.device))
            return
        self._frame.begin(image)
        for stage in self._stages:
            stage.valid = NOTHING

    def require(self, boxes_xywh: Tensor) -> None:
        """Compute what the RoI layer needs for the boxes [..., 4], in pixels of the resized frame."""
        if not self._stages or boxes_xywh.numel() == 0:
            return
        cells = self._cells(boxes_xywh.reshape(-1, 4))
        wanted = []
        for stage in reversed(self._stages):
            cells = stage.valid.union(cells)
            wanted.append(cells)
            cells = stage.input_cells(cells)
        self._frame.grow(cells)
        for stage, cells in zip(self._stages, reversed(wanted), strict=True):
            stage.grow(cells)

    def of_boxes(self, boxes_xywh: Tensor) -> Tensor:
        """RoI features [..., 4608] of the boxes [..., 4], in pixels of the resized frame."""
        self.require(boxes_xywh)
        return self._backbone.roi_features(self._features, boxes_xywh)

    def linear_of_boxes(self, boxes_xywh: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See :class:`Features`."""
        self.require(boxes_xywh)
        return self._backbone.linear_of_rois(self._features, boxes_xywh, weight, bias)

    def _whole(self, image: Tensor) -> Tensor:
        """Features of the whole frame, from the second of a size on in one launch: valid until the next frame."""
        image_hw = tuple(image.shape[:2])
        if not self._capture or image_hw != self._graph_hw:  # a first frame's shifted copies are seen once
            self._graph, self._graph_hw = None, image_hw
            return self._convolved(image)
        if self._graph is None:
            self._graph = CapturedSequence(self._convolved, (image,), changed=())
        return self._graph(image)

    def _convolved(self, image: Tensor) -> Tensor:
        backbone = self._backbone
        return backbone(
            network_input(image, self.frame_hw, self._mean, backbone.dtype, channels=backbone.input_channels)
        )

    @property
    def fixed_map(self) -> Tensor | None:
        """Features of the whole frame [1, 512, ., .], where the next frame's will lie in the same memory; else None."""
        return None if self._graph is None else self._features

    def of_map(self, feature_map: Tensor, boxes_xywh: Tensor) -> Tensor:
        """As :meth:`of_boxes`, from a map like :attr:`fixed_map`."""
        return self._backbone.roi_features(feature_map, boxes_xywh)

    def _cells(self, boxes_xywh: Tensor) -> Rectangle:
        """The cells of the last map that the RoI layer may read for the boxes [N, 4]."""
        height, width = self._stages[-1].map.size_hw
        # A RoI is at least a cell wide; a sample reads the cell behind it too, and RoIPool rounds up.
        extent = boxes_xywh[:, 2:].clamp(min=STRIDE) / STRIDE + self._backbone.network.roi_extend
        first = boxes_xywh[:, :2] / STRIDE
        left, top = first.amin(dim=0).floor().tolist()
        right, bottom = (first + extent).amax(dim=0).floor().tolist()
        # Samples up to a cell outside are clamped to the border's cells.
        return Rectangle(
            top=int(min(max(top, 0), height - 1)),
            bottom=int(min(max(bottom + 2, 1), height)),
            left=int(min(max(left, 0), width - 1)),
            right=int(min(max(right + 2, 1), width)),
        )


class _Map:
    """A map of cells with a border of zeros around it, the padding of the next convolution.

    Attributes:
        size_hw: without the border.
        padded: [1, C, h + 2 border, w + 2 border], channels-last in memory.
        inside: [1, C, h, w], a view.
    """

    def __init__(self, channels: int, size_hw: tuple[int, int], border: int, dtype: torch.dtype) -> None:
        height, width = self.size_hw = size_hw
        self.padded = torch.zeros(
            (1, height + 2 * border, width + 2 * border, channels), dtype=dtype, device="cpu"
        ).permute(0, 3, 1, 2)
        self.inside = self.padded[:, :, border : border + height, border : border + width]

    def at(self, cells: Rectangle) -> Tensor:
        """[1, C, ., .], a view."""
        return self.inside[:, :, cells.top : cells.bottom, cells.left : cells.right]


class _ResizedFrame:
    """The input of the first convolution, and the rectangle of it that has been taken from the image."""

    def __init__(self, map_: _Map, mean: Tensor) -> None:
        self.map = map_
        self._mean = mean
        self._image = torch.empty(0)
        self._valid = NOTHING

    def begin(self, image: Tensor) -> None:
        """Turn to another image."""
        self._image = image
        self._valid = NOTHING

    def grow(self, pixels: Rectangle) -> None:
        """Resize what the pixels take of the image, unless that is done."""
        pixels = self._valid.union(pixels)
        for part in pixels.around(self._valid):
            sides = slice(part.top, part.bottom), slice(part.left, part.right)
            out = self.map.at(part)
            network_input(self._image, self.map.size_hw, self._mean, out.dtype, sides, out)
        self._valid = pixels


class _Stage:
    """A convolution, pooled or not, its output map and the rectangle of the map that holds values."""

    def __init__(
        self,
        convolution: nn.Conv2d,
        unpadded: Callable[[Tensor], Tensor],
        pooled: bool,
        scale: float,
        source: _Map,
        border: int,
        dtype: torch.dtype,
    ) -> None:
        self._unpadded = unpadded
        self._pooled = pooled
        self._scale = scale
        self._source = source
        self._geometry = convolution.kernel_size[0], convolution.stride[0], int(convolution.padding[0])
        self._convolved_hw = _output_size(source.size_hw, *self._geometry)
        size_hw = self._convolved_hw
        if pooled:
            size_hw = _output_size(size_hw, POOL, POOL_STRIDE, POOL_PADDING)
        self.map = _Map(convolution.out_channels, size_hw, border, dtype)
        self.valid = NOTHING

    def input_cells(self, cells: Rectangle) -> Rectangle:
        """Cells of the map before that these cells are made from."""
        return self._convolved_cells(cells).input_of(*self._geometry).clipped(*self._source.size_hw)

    def grow(self, cells: Rectangle) -> None:
        """Compute those of the cells that are not valid yet; the valid ones are among the cells."""
        for part in cells.around(self.valid):
            row_bytes = 4 * self.map.inside.shape[1] * (part.right - part.left) * POOL_STRIDE**2
            rows = max(1, _BAND_BYTES // row_bytes) if self._pooled else part.bottom - part.top
            for band in part.bands(rows):
                self.map.at(band).copy_(self._compute(band))
        self.valid = cells

    def _convolved_cells(self, cells: Rectangle) -> Rectangle:
        """Cells between convolution and pooling that these cells are made from."""
        if not self._pooled:
            return cells
        return cells.input_of(POOL, POOL_STRIDE, POOL_PADDING).clipped(*self._convolved_hw)

    def _compute(self, cells: Rectangle) -> Tensor:
        kernel, stride, _ = self._geometry
        convolved = self._convolved_cells(cells)
        # The border of the map before is this convolution's padding: its cell 0 is row 0 of the padded map.
        window = convolved.input_of(kernel, stride, padding=0)
        x = self._unpadded(self._source.padded[:, :, window.top : window.bottom, window.left : window.right])
        if not self._pooled:
            return F.relu_(x).mul_(self._scale)
        pooled_from = cells.input_of(POOL, POOL_STRIDE, POOL_PADDING)
        padding = (
            convolved.left - pooled_from.left,
            pooled_from.right - convolved.right,
            convolved.top - pooled_from.top,
            pooled_from.bottom - convolved.bottom,
        )
        return normalise_and_pool(x, padding)


def _output_size(size_hw: tuple[int, int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size_hw)
    return height, width
