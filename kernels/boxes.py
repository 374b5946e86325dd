"""Boxes as tensors: corners, centres, overlap and rounding.

A box is ``x, y, w, h``: its left and top edge and its size in pixels, 0-based, floats allowed. The name of every
variable that holds boxes says ``xywh`` or ``xyxy``. All functions work on the last axis and broadcast the others.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """[..., 4] ``x, y, w, h`` -> [..., 4] ``x1, y1, x2, y2`` (edges, not last pixels)."""
    xy, wh = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return torch.cat((xy, xy + wh), dim=-1)


def centers(boxes_xywh: Tensor) -> Tensor:
    """[..., 4] -> [..., 2] centre x, y."""
    return boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2


def from_centers(center_xy: Tensor, wh: Tensor) -> Tensor:
    """Centres [..., 2] and sizes [..., 2] -> boxes [..., 4] ``x, y, w, h``."""
    return torch.cat((center_xy - wh / 2, wh), dim=-1)


def iou(boxes_xywh: Tensor, other_xywh: Tensor) -> Tensor:
    """Intersection over union, [...] of the broadcast shapes; 0 where both boxes have no area."""
    a, b = xywh_to_xyxy(boxes_xywh), xywh_to_xyxy(other_xywh)
    overlap_wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = overlap_wh.prod(dim=-1)
    union = boxes_xywh[..., 2:].prod(dim=-1) + other_xywh[..., 2:].prod(dim=-1) - intersection
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def rounded(boxes_xywh: Tensor, to: tuple[float, float]) -> Tensor:
    """Boxes [..., 4] rounded to multiples of the width and height ``to``, of at least one in size."""
    unit = constant(to, boxes_xywh.dtype, boxes_xywh.device)
    xy, wh = (boxes_xywh[..., :2] / unit).round(), (boxes_xywh[..., 2:] / unit).round().clamp(min=1)
    return torch.cat((xy * unit, wh * unit), dim=-1)


@cache  # for good: captured graphs read them
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values [n] on the device, made once: a copy from the host waits for a GPU."""
    return torch.tensor(values, dtype=dtype, device=device)
