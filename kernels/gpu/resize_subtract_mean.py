"""Bilinear resize with antialiasing, mean subtraction and layout in one launch: :mod:`..resize_subtract_mean`.

A program computes ``BLOCK`` neighbouring numbers of one row of the channels-last result: its stores are contiguous,
and its loads nearly so where the frame is not shrunk much. Neighbouring programs read the same input rows from the L2
cache. A tap's weight comes from products of integers below 2^31, whose difference fp32 holds exactly: positions in fp32
would be off by a thousandth of a pixel at the far side of a 4K frame. The filter's two axes are not separated: a frame
that grows takes 4 taps a number, 1080p that shrinks to 1000 pixels 16, and 4K 64, about ten instructions each.

Deterministic: every sum has its order. Limit: sides of 16384 pixels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of


def resize_subtract_mean(
    image: Tensor, size: tuple[int, int], mean: Tensor, dtype: torch.dtype, channels: int
) -> Tensor:
    """The network's input: arguments and result as of the public function, which has checked them."""
    height, width, _ = image.shape
    out_h, out_w = size
    out = torch.empty((1, out_h, out_w, channels), dtype=dtype, device=image.device)
    block, num_warps = _select_config(channels * out_w)
    with on_device_of(image):
        _resize_subtract_mean_kernel[(out_h, triton.cdiv(channels * out_w, block))](
            image,
            mean.contiguous(),
            out,
            height,
            width,
            out_h,
            out_w,
            triton.cdiv(2 * max(height, out_h), out_h),
            triton.cdiv(2 * max(width, out_w), out_w),
            *image.stride(),
            CHANNELS=channels,
            BLOCK=block,
            num_warps=num_warps,
        )
    return out.permute(0, 3, 1, 2)


def _select_config(row: int) -> tuple[int, int]:
    """BLOCK and warps: four numbers a thread, and a row of 1000 pixels in six programs, 3372 of them for a frame."""
    block = min(512, max(32, triton.next_power_of_2(row)))
    return block, max(1, block // 128)


@triton.jit(
    do_not_specialize=["height", "width", "out_h", "out_w", "taps_y", "taps_x", "stride_y", "stride_x", "stride_c"]
)
def _resize_subtract_mean_kernel(
    image_ptr,  # [H, W, 3] uint8
    mean_ptr,  # [3]
    out_ptr,  # [h, w, CHANNELS]
    height,
    width,
    out_h,
    out_w,
    taps_y,
    taps_x,
    stride_y,
    stride_x,
    stride_c,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    y = tl.program_id(0)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    mask = offs < CHANNELS * out_w
    x, channel = tl.minimum(offs // CHANNELS, out_w - 1), offs % CHANNELS
    in_image = mask & (channel < 3)

    first_y, offset_y = _first_tap(y, height, out_h)
    first_x, offset_x = _first_tap(x, width, out_w)
    reach_y, reach_x = _reach(height, out_h), _reach(width, out_w)
    total_x = tl.zeros((BLOCK,), tl.float32)
    for dx in range(taps_x):
        total_x += _weight(first_x, offset_x, dx, reach_x, width, out_w)

    channel_ptrs = image_ptr + channel.to(tl.int64) * stride_c  # [BLOCK]
    total = tl.zeros((BLOCK,), tl.float32)
    total_y = 0.0
    for dy in range(taps_y):
        weight_y = _weight(first_y, offset_y, dy, reach_y, height, out_h)
        total_y += weight_y
        row_ptrs = channel_ptrs + tl.minimum(first_y + dy, height - 1).to(tl.int64) * stride_y
        row = tl.zeros((BLOCK,), tl.float32)
        for dx in range(taps_x):
            weight_x = _weight(first_x, offset_x, dx, reach_x, width, out_w)
            column = tl.minimum(first_x + dx, width - 1).to(tl.int64)
            row += weight_x * tl.load(row_ptrs + column * stride_x, mask=in_image, other=0).to(tl.float32)
        total += weight_y * row
    value = total / (total_y * total_x) - tl.load(mean_ptr + channel, mask=in_image, other=0.0)
    out_ptrs = out_ptr + y.to(tl.int64) * (CHANNELS * out_w) + offs
    tl.store(out_ptrs, value.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _reach(size, out_size):
    return (2 * tl.maximum(size, out_size)).to(tl.float32)


@triton.jit
def _first_tap(i, size, out_size):
    """The first pixel of the image with a weight, and how far it lies behind output pixel i, in the formula's unit."""
    centre = (2 * i + 1) * size
    # The division rounds towards 0, and what is negative becomes 0.
    first = tl.maximum((centre - 2 * tl.maximum(size, out_size) + out_size) // (2 * out_size), 0)
    return first, ((2 * first + 1) * out_size - centre).to(tl.float32)


@triton.jit
def _weight(first, offset, tap, reach, size, out_size):
    """The triangle filter, as a multiple of what it is divided by; 0 for pixels behind the image's last one."""
    weight = tl.maximum(reach - tl.abs(offset + (2 * tap * out_size).to(tl.float32)), 0.0)
    return tl.where(first + tap < size, weight, 0.0)
