"""Samples and maximum of every RoI's bins in one pass: the forward of :mod:`..max_roi_align` and its relatives.

One program computes ``BLOCK_R`` rows, a row being a bin of a RoI, by ``BLOCK_C`` channels: positions once a row, then
for every sample four gathers of ``BLOCK_C`` consecutive channels, blended and compared in fp32. A program's rows are
neighbouring bins, mostly of one RoI, whose samples share cells: those come from the L1 cache. Nothing between input
and output is written. With a gradient to come, the winner of each maximum is kept as one byte.

Any strides of the map are read without a copy; loads are 16 bytes wide where channels lie next to each other and their
number is a multiple of 16.
Offsets are 64 bits wide; there may be up to 2^31 bins. Deterministic; the backward is
:mod:`.max_roi_align_backward`'s.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..dispatch import on_device_of
from ..roi_sampling import Sampling
from .max_roi_align_backward import max_roi_align_bwd
from .roi_taps import TAPS, start_and_spacing, taps


def max_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_hw: tuple[int, int],
    sampling: Sampling,
    deterministic: bool | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Largest sample of every bin, with a gradient for the map.

    Args:
        input: [N, C, H, W], fp32, fp16 or bf16, any strides.
        boxes: [K, 5] (batch_index, x1, y1, x2, y2), used in fp32; a batch index outside [0, N) gives zeros.
        output_hw: bins.
        sampling: where the samples lie, at most 16 per bin and axis.
        deterministic: backward without atomics; None follows torch's global switch at the time of the backward.
        dtype: of the result; None for the input's. What needs a gradient is rounded to the input's before.

    Returns:
        [K, C, PH, PW] of that dtype, channels-last in memory.
    """
    boxes = boxes.float().contiguous()
    if torch.is_grad_enabled() and input.requires_grad:
        return _MaxRoIAlign.apply(input, boxes, output_hw, sampling, deterministic).to(dtype or input.dtype)
    return max_roi_align_fwd(input, boxes, output_hw, sampling, save_winner=False, dtype=dtype)[0]


class _MaxRoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        boxes: Tensor,
        output_hw: tuple[int, int],
        sampling: Sampling,
        deterministic: bool | None,
    ) -> Tensor:
        output, winner = max_roi_align_fwd(input, boxes, output_hw, sampling, save_winner=True)
        ctx.save_for_backward(boxes, winner)
        ctx.sampling, ctx.deterministic = sampling, deterministic
        ctx.shape, ctx.dtype = input.shape, input.dtype
        ctx.channels_last = not input.is_contiguous()
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        boxes, winner = ctx.saved_tensors
        deterministic = ctx.deterministic
        if deterministic is None:
            deterministic = torch.are_deterministic_algorithms_enabled()
        memory_format = torch.channels_last if ctx.channels_last else torch.contiguous_format
        grad_input = max_roi_align_bwd(
            grad_output, boxes, winner, ctx.shape, ctx.dtype, memory_format, ctx.sampling, deterministic
        )
        return grad_input, None, None, None, None


