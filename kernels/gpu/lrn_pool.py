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
eight, every channel is a load of its own, and pools of 5 spill a few registers. Deterministic. Limit: SIZE is 1, 3 or
5.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of
from .lrn_cells import larger, load_cells, row_maxima, store_group

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
    columns, block = 2 if wide and stride < pool <= 3 else 1, 64
    n_blocks = triton.cdiv(triton.cdiv(out_w, columns) * triton.cdiv(channels, _GROUP), block)
    enough = 4 * 132
    rows = next((rows for rows in (8, 4, 2) if n_images * n_blocks * triton.cdiv(out_h, rows) >= enough), 1)
    return columns, rows, block


@triton.jit(
    do_not_specialize=["n_blocks", "n_strips", "rows", "height", "width", "out_h", "out_w", "stride_c", "left", "top"]
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

    # torch.compile makes a stride of 1 a constant, and of a number with a fraction an fp64.
    stride_c = tl.cast(stride_c, tl.int64)
    alpha, beta, k = tl.cast(alpha, tl.float32), tl.cast(beta, tl.float32), tl.cast(k, tl.float32)
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
        cells = load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS, WIDE, CELLS)
        shared = row_maxima(cells, alpha, beta, k, SIZE, COMPARE_SQUARES, POOL, STRIDE, COLUMNS)
    row_ptr = image_ptr + tl.minimum(tl.maximum(row + SHARED, 0), last_row).to(tl.int64) * stride_y
    ahead = load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS, WIDE, CELLS)
    for y in tl.range(first_y, end_y):
        best = shared  # nothing is smaller than 0
        for dy in tl.range(SHARED, POOL):
            cells = ahead
            row = y * STRIDE - top + tl.where(dy + 1 < POOL, dy + 1, STRIDE + SHARED)
            row_ptr = image_ptr + tl.minimum(tl.maximum(row, 0), last_row).to(tl.int64) * stride_y
            ahead = load_cells(row_ptr, offs_cells, offs_c, stride_c, CHANNELS, WIDE, CELLS)
            maxima = row_maxima(cells, alpha, beta, k, SIZE, COMPARE_SQUARES, POOL, STRIDE, COLUMNS)
            best = larger(best, maxima, COLUMNS)
            if SHARED:
                shared = maxima
        out_row_ptr = out_ptr + (image * out_h + y) * out_w * CHANNELS
        for i in tl.static_range(COLUMNS):
            value = tl.sqrt(best[i]) if COMPARE_SQUARES else best[i]
            store_group(out_row_ptr, offs_x + i, out_w, offs_c, value, CHANNELS)
