"""What a thread of the LRN kernel does with cells of the map: loading, normalising, maxima, storing.

A cell is eight neighbouring channels and the two on either side of them, which the windows of the outer ones reach.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS: tl.constexpr, WIDE: tl.constexpr, CELLS: tl.constexpr):
    """For each cell of a row: its eight channels [BLOCK, 8], the two before and the two behind [BLOCK, 2]."""
    cells = ()
    for i in tl.static_range(CELLS):
        ptrs = row_ptr + offs_cells[i]  # [BLOCK]
        if WIDE:
            group = _load_group(ptrs)
            offs_2 = tl.arange(0, 2)[None, :]
            before = tl.load(ptrs[:, None] - 2 + offs_2, mask=(offs_c > 0)[:, None], other=0.0)
            behind = tl.load(ptrs[:, None] + 8 + offs_2, mask=(offs_c < CHANNELS - 8)[:, None], other=0.0)
        else:
            r0 = _load_channel(ptrs, offs_c, stride_c, 0, CHANNELS)
            r1 = _load_channel(ptrs, offs_c, stride_c, 1, CHANNELS)
            r2 = _load_channel(ptrs, offs_c, stride_c, 2, CHANNELS)
            r3 = _load_channel(ptrs, offs_c, stride_c, 3, CHANNELS)
            r4 = _load_channel(ptrs, offs_c, stride_c, 4, CHANNELS)
            r5 = _load_channel(ptrs, offs_c, stride_c, 5, CHANNELS)
            r6 = _load_channel(ptrs, offs_c, stride_c, 6, CHANNELS)
            r7 = _load_channel(ptrs, offs_c, stride_c, 7, CHANNELS)
            group = _join(r0, r1, r2, r3, r4, r5, r6, r7)
            a0 = _load_channel(ptrs, offs_c, stride_c, -2, CHANNELS)
            a1 = _load_channel(ptrs, offs_c, stride_c, -1, CHANNELS)
            before = tl.join(a0, a1)
            b0 = _load_channel(ptrs, offs_c, stride_c, 8, CHANNELS)
            b1 = _load_channel(ptrs, offs_c, stride_c, 9, CHANNELS)
            behind = tl.join(b0, b1)
        cells = cells + ((group, before, behind),)
    return cells


@triton.jit
def _load_group(ptrs):
    """[BLOCK, 8] neighbouring channels, 16 bytes at a time."""
    if ptrs.dtype.element_ty.primitive_bitwidth == 32:
        offs_4 = tl.arange(0, 4)[None, :]
        halves = tl.join(tl.load(ptrs[:, None] + offs_4), tl.load(ptrs[:, None] + 4 + offs_4))  # [BLOCK, 4, 2]
        return tl.reshape(tl.permute(halves, (0, 2, 1)), (ptrs.shape[0], 8))
    else:
        return tl.load(ptrs[:, None] + tl.arange(0, 8)[None, :])


@triton.jit
def _load_channel(ptrs, offs_c, stride_c, SHIFT: tl.constexpr, CHANNELS: tl.constexpr):
    """[BLOCK] channel SHIFT counted from the group's first, 0 where there is none."""
    return tl.load(ptrs + SHIFT * stride_c, mask=(offs_c + SHIFT >= 0) & (offs_c + SHIFT < CHANNELS), other=0.0)


@triton.jit
def store_group(row_ptr, offs_x, width, offs_c, value, CHANNELS: tl.constexpr):
    """Write [BLOCK, 8] channels of the result, 16 bytes at a time, as far as there are such columns and channels."""
    ptrs = row_ptr + offs_x * CHANNELS + offs_c  # [BLOCK]
    left = tl.where(offs_x < width, CHANNELS - offs_c, 0)  # channels to write
    element: tl.constexpr = row_ptr.dtype.element_ty
    if element.primitive_bitwidth == 32:
        halves = tl.permute(tl.reshape(value, (value.shape[0], 2, 4)), (0, 2, 1))  # [BLOCK, 4, 2]
        low, high = tl.split(halves)
        offs_4 = tl.arange(0, 4)[None, :]
        tl.store(ptrs[:, None] + offs_4, low, mask=offs_4 < left[:, None])
        tl.store(ptrs[:, None] + 4 + offs_4, high, mask=offs_4 + 4 < left[:, None])
    else:
        offs_8 = tl.arange(0, 8)[None, :]
        tl.store(ptrs[:, None] + offs_8, value.to(element), mask=offs_8 < left[:, None])