def max_roi_align_fwd(
    input: Tensor,
    boxes: Tensor,
    output_hw: tuple[int, int],
    sampling: Sampling,
    save_winner: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The maxima [K, C, PH, PW], channels-last, and their samples: uint8 [K, PH, PW, C], empty if not saved."""
    n_images, channels, height, width = input.shape
    bins_y, bins_x = output_hw
    output = torch.empty((len(boxes), bins_y, bins_x, channels), dtype=dtype or input.dtype, device=input.device)
    winner = torch.empty(output.shape if save_winner else 0, dtype=torch.uint8, device=input.device)
    if output.numel() == 0:
        return output.permute(0, 3, 1, 2), winner
    if input.numel() == 0:
        return output.zero_().permute(0, 3, 1, 2), winner.zero_()
    n_rows = len(boxes) * bins_y * bins_x
    wide = input.stride(1) == 1 and channels % 16 == 0  # Triton looks for multiples of 16
    block_r, block_c, num_warps = _select_config(channels, input.element_size(), wide)
    stride_n, stride_c, stride_y, stride_x = input.stride()
    with on_device_of(input):
        _max_roi_align_fwd_kernel[(triton.cdiv(n_rows, block_r), triton.cdiv(channels, block_c))](
            input,
            boxes,
            output,
            winner,
            n_rows,
            n_images,
            channels,
            height,
            width,
            stride_n,
            stride_c,
            stride_y,
            stride_x,
            sampling.spatial_scale,
            sampling.shift,
            sampling.extend,
            sampling.min_extent,
            BINS_Y=bins_y,
            BINS_X=bins_x,
            DIVISIONS_Y=sampling.divisions[0],
            DIVISIONS_X=sampling.divisions[1],
            PER_BIN=sampling.per_bin,
            STEP=sampling.step,
            OFFSET=sampling.offset,
            TAPS=TAPS[sampling.taps],
            SAVE_WINNER=save_winner,
            UNROLL=min(sampling.per_bin**2, 4 if wide else 2),
            BLOCK_R=block_r,
            BLOCK_C=block_c,
            num_warps=num_warps,
        )
    return output.permute(0, 3, 1, 2), winner


def _select_config(channels: int, element_size: int, wide: bool) -> tuple[int, int, int]:
    """BLOCK_R, BLOCK_C, warps.

    Where loads are wide, a thread reads 16 bytes a load, one row: 64 channels of fp16 are one 128-byte cache line, and
    256 RoIs of 3x3 bins and 512 channels make 1152 programs of 4 warps, more than 30 warps per multiprocessor of an
    H100.
    Else every channel is a load of its own with a pointer of its own, and a thread takes two: four spill registers.
    """
    if not wide:
        return 16, min(32, triton.next_power_of_2(channels)), 8
    block_c = min(64, triton.next_power_of_2(channels))
    return 16, block_c, max(1, block_c * element_size // 32)


@triton.jit(do_not_specialize=["n_rows", "n_images", "height", "width"])
def _max_roi_align_fwd_kernel(
    input_ptr,  # [N, C, H, W]
    boxes_ptr,  # [K, 5]
    output_ptr,  # [rows, C]
    winner_ptr,  # [rows, C] uint8
    n_rows,
    n_images,
    channels,
    height,
    width,
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
    SAVE_WINNER: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [R]
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)  # [C]
    mask_r = offs_r < n_rows
    mask_c = offs_c < channels
    roi = offs_r // (BINS_Y * BINS_X)
    bin_y = offs_r // BINS_X % BINS_Y
    bin_x = offs_r % BINS_X

    box_ptrs = boxes_ptr + roi.to(tl.int64) * 5
    batch = tl.load(box_ptrs, mask=mask_r, other=-1.0)
    x1 = tl.load(box_ptrs + 1, mask=mask_r, other=0.0)
    y1 = tl.load(box_ptrs + 2, mask=mask_r, other=0.0)
    x2 = tl.load(box_ptrs + 3, mask=mask_r, other=0.0)
    y2 = tl.load(box_ptrs + 4, mask=mask_r, other=0.0)
    in_batch = (batch >= 0) & (batch < n_images)  # also keeps the reads of other rows inside the map
    image = tl.where(in_batch, batch, 0.0).to(tl.int64)
    start_y, spacing_y = start_and_spacing(y1, y2, spatial_scale, shift, extend, min_extent, DIVISIONS_Y)
    start_x, spacing_x = start_and_spacing(x1, x2, spatial_scale, shift, extend, min_extent, DIVISIONS_X)
    channel_ptrs = input_ptr + (offs_c.to(tl.int64) * stride_c)[None, :]  # [1, C]

    best = tl.full((BLOCK_R, BLOCK_C), float("-inf"), tl.float32)
    winner = tl.zeros((BLOCK_R, BLOCK_C), tl.int32)
    for sample in tl.range(0, PER_BIN * PER_BIN, loop_unroll_factor=UNROLL):
        index_y = bin_y * STEP + sample // PER_BIN + OFFSET
        index_x = bin_x * STEP + sample % PER_BIN + OFFSET
        top, bottom, top_weight, bottom_weight = taps(start_y + spacing_y * index_y, spacing_y, height, TAPS)
        left, right, left_weight, right_weight = taps(start_x + spacing_x * index_x, spacing_x, width, TAPS)
        top_weight = tl.where(in_batch, top_weight, 0.0)
        bottom_weight = tl.where(in_batch, bottom_weight, 0.0)
        top_row = image * stride_n + top.to(tl.int64) * stride_y  # [R]
        bottom_row = image * stride_n + bottom.to(tl.int64) * stride_y
        left_column = left.to(tl.int64) * stride_x
        right_column = right.to(tl.int64) * stride_x
        mask = mask_c[None, :]
        # [R, C]
        v00 = tl.load(channel_ptrs + (top_row + left_column)[:, None], mask=mask, other=0.0).to(tl.float32)
        v01 = tl.load(channel_ptrs + (top_row + right_column)[:, None], mask=mask, other=0.0).to(tl.float32)
        v10 = tl.load(channel_ptrs + (bottom_row + left_column)[:, None], mask=mask, other=0.0).to(tl.float32)
        v11 = tl.load(channel_ptrs + (bottom_row + right_column)[:, None], mask=mask, other=0.0).to(tl.float32)
        value = v00 * (top_weight * left_weight)[:, None]
        value += v01 * (top_weight * right_weight)[:, None]
        value += v10 * (bottom_weight * left_weight)[:, None]
        value += v11 * (bottom_weight * right_weight)[:, None]
        if SAVE_WINNER:
            better = (value > best) | (value != value)  # NaN wins, as in torch.max
            best = tl.where(better, value, best)
            winner = tl.where(better, sample, winner)
        else:
            best = tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL)

    offs_out = offs_r.to(tl.int64)[:, None] * channels + offs_c[None, :]  # [R, C]
    mask_out = mask_r[:, None] & mask_c[None, :]
    tl.store(output_ptr + offs_out, best.to(output_ptr.dtype.element_ty), mask=mask_out)
    if SAVE_WINNER:
        tl.store(winner_ptr + offs_out, winner.to(tl.uint8), mask=mask_out)
