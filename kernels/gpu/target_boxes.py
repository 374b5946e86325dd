"""Boxes around targets, and the first of them on one side of an overlap: a GPU's :mod:`..target_boxes`.

A few thousand boxes are no work for a GPU; what costs is the hundred small operations, one launch each, that plain
PyTorch makes of them. Here a target's boxes are made by one launch, a box a thread, and selected by another, one
program a target: a prefix sum over what is wanted says where each box goes. Deterministic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of

if TYPE_CHECKING:
    from ..target_boxes import Limits

_BLOCK = 256


def boxes_around(
    target_xywh: Tensor, noise: Tensor, translation: float | Tensor, scale: float, step: float, limits: Limits
) -> Tensor:
    """Arguments and result as of the public function; computed in fp32."""
    shape = torch.broadcast_shapes(target_xywh.shape[:-1], noise.shape[:-2])
    targets = target_xywh.expand(*shape, 4).reshape(-1, 4).contiguous()
    count = noise.shape[-2]
    noise = noise.expand(*shape, count, 3).reshape(len(targets), count, 3).contiguous()
    out = torch.empty(*shape, count, 4, dtype=noise.dtype, device=noise.device)
    if out.numel() == 0:
        return out
    spreads = None
    if isinstance(translation, Tensor):
        spreads, translation = translation.expand(*shape, 1, 1).reshape(-1).contiguous(), 0.0
    unit_w, unit_h = limits.round_to or (1.0, 1.0)
    with on_device_of(noise):
        _boxes_around_kernel[(len(targets), triton.cdiv(count, _BLOCK))](
            targets,
            noise,
            spreads,
            out,
            count,
            float(translation),
            scale * math.log2(step),
            float(limits.frame_wh[0]),
            float(limits.frame_wh[1]),
            float(limits.min_size),
            float(unit_w),
            float(unit_h),
            ROUND=limits.round_to is not None,
            BLOCK=_BLOCK,
            num_warps=4,
        )
    return out


def first_overlapping(
    boxes_xywh: Tensor, target_xywh: Tensor, bound: float, at_most: int, above: bool
) -> tuple[Tensor, Tensor]:
    """Arguments and result as of the public function, of at most 4096 boxes a target; IoU in fp32."""
    *shape, n_boxes, _ = boxes_xywh.shape
    targets = target_xywh.expand(*shape, 4).reshape(-1, 4).contiguous()
    taken = min(at_most, n_boxes)
    out = boxes_xywh.new_empty(*shape, taken, 4)
    counts = torch.empty(shape, dtype=torch.int64, device=out.device)
    if out.numel() == 0:
        return out, counts.zero_()
    block = triton.next_power_of_2(n_boxes)
    with on_device_of(out):
        _first_overlapping_kernel[(len(targets),)](
            boxes_xywh.reshape(-1, n_boxes, 4).contiguous(),
            targets,
            out,
            counts,
            n_boxes,
            taken,
            float(bound),
            ABOVE=above,
            BLOCK=block,
            num_warps=min(8, max(1, block // 128)),
        )
    return out, counts


@triton.jit
def _rounded(x, unit, ROUND: tl.constexpr):
    # Adding and subtracting 1.5 * 2^23 leaves fp32 no place for a fraction: it rounds half to even.
    return (x / unit + 12582912.0 - 12582912.0) * unit if ROUND else x


@triton.jit
def _size(side, factor, min_size, frame):
    return tl.minimum(tl.maximum(side * factor, tl.minimum(side, min_size)), tl.maximum(frame - min_size, side))


@triton.jit
def _centre(centre, shift, frame):
    return tl.minimum(tl.maximum(centre + shift, tl.minimum(centre, 0.0)), tl.maximum(frame, centre))


@triton.jit(
    do_not_specialize=["count", "translation", "exponent", "frame_w", "frame_h", "min_size", "unit_w", "unit_h"]
)
def _boxes_around_kernel(
    targets_ptr,  # [S, 4]
    noise_ptr,  # [S, N, 3]
    spreads_ptr,  # [S] or None
    out_ptr,  # [S, N, 4]
    count,
    translation,
    exponent,  # log2 of the base, times the spread
    frame_w,
    frame_h,
    min_size,
    unit_w,
    unit_h,
    ROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    target = tl.program_id(0)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < count
    row = target.to(tl.int64) * count + offs
    x = tl.load(targets_ptr + target * 4).to(tl.float32)
    y = tl.load(targets_ptr + target * 4 + 1).to(tl.float32)
    w = tl.load(targets_ptr + target * 4 + 2).to(tl.float32)
    h = tl.load(targets_ptr + target * 4 + 3).to(tl.float32)
    spread = translation
    if spreads_ptr is not None:
        spread = tl.load(spreads_ptr + target).to(tl.float32)
    spread = spread * ((w + h) / 2)
    shift_x = spread * tl.load(noise_ptr + row * 3, mask=mask, other=0.0).to(tl.float32)
    shift_y = spread * tl.load(noise_ptr + row * 3 + 1, mask=mask, other=0.0).to(tl.float32)
    factor = tl.exp2(exponent * tl.load(noise_ptr + row * 3 + 2, mask=mask, other=0.0).to(tl.float32))
    box_w = _size(w, factor, min_size, frame_w)
    box_h = _size(h, factor, min_size, frame_h)
    box_x = _rounded(_centre(x + w / 2, shift_x, frame_w) - box_w / 2, unit_w, ROUND)
    box_y = _rounded(_centre(y + h / 2, shift_y, frame_h) - box_h / 2, unit_h, ROUND)
    if ROUND:
        box_w = tl.maximum(_rounded(box_w, unit_w, ROUND), unit_w)
        box_h = tl.maximum(_rounded(box_h, unit_h, ROUND), unit_h)
    tl.store(out_ptr + row * 4, box_x.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(out_ptr + row * 4 + 1, box_y.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(out_ptr + row * 4 + 2, box_w.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(out_ptr + row * 4 + 3, box_h.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["n_boxes", "taken", "bound"])
def _first_overlapping_kernel(
    boxes_ptr,  # [S, N, 4]
    targets_ptr,  # [S, 4]
    out_ptr,  # [S, n, 4]
    counts_ptr,  # [S] int64
    n_boxes,
    taken,
    bound,
    ABOVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    target = tl.program_id(0)
    offs = tl.arange(0, BLOCK)
    mask = offs < n_boxes
    box_ptrs = boxes_ptr + (target.to(tl.int64) * n_boxes + offs) * 4
    x = tl.load(box_ptrs, mask=mask, other=0.0)
    y = tl.load(box_ptrs + 1, mask=mask, other=0.0)
    w = tl.load(box_ptrs + 2, mask=mask, other=0.0)
    h = tl.load(box_ptrs + 3, mask=mask, other=0.0)
    target_x = tl.load(targets_ptr + target * 4).to(tl.float32)
    target_y = tl.load(targets_ptr + target * 4 + 1).to(tl.float32)
    target_w = tl.load(targets_ptr + target * 4 + 2).to(tl.float32)
    target_h = tl.load(targets_ptr + target * 4 + 3).to(tl.float32)
    left, top = x.to(tl.float32), y.to(tl.float32)
    width, height = w.to(tl.float32), h.to(tl.float32)
    overlap_w = tl.minimum(left + width, target_x + target_w) - tl.maximum(left, target_x)
    overlap_h = tl.minimum(top + height, target_y + target_h) - tl.maximum(top, target_y)
    intersection = tl.maximum(overlap_w, 0.0) * tl.maximum(overlap_h, 0.0)
    union = width * height + target_w * target_h - intersection
    overlap = tl.where(union > 0, intersection / tl.where(union > 0, union, 1.0), 0.0)

    if ABOVE:
        wanted = mask & (overlap > bound)
        nearest = tl.argmax(tl.where(mask, overlap, float("-inf")), axis=0)
    else:
        wanted = mask & (overlap < bound)
        nearest = tl.argmin(tl.where(mask, overlap, float("inf")), axis=0)
    place = tl.cumsum(wanted.to(tl.int32), axis=0) - 1
    count = tl.minimum(tl.sum(wanted.to(tl.int32), axis=0), taken)
    first_out = target.to(tl.int64) * taken
    # Behind the wanted boxes the nearest one is repeated: a box at least, whatever is made of it.
    nearest_ptr = boxes_ptr + (target.to(tl.int64) * n_boxes + nearest) * 4
    behind = (offs >= count) & (offs < taken)
    for side in tl.static_range(4):
        value = tl.load(nearest_ptr + side)
        tl.store(out_ptr + (first_out + offs) * 4 + side, value, mask=behind)
    keep = wanted & (place < taken)
    out_ptrs = out_ptr + (first_out + place) * 4
    tl.store(out_ptrs, x, mask=keep)
    tl.store(out_ptrs + 1, y, mask=keep)
    tl.store(out_ptrs + 2, w, mask=keep)
    tl.store(out_ptrs + 3, h, mask=keep)
    tl.store(counts_ptr + target, tl.maximum(count, 1).to(tl.int64))
