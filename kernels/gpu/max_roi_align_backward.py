"""Gradient of the map from the winners of :mod:`.max_roi_align`: each bin's gradient to its winner's four taps.

Two ways, both with sums in fp32:

- scatter (default): one program per ``BLOCK_R`` bins and ``BLOCK_C`` channels adds to the map with atomics, into an
  fp32 buffer that is then rounded to the map's dtype. The order of the additions, and with it the last bits, vary.
- gather (deterministic): one program per ``BLOCK_X`` cells of a row and ``BLOCK_C`` channels goes through the RoIs in
  order, passes over those that do not reach its cells, and sums what the bins of the others send there. Every cell is
  written once, in the map's dtype: no atomics, no buffer. Its work grows with cells times RoIs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of
from ..roi_sampling import Sampling
from .roi_taps import CLAMPED, TAPS, start_and_spacing, taps, weight_of_cell

_SCATTER_R, _SCATTER_C = 8, 64
_GATHER_X, _GATHER_ROIS = 4, 128


def max_roi_align_bwd(
    grad_output: Tensor,
    boxes: Tensor,
    winner: Tensor,
    shape: torch.Size,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    sampling: Sampling,
    deterministic: bool,
) -> Tensor:
    """The gradient of the map.

    Args:
        grad_output: [K, C, PH, PW], any strides.
        boxes: fp32 [K, 5], contiguous.
        winner: uint8 [K, PH, PW, C].
        shape, dtype, memory_format: of the map [N, C, H, W].
        sampling: as in the forward.
        deterministic: gather instead of scatter.

    Returns:
        [N, C, H, W].
    """
    n_images, channels, height, width = shape
    bins_y, bins_x = grad_output.shape[2:]
    grad_dtype = dtype if deterministic else torch.float32
    grad_input = torch.empty(tuple(shape), dtype=grad_dtype, device=boxes.device, memory_format=memory_format)
    if grad_output.numel() == 0 or not deterministic:
        grad_input.zero_()
    if grad_output.numel() == 0 or grad_input.numel() == 0:
        return grad_input.to(dtype)
    arguments = (grad_output, boxes, winner, grad_input)
    sizes = (n_images, channels, height, width, *grad_output.stride(), *grad_input.stride())
    rule = (sampling.spatial_scale, sampling.shift, sampling.extend, sampling.min_extent)
    constants = {
        "BINS_Y": bins_y,
        "BINS_X": bins_x,
        "DIVISIONS_Y": sampling.divisions[0],
        "DIVISIONS_X": sampling.divisions[1],
        "PER_BIN": sampling.per_bin,
        "STEP": sampling.step,
        "OFFSET": sampling.offset,
        "TAPS": TAPS[sampling.taps],
    }
    with on_device_of(grad_output):
        if deterministic:
            block_c = min(128, triton.next_power_of_2(channels))
            # All cells are on the first axis: CUDA allows only 65535 programs on the others.
            grid = (triton.cdiv(width, _GATHER_X) * n_images * height, triton.cdiv(channels, block_c))
            _max_roi_align_bwd_gather_kernel[grid](
                *arguments,
                len(boxes),
                *sizes,
                *rule,
                **constants,
                BLOCK_K=_GATHER_ROIS,
                BLOCK_X=_GATHER_X,
                BLOCK_C=block_c,
                num_warps=4,
            )
        else:
            block_c = min(_SCATTER_C, triton.next_power_of_2(channels))
            n_rows = len(boxes) * bins_y * bins_x
            grid = (triton.cdiv(n_rows, _SCATTER_R), triton.cdiv(channels, block_c))
            _max_roi_align_bwd_scatter_kernel[grid](
                *arguments, n_rows, *sizes, *rule, **constants, BLOCK_R=_SCATTER_R, BLOCK_C=block_c, num_warps=4
            )
    return grad_input.to(dtype)


@triton.jit(do_not_specialize=["n_rows", "n_images", "height", "width"])
def _max_roi_align_bwd_scatter_kernel(
    grad_output_ptr,  # [K, C, PH, PW]
    boxes_ptr,  # [K, 5]
    winner_ptr,  # [rows, C]
    grad_input_ptr,  # [N, C, H, W] fp32
    n_rows,
    n_images,
    channels,
    height,
    width,
    out_stride_k,
    out_stride_c,
    out_stride_y,
    out_stride_x,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    spatial_scale,
    shift,
    extend,
    min_extent,
    BINS_Y: tl.constexpr,
    BINS_X: tl.constexpr,
    DIVISIONS_Y: tl.constexpr,
    DIVISIONS_X: tl.constexpr,
    PER_BIN: tl.constexpr,
    STEP: tl.constexpr,
    OFFSET: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [R]
    offs_c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)  # [C]
    mask_r = offs_r < n_rows
    roi = offs_r // (BINS_Y * BINS_X)
    bin_y = offs_r // BINS_X % BINS_Y
    bin_x = offs_r % BINS_X

    box_ptrs = boxes_ptr + roi.to(tl.int64) * 5
    batch = tl.load(box_ptrs, mask=mask_r, other=-1.0)
    x1 = tl.load(box_ptrs + 1, mask=mask_r, other=0.0)
    y1 = tl.load(box_ptrs + 2, mask=mask_r, other=0.0)
    x2 = tl.load(box_ptrs + 3, mask=mask_r, other=0.0)
    y2 = tl.load(box_ptrs + 4, mask=mask_r, other=0.0)
    in_batch = (batch >= 0) & (batch < n_images)
    image = tl.where(in_batch, batch, 0.0).to(tl.int64)
    start_y, spacing_y = start_and_spacing(y1, y2, spatial_scale, shift, extend, min_extent, DIVISIONS_Y)
    start_x, spacing_x = start_and_spacing(x1, x2, spatial_scale, shift, extend, min_extent, DIVISIONS_X)

    mask = in_batch[:, None] & (offs_c < channels)[None, :]  # [R, C]
    winner_ptrs = winner_ptr + offs_r.to(tl.int64)[:, None] * channels + offs_c[None, :]
    sample = tl.load(winner_ptrs, mask=mask, other=0).to(tl.int32)
    offs_out = roi.to(tl.int64) * out_stride_k + bin_y * out_stride_y + bin_x * out_stride_x
    grad_ptrs = grad_output_ptr + offs_out[:, None] + (offs_c * out_stride_c)[None, :]
    grad = tl.load(grad_ptrs, mask=mask, other=0.0).to(tl.float32)

    index_y = (bin_y * STEP)[:, None] + sample // PER_BIN + OFFSET  # [R, C]
    index_x = (bin_x * STEP)[:, None] + sample % PER_BIN + OFFSET
    spacing_y = spacing_y[:, None]
    spacing_x = spacing_x[:, None]
    top, bottom, top_weight, bottom_weight = taps(start_y[:, None] + spacing_y * index_y, spacing_y, height, TAPS)
    left, right, left_weight, right_weight = taps(start_x[:, None] + spacing_x * index_x, spacing_x, width, TAPS)
    base = grad_input_ptr + (image * stride_n)[:, None] + (offs_c * stride_c)[None, :]
    top_ptrs = base + top.to(tl.int64) * stride_y
    bottom_ptrs = base + bottom.to(tl.int64) * stride_y
    left_column = left.to(tl.int64) * stride_x
    right_column = right.to(tl.int64) * stride_x
    tl.atomic_add(top_ptrs + left_column, grad * top_weight * left_weight, mask=mask, sem="relaxed")
    tl.atomic_add(top_ptrs + right_column, grad * top_weight * right_weight, mask=mask, sem="relaxed")
    tl.atomic_add(bottom_ptrs + left_column, grad * bottom_weight * left_weight, mask=mask, sem="relaxed")
    tl.atomic_add(bottom_ptrs + right_column, grad * bottom_weight * right_weight, mask=mask, sem="relaxed")


@triton.jit
def _reach(start, spacing, size, BINS: tl.constexpr, STEP: tl.constexpr, LAST: tl.constexpr, TAPS: tl.constexpr):
    """First and last cell that samples 0 to the last may read, never too few; the spacing may be negative."""
    end = start + spacing * ((BINS - 1) * STEP + LAST)
    low = tl.minimum(tl.maximum(tl.floor(tl.minimum(start, end)), 0.0), size - 1.0)
    high = tl.minimum(tl.maximum(tl.floor(tl.maximum(start, end)), 0.0), size - 1.0)
    if TAPS == CLAMPED:
        return low, high + 1.0
    else:  # the first tap lies up to a cell further back, the second up to a rounded spacing further on
        return low - 1.0, high + tl.abs(spacing) + 1.0


@triton.jit(do_not_specialize=["n_boxes", "n_images", "height", "width"])
def _max_roi_align_bwd_gather_kernel(
    grad_output_ptr,  # [K, C, PH, PW]
    boxes_ptr,  # [K, 5]
    winner_ptr,  # [rows, C]
    grad_input_ptr,  # [N, C, H, W]
    n_boxes,
    n_images,
    channels,
    height,
    width,
    out_stride_k,
    out_stride_c,
    out_stride_y,
    out_stride_x,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    spatial_scale,
    shift,
    extend,
    min_extent,
    BINS_Y: tl.constexpr,
    BINS_X: tl.constexpr,
    DIVISIONS_Y: tl.constexpr,
    DIVISIONS_X: tl.constexpr,
    PER_BIN: tl.constexpr,
    STEP: tl.constexpr,
    OFFSET: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    LAST: tl.constexpr = PER_BIN - 1 + OFFSET
    x_blocks = tl.cdiv(width, BLOCK_X)
    first_x = tl.program_id(0) % x_blocks * BLOCK_X
    image = tl.program_id(0) // x_blocks // height
    y = tl.program_id(0) // x_blocks % height
    offs_x = first_x + tl.arange(0, BLOCK_X)  # [X]
    offs_c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)  # [C]
    mask_c = offs_c < channels
    total = tl.zeros((BLOCK_X, BLOCK_C), tl.float32)

    for first_k in range(0, n_boxes, BLOCK_K):
        offs_k = first_k + tl.arange(0, BLOCK_K)  # [K]
        mask_k = offs_k < n_boxes
        box_ptrs = boxes_ptr + offs_k.to(tl.int64) * 5
        batch = tl.load(box_ptrs, mask=mask_k, other=-1.0)
        x1 = tl.load(box_ptrs + 1, mask=mask_k, other=0.0)
        y1 = tl.load(box_ptrs + 2, mask=mask_k, other=0.0)
        x2 = tl.load(box_ptrs + 3, mask=mask_k, other=0.0)
        y2 = tl.load(box_ptrs + 4, mask=mask_k, other=0.0)
        start_y, spacing_y = start_and_spacing(y1, y2, spatial_scale, shift, extend, min_extent, DIVISIONS_Y)
        start_x, spacing_x = start_and_spacing(x1, x2, spatial_scale, shift, extend, min_extent, DIVISIONS_X)
        low_y, high_y = _reach(start_y, spacing_y, height, BINS_Y, STEP, LAST, TAPS)
        low_x, high_x = _reach(start_x, spacing_x, width, BINS_X, STEP, LAST, TAPS)
        near = (batch >= image) & (batch < image + 1) & (y >= low_y) & (y <= high_y)
        near = near & (first_x + BLOCK_X - 1 >= low_x) & (first_x <= high_x)
        # Through the near RoIs in order: the next one is the smallest index not yet taken.
        k = tl.min(tl.where(near, offs_k, n_boxes))
        while k < n_boxes:
            box_ptr = boxes_ptr + k.to(tl.int64) * 5
            top, step_y = start_and_spacing(
                tl.load(box_ptr + 2), tl.load(box_ptr + 4), spatial_scale, shift, extend, min_extent, DIVISIONS_Y
            )
            left, step_x = start_and_spacing(
                tl.load(box_ptr + 1), tl.load(box_ptr + 3), spatial_scale, shift, extend, min_extent, DIVISIONS_X
            )
            for bin_y in range(BINS_Y):
                bin_top = top + step_y * (bin_y * STEP)
                low, high = _reach(bin_top, step_y, height, 1, STEP, LAST, TAPS)
                if (y >= low) & (y <= high):
                    for bin_x in range(BINS_X):
                        bin_left = left + step_x * (bin_x * STEP)
                        low, high = _reach(bin_left, step_x, width, 1, STEP, LAST, TAPS)
                        if (first_x + BLOCK_X - 1 >= low) & (first_x <= high):
                            row = (k.to(tl.int64) * BINS_Y + bin_y) * BINS_X + bin_x
                            sample = tl.load(winner_ptr + row * channels + offs_c, mask=mask_c, other=0).to(tl.int32)
                            grad_ptr = grad_output_ptr + k.to(tl.int64) * out_stride_k
                            grad_ptr += bin_y * out_stride_y + bin_x * out_stride_x
                            grad = tl.load(grad_ptr + offs_c * out_stride_c, mask=mask_c, other=0.0).to(tl.float32)
                            index_y = bin_y * STEP + sample // PER_BIN + OFFSET  # [C]
                            index_x = bin_x * STEP + sample % PER_BIN + OFFSET
                            grad *= weight_of_cell(y, top + step_y * index_y, step_y, height, TAPS)
                            weight_x = weight_of_cell(
                                offs_x[:, None], (left + step_x * index_x)[None, :], step_x, width, TAPS
                            )  # [X, C]
                            total += grad[None, :] * weight_x
            k = tl.min(tl.where(near & (offs_k > k), offs_k, n_boxes))

    out_ptr = grad_input_ptr + image.to(tl.int64) * stride_n + y.to(tl.int64) * stride_y
    out_ptrs = out_ptr + (offs_x.to(tl.int64) * stride_x)[:, None] + (offs_c * stride_c)[None, :]
    mask = (offs_x < width)[:, None] & mask_c[None, :]
    tl.store(out_ptrs, total.to(grad_input_ptr.dtype.element_ty), mask=mask)
