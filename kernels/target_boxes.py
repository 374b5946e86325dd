"""Boxes around targets, made of random numbers, and those of them that overlap a target enough or little.

With r the three numbers of a box, in [-1, 1], m the mean of the target's width and height, t and s the spreads::

    centre = the target's + t * m * (r_0, r_1);  size = the target's * step^(s * r_2)

Both are kept within the frame. Samples to learn from are the first boxes whose IoU with the target lies on the wanted
side of a bound. Shapes do not depend on values, and nothing waits for the device. Source: MDNet's sampling, which the
paper takes over (paper 3.4). On a GPU :mod:`.gpu.target_boxes` does each in one launch for all targets; everywhere
else plain PyTorch does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import centers, constant, from_centers, iou, rounded
from .dispatch import runs_on_triton

_MOST_SELECTED = 4096  # boxes of a target that one program of a GPU selects from


class Limits(NamedTuple):
    """What boxes are kept within.

    The limits never exclude the target's own size and centre: one that is smaller than ``min_size``, larger than the
    frame or for the most part outside still has boxes around it that overlap it well.

    Attributes:
        frame_wh: width and height in pixels of the frame: centres lie in it.
        min_size: pixels, least width and height, and how much smaller than the frame a box is at least.
        round_to: round to multiples of this width and height; None does not round.
    """

    frame_wh: tuple[int, int]
    min_size: float
    round_to: tuple[float, float] | None = None


def boxes_around(
    target_xywh: Tensor, noise: Tensor, translation: float | Tensor, scale: float, step: float, limits: Limits
) -> Tensor:
    """Boxes around each target.

    Args:
        target_xywh: [..., 4] ``x, y, w, h``.
        noise: [..., N, 3] in [-1, 1]: shifts along x and y, and the exponent; of the targets' type.
        translation: spread of the shifts, target sizes; a number, or [..., 1, 1] for each target.
        scale: spread of the exponents.
        step: their base.
        limits: what the boxes are kept within.

    Returns:
        [..., N, 4].
    """
    if runs_on_triton(noise):
        from .gpu.target_boxes import boxes_around as on_gpu

        return on_gpu(target_xywh, noise, translation, scale, step, limits)
    wh, centre = target_xywh[..., None, 2:], centers(target_xywh)[..., None, :]
    shifted = centre + translation * wh.mean(dim=-1, keepdim=True) * noise[..., :2]
    return within(limits, shifted, wh * step ** (scale * noise[..., 2:]), target_xywh)


def within(limits: Limits, center_xy: Tensor, wh: Tensor, target_xywh: Tensor) -> Tensor:
    """Boxes of the centres and sizes [..., N, 2] around the targets [..., 4], within the limits: [..., N, 4]."""
    frame = constant(limits.frame_wh, wh.dtype, wh.device)
    target_wh, target_center = target_xywh[..., None, 2:], centers(target_xywh)[..., None, :]
    least = target_wh.clamp(max=limits.min_size)
    largest = torch.maximum(frame - limits.min_size, target_wh)
    wh = torch.minimum(torch.maximum(wh, least), largest)
    center_xy = torch.maximum(center_xy, target_center.clamp(max=0))
    center_xy = torch.minimum(center_xy, torch.maximum(frame, target_center))
    boxes = from_centers(center_xy, wh)
    return boxes if limits.round_to is None else rounded(boxes, limits.round_to)


def first_overlapping(
    boxes_xywh: Tensor, target_xywh: Tensor, bound: float, at_most: int, *, above: bool
) -> tuple[Tensor, Tensor]:
    """The first boxes of each target whose IoU with it is above the bound, or below it.

    Args:
        boxes_xywh: [..., N, 4], N at least 1.
        target_xywh: [..., 4].
        bound: of the IoU.
        at_most: boxes taken.
        above: the wanted side of the bound.

    Returns:
        [..., n, 4] and their numbers [...] int64: n is the smaller of ``at_most`` and N; the first so many of the n
        boxes are the wanted ones, in order, the others mean nothing. Where none is wanted, the one nearest to being so
        is taken.
    """
    if runs_on_triton(boxes_xywh) and boxes_xywh.shape[-2] <= _MOST_SELECTED:
        from .gpu.target_boxes import first_overlapping as on_gpu

        return on_gpu(boxes_xywh, target_xywh, bound, at_most, above)
    overlap = iou(boxes_xywh, target_xywh[..., None, :])
    wanted = overlap > bound if above else overlap < bound
    # A stable sort brings the wanted ones to the front, in order.
    order = (~wanted).to(torch.int32).argsort(dim=-1, stable=True)[..., :at_most]
    count = wanted.sum(dim=-1).clamp(max=order.shape[-1])
    nearest = overlap.argmax(dim=-1) if above else overlap.argmin(dim=-1)
    first = torch.where(count == 0, nearest, order[..., 0])
    order = torch.cat((first[..., None], order[..., 1:]), dim=-1)
    return boxes_xywh.gather(-2, order[..., None].expand(*order.shape, 4)), count.clamp(min=1)
