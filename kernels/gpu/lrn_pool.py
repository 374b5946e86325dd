"""ReLU, LRN across channels and max-pooling in one pass over the map: the forward of :mod:`..lrn_pool`.

::

    r = max(x, 0)
    d[c] = k + alpha * sum over the SIZE channels around c of r^2
    out = max over the cells of the window of r / d^beta

A thread owns eight neighbouring channels of ``COLUMNS`` neighbouring columns of the result and walks down ``rows`` rows
of it; a program is ``BLOCK`` such threads. Channels-last, the eight channels of a cell are one load of 16 bytes (two in
fp32), and the two channels on either side, which belong to the neighbouring threads, come from the L1 cache. All the
rest happens in the thread's registers. The next row's cells are requested before the present one's are used. The
window row that two rows of the result share is normalised once a thread, the column that two of its columns share
too: of pools of 3 in steps of 2, by 2 columns and 4 rows, each cell is normalised 5/4 * 9/8 times.

Maxima are compared before the root is taken: with beta = 3/4 and y = d^-1/2, (r / d^beta)^2 = (r y)^2 y, one special
function a value instead of two. So what would come out below 1e-19 is 0. Cells outside of the map are replaced by the
nearest one inside, which is in the same window: no load needs a mask, and a NaN goes no further than it should.

Any strides are read without a copy; where channels are not neighbours in memory, or their number is no multiple of
eight, every channel is a load of its own. Deterministic. Limits: SIZE is 1, 3 or 5; the map has a cell.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of

_GROUP = 8  # channels of a thread
_WARP = 64 if torch.version.hip else 32  # threads


def lrn_max_pool(
    x: Tensor,
    output_hw: tuple[int, int],
    size: int,
    alpha: float,
    beta: float,
    k: float,
    pool: int,
    stride: int,
    left: int,
    top: int,
) -> Tensor:
    """The pooled map.

    Args:
        x: [N, C, H, W], fp32, fp16 or bf16, any strides, H and W at least 1.
        output_hw: cells of the result; every window holds at least one cell of the map.
        size: channels in the window, 1, 3 or 5.
        alpha, beta, k: of the normalisation.
        pool, stride: of the pooling, cells.
        left, top: cells by which the first window begins outside of the map.

    Returns:
        [N, C, OH, OW] of x's dtype, channels-last in memory.
    """
    n_images, channels, height, width = x.shape
    out_h, out_w = output_hw
    out = torch.empty((n_images, out_h, out_w, channels), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out.permute(0, 3, 1, 2)
    stride_n, stride_c, stride_y, stride_x = x.stride()
    columns, rows, block = _select_config(n_images, channels, out_h, out_w, pool, stride, stride_c == 1)
    n_blocks = triton.cdiv(triton.cdiv(out_w, columns) * triton.cdiv(channels, _GROUP), block)
    n_strips = triton.cdiv(out_h, rows)
    with on_device_of(x):
        _lrn_max_pool_kernel[(n_blocks * n_strips * n_images,)](
            x,
            out,
            n_blocks,
            n_strips,
            rows,
            height,
            width,
            out_h,
            out_w,
            stride_n,
            stride_c,
            stride_y,
            left,
            top,
            float(alpha),
            float(beta),
            float(k),
            CHANNELS=channels,
            CHANNELS_LAST=stride_c == 1,
            STRIDE_X=stride_x,
            SIZE=size,
            COMPARE_SQUARES=beta == 0.75,
            POOL=pool,
            STRIDE=stride,
            COLUMNS=columns,
            BLOCK=block,
            num_warps=block // _WARP,
        )
    return out.permute(0, 3, 1, 2)


def _select_config(
    n_images: int, channels: int, out_h: int, out_w: int, pool: int, stride: int, channels_last: bool
) -> tuple[int, int, int]:
    """COLUMNS, rows, BLOCK.

    More columns and rows a thread normalise fewer cells twice, but leave fewer threads. Two columns of a pool of 3 in
    steps of 2 are five cells a row, which fill 96 registers in fp16 and 128 in fp32; where every channel takes a
    register of its own, one column. The rows are as many as leave four programs of two warps to each of an H100's 132
    multiprocessors, which is what hides a row's latency behind the arithmetic of others: 4 behind conv1 of a frame
    1000 pixels wide (96 channels of 281x500), 1 behind conv2 (256 channels of 71x125).
    """
    wide = channels_last and channels % _GROUP == 0
    columns, block = 2 if wide and pool > stride else 1, 64
    n_blocks = triton.cdiv(triton.cdiv(out_w, columns) * triton.cdiv(channels, _GROUP), block)
    enough = 4 * 132
    rows = next((rows for rows in (8, 4, 2) if n_images * n_blocks * triton.cdiv(out_h, rows) >= enough), 1)
    return columns, rows, block


@triton.jit(
    do_not_specialize=[
        "n_blocks", "n_strips", "rows", "height", "width", "out_h", "out_w", "stride_c", "left", "top"
    ]
)
def _lrn_max_pool_kernel(
    x_ptr,  # [N, C, H, W]
    out_ptr,  # [N, OH, OW, C]
    n_blocks,
    n_strips,
    rows,
    height,
    width,
    out_h,
    out_w,
    stride_n,
    stride_c,
    stride_y,
    left,
    top,
    alpha,
    beta,
    k,
    CHANNELS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    STRIDE_X: tl.constexpr,
    SIZE: tl.constexpr,
    COMPARE_SQUARES: tl.constexpr,
    POOL: tl.constexpr,
    STRIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    GROUPS: tl.constexpr = (CHANNELS + 7) // 8
    WIDE: tl.constexpr = CHANNELS_LAST and CHANNELS % 8 == 0
    CELLS: tl.constexpr = (COLUMNS - 1) * STRIDE + POOL
    SHARED: tl.constexpr = 1 if POOL == STRIDE + 1 else 0  # rows of the map in two rows of the result
    program = tl.program_id(0)
    image = (program // (n_blocks * n_strips)).to(tl.int64)
    first_y = program // n_blocks % n_strips * rows
    end_y = tl.minimum(first_y + rows, out_h)
    offs_item = program % n_blocks * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    if CHANNELS_LAST:
        offs_c = offs_item % GROUPS * 8
        offs_x = offs_item // GROUPS * COLUMNS
    else:
        n_columns = tl.cdiv(out_w, COLUMNS)
        offs_c = offs_item // n_columns * 8
        offs_x = offs_item % n_columns * COLUMNS

    stride_c = stride_c.to(tl.int64)
    offs_cells = ()
    for i in tl.static_range(CELLS):
        column = tl.minimum(tl.maximum(offs_x * STRIDE - left + i, 0), width - 1)
        offs_cells = offs_cells + (offs_c * (1 if WIDE else stride_c) + column.to(tl.int64) * STRIDE_X,)
    image_ptr = x_ptr + image * stride_n

    row = first_y * STRIDE - top
    last_row = tl.minimum((end_y - 1) * STRIDE - top + POOL, height) - 1
    shared = ()
    for _ in tl.static_range(COLUMNS):
        shared = shared + (tl.zeros((BLOCK, 8), tl.float32),)
    if SHARED:
        row_ptr = image_ptr + tl.maximum(row, 0).to(tl.int64) * stride_y
        cells = _load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS, WIDE, CELLS)
        shared = _row_maxima(cells, alpha, beta, k, SIZE, COMPARE_SQUARES, POOL, STRIDE, COLUMNS)
    row_ptr = image_ptr + tl.minimum(tl.maximum(row + SHARED, 0), last_row).to(tl.int64) * stride_y
    ahead = _load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS, WIDE, CELLS)
    for y in tl.range(first_y, end_y):
        best = shared  # nothing is smaller than 0
        for dy in tl.range(SHARED, POOL):
            cells = ahead
            row = y * STRIDE - top + tl.where(dy + 1 < POOL, dy + 1, STRIDE + SHARED)
            row_ptr = image_ptr + tl.minimum(tl.maximum(row, 0), last_row).to(tl.int64) * stride_y
            ahead = _load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS, WIDE, CELLS)
            maxima = _row_maxima(cells, alpha, beta, k, SIZE, COMPARE_SQUARES, POOL, STRIDE, COLUMNS)
            best = _larger(best, maxima, COLUMNS)
            if SHARED:
                shared = maxima
        out_row_ptr = out_ptr + (image * out_h + y) * out_w * CHANNELS
        for i in tl.static_range(COLUMNS):
            value = tl.sqrt(best[i]) if COMPARE_SQUARES else best[i]
            _store_group(out_row_ptr, offs_x + i, out_w, offs_c, value, CHANNELS)


@triton.jit
def _load_cells(
    row_ptr, offs_cells, offs_c, stride_c, CHANNELS: tl.constexpr, WIDE: tl.constexpr, CELLS: tl.constexpr
):
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
def _load_channel(ptrs, offs_c, stride_c, I: tl.constexpr, CHANNELS: tl.constexpr):
    """[BLOCK] channel I counted from the group's first, 0 where there is none."""
    return tl.load(ptrs + I * stride_c, mask=(offs_c + I >= 0) & (offs_c + I < CHANNELS), other=0.0)


@triton.jit
def _store_group(row_ptr, offs_x, width, offs_c, value, CHANNELS: tl.constexpr):
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
def _row_maxima(
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
def _larger(a, b, COLUMNS: tl.constexpr):
    larger = ()
    for i in tl.static_range(COLUMNS):
        larger = larger + (tl.maximum(a[i], b[i], propagate_nan=tl.PropagateNan.ALL),)
    return larger


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