@triton.jit
def row_maxima(
    cells,
    alpha,
    beta,
    k,
    SIZE: tl.constexpr,
    COMPARE_SQUARES: tl.constexpr,
    POOL: tl.constexpr,
    STRIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Largest normalised value [BLOCK, 8] of the cells of each of the row's windows."""
    values = ()
    for i in tl.static_range((COLUMNS - 1) * STRIDE + POOL):
        values = values + (_normalised(cells[i], alpha, beta, k, SIZE, COMPARE_SQUARES),)
    maxima = ()
    for i in tl.static_range(COLUMNS):
        best = values[i * STRIDE]
        for j in tl.static_range(1, POOL):
            best = tl.maximum(best, values[i * STRIDE + j], propagate_nan=tl.PropagateNan.ALL)
        maxima = maxima + (best,)
    return maxima


@triton.jit
def larger(a, b, COLUMNS: tl.constexpr):
    """For each window, the larger of two [BLOCK, 8]; NaN where one of them is."""
    maxima = ()
    for i in tl.static_range(COLUMNS):
        maxima = maxima + (tl.maximum(a[i], b[i], propagate_nan=tl.PropagateNan.ALL),)
    return maxima


@triton.jit
def _normalised(cell, alpha, beta, k, SIZE: tl.constexpr, COMPARE_SQUARES: tl.constexpr):
    """r / d^beta or its square, [BLOCK, 8] in fp32."""
    r = _relu(cell[0])  # [BLOCK, 8]
    even, odd = tl.split(tl.reshape(r, (r.shape[0], 2, 2, 2)))  # [BLOCK, 2, 2]
    r04, r26 = tl.split(even)  # [BLOCK, 2]
    r15, r37 = tl.split(odd)
    r0, r4 = tl.split(r04)  # [BLOCK]
    r1, r5 = tl.split(r15)
    r2, r6 = tl.split(r26)
    r3, r7 = tl.split(r37)
    a0, a1 = tl.split(_relu(cell[1]))
    b0, b1 = tl.split(_relu(cell[2]))
    s0, s1 = _two_windows(a0, a1, r0, r1, r2, r3, SIZE)
    s2, s3 = _two_windows(r0, r1, r2, r3, r4, r5, SIZE)
    s4, s5 = _two_windows(r2, r3, r4, r5, r6, r7, SIZE)
    s6, s7 = _two_windows(r4, r5, r6, r7, b0, b1, SIZE)
    d = _join(s0, s1, s2, s3, s4, s5, s6, s7) * alpha + k
    if COMPARE_SQUARES:
        y = tl.rsqrt(d)
        return (r * y) * (r * y) * y
    else:
        return r * tl.exp2(-beta * tl.log2(d))


@triton.jit
def _two_windows(r0, r1, r2, r3, r4, r5, SIZE: tl.constexpr):
    """Sums of squares of the windows around r2 and around r3, six channels in a row."""
    middle = tl.fma(r3, r3, r2 * r2)
    if SIZE == 5:
        around_r2 = tl.fma(r4, r4, tl.fma(r1, r1, r0 * r0) + middle)
        around_r3 = tl.fma(r1, r1, middle + tl.fma(r5, r5, r4 * r4))
    elif SIZE == 3:
        around_r2 = tl.fma(r1, r1, middle)
        around_r3 = tl.fma(r4, r4, middle)
    else:
        around_r2 = r2 * r2
        around_r3 = r3 * r3
    return around_r2, around_r3


@triton.jit
def _join(c0, c1, c2, c3, c4, c5, c6, c7):
    """[BLOCK] eight times -> [BLOCK, 8]."""
    even = tl.join(tl.join(c0, c4), tl.join(c2, c6))  # [BLOCK, 2, 2]
    odd = tl.join(tl.join(c1, c5), tl.join(c3, c7))
    return tl.reshape(tl.join(even, odd), (c0.shape[0], 8))


@triton.jit
def _relu(x):
    return tl.maximum(x, tl.zeros_like(x), propagate_nan=tl.PropagateNan.ALL).to(tl.float32)
