"""RT-MDNet's way to the features of boxes, written from its paper and its published numbers, to be compared with.

RT-MDNet (Jung, Son, Baek, Han, ECCV 2018) warps the region around the boxes of a frame so that the target measures
107x107 pixels, and convolves it densely: no pooling behind the second convolution and the third one dilated by 3, which
gives a cell every 8 pixels. ``RoIAlignAdaMax`` then cuts 3x3 bins out of the map. The region of the candidates is
convolved, and after a success that of the samples drawn around the result.

Convolutions, normalisation, RoI layer and heads are this package's, and so are the weights. These were trained with
another trunk and another RoI layer: the speed is RT-MDNet's scheme's, the accuracy is not RT-MDNet's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fdn_triton.backbone import ROI_FEATURES, Backbone, normalise_and_pool
from fdn_triton.frame import network_input
from fdn_triton.frame_features import Features
from fdn_triton.kernels import lrn_max_pool, roi_align_ada_max
from fdn_triton.kernels.boxes import xywh_to_xyxy

TARGET_SIDE = 107
"""Pixels that the target measures along each axis in the warped region."""
STRIDE = 8
DILATION = 3
MARGIN = 0.1
"""What the region has around the boxes, in box sizes."""
_SAME_SIZE = 1.2  # boxes whose typical size differs by less are warped alike

CHANGES: dict[str, Any] = {
    "loss_threshold": None,
    "bbox_regression": False,
    "negative_translation": 1.5,
    "search_translation_max": 1.4,
    "first_shifts": 1,
}
"""Where RT-MDNet's numbers are not the paper's. Its updates take 15 iterations and its first frame 50; here they are
MDNet's 10 and 30, which is faster. Its first frame's features are of five warps; here of one."""


@dataclass(frozen=True)
class _Region:
    """A part of the frame, the size of the boxes it is warped for, and its features."""

    corners: Tensor  # [4] x1, y1, x2, y2, pixels of the frame
    typical_wh: Tensor  # [2]
    features: Tensor  # [1, 512, h, w]

    def serves(self, corners: Tensor, typical_wh: Tensor) -> bool:
        ratio = typical_wh / self.typical_wh
        inside = (corners[:2] >= self.corners[:2]).all() and (corners[2:] <= self.corners[2:]).all()
        return bool(inside and ratio.max() < _SAME_SIZE and ratio.min() > 1 / _SAME_SIZE)


class SearchRegionFeatures(Features):
    """Features of boxes from a warped region of the frame; a :class:`~fdn_triton.frame_features.Features`.

    Boxes that lie in the last region of the same frame, and are of its size, are cut out of that one.

    Args:
        backbone: whose convolutions are used; its RoI layer is not.
        frame_hw: of the frame, pixels. For RT-MDNet that is the image as it is: give the tracker its sides as
            ``short_side`` and ``max_side``.
        mean: [3] per channel, subtracted from the pixels; on the trunk's device.
    """

    def __init__(self, backbone: Backbone, frame_hw: tuple[int, int], mean: Tensor) -> None:
        self.frame_hw = frame_hw
        self._backbone = backbone
        self._mean = mean
        self._frame = torch.empty(0)
        self._region: _Region | None = None

    def begin(self, image: Tensor) -> None:
        """Start on a new frame: uint8 [H, W, 3], RGB."""
        self._frame = network_input(image, self.frame_hw, self._mean)
        self._region = None

    def require(self, boxes_xywh: Tensor) -> None:
        """Nothing: a region is convolved when its boxes are cut out."""

    def of_boxes(self, boxes_xywh: Tensor) -> Tensor:
        """Features [..., 4608] of the boxes [..., 4], ordered (y, x, channel) as the RoI layer's."""
        corners = xywh_to_xyxy(boxes_xywh.reshape(-1, 4))
        region = self._region_of(corners)
        scale = (TARGET_SIDE / region.typical_wh).repeat(2)
        rois = F.pad((corners - region.corners[:2].repeat(2)) * scale, (1, 0))
        bins = roi_align_ada_max(region.features, rois, 3, 1 / STRIDE)
        return bins.permute(0, 2, 3, 1).reshape(*boxes_xywh.shape[:-1], ROI_FEATURES)

    def _region_of(self, corners: Tensor) -> _Region:
        """The last region, or a new one around the boxes [N, 4]."""
        typical_wh = (corners[:, 2:] - corners[:, :2]).median(dim=0).values
        around = torch.cat((corners[:, :2].amin(dim=0), corners[:, 2:].amax(dim=0)))
        if self._region is None or not self._region.serves(around, typical_wh):
            margin = MARGIN * typical_wh
            around = torch.cat((around[:2] - margin, around[2:] + margin))
            self._region = _Region(around, typical_wh, self._convolved(self.warped(around, typical_wh)))
        return self._region

    def warped(self, corners: Tensor, typical_wh: Tensor) -> Tensor:
        """[1, 3, h, w]: the frame between the corners [4], so that ``typical_wh`` [2] becomes 107x107 pixels."""
        height, width = self.frame_hw
        extent = corners[2:] - corners[:2]
        w, h = (extent * TARGET_SIDE / typical_wh).round().int().tolist()
        x = corners[0] + (torch.arange(w, device=corners.device) + 0.5) * typical_wh[0] / TARGET_SIDE
        y = corners[1] + (torch.arange(h, device=corners.device) + 0.5) * typical_wh[1] / TARGET_SIDE
        # grid_sample wants [-1, 1] from border to border.
        grid = torch.stack(torch.meshgrid(2 * x / width - 1, 2 * y / height - 1, indexing="xy"), dim=2)
        warped = F.grid_sample(self._frame, grid[None], padding_mode="zeros", align_corners=False)
        return warped.contiguous(memory_format=torch.channels_last)

    def _convolved(self, x: Tensor) -> Tensor:
        """[1, 512, h / 8, w / 8]; the centre of cell i lies on pixel 8 i."""
        conv1, conv2, conv3 = self._backbone.convolutions()
        x = normalise_and_pool(F.conv2d(x, conv1.weight, conv1.bias, 2, 3))
        x = F.conv2d(x, conv2.weight, conv2.bias, 2, 2)
        x = lrn_max_pool(x, pool=1, stride=1, padding=0)
        x = F.conv2d(x, conv3.weight, conv3.bias, padding=DILATION, dilation=DILATION)
        return F.relu_(x) * self._backbone.feature_scale
