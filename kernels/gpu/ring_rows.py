"""Rows appended to ring buffers: a GPU's :mod:`..ring_rows`.

A program copies a row, or nothing where the row's number is not below the target's count. Deterministic.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of


def append_to_rings(pool: Tensor, rows: Tensor, counts: Tensor, first: Tensor, starts: Tensor, capacity: int) -> None:
    """Arguments as of the public function; any strides of the rows."""
    n_targets, n_rows, width = rows.shape
    if rows.numel() == 0:
        return
    block = min(1024, triton.next_power_of_2(width))
    with on_device_of(pool):
        _append_to_rings_kernel[(n_targets * n_rows,)](
            pool,
            rows,
            counts.contiguous(),
            first.contiguous(),
            starts.contiguous(),
            n_rows,
            width,
            capacity,
            *pool.stride(),
            *rows.stride(),
            BLOCK=block,
            num_warps=max(1, block // 256),
        )


@triton.jit(do_not_specialize=["n_rows", "capacity"])
def _append_to_rings_kernel(
    pool_ptr,  # [R, D]
    rows_ptr,  # [S, n, D]
    counts_ptr,  # [S] int64
    first_ptr,  # [S] int64
    starts_ptr,  # [S] int64
    n_rows,
    width,
    capacity,
    pool_stride_r,
    pool_stride_d,
    stride_s,
    stride_n,
    stride_d,
    BLOCK: tl.constexpr,
):
    target = (tl.program_id(0) // n_rows).to(tl.int64)
    number = (tl.program_id(0) % n_rows).to(tl.int64)
    if number < tl.load(counts_ptr + target):
        place = tl.load(first_ptr + target) + (tl.load(starts_ptr + target) + number) % capacity
        for begin in range(0, width, BLOCK):
            offs = begin + tl.arange(0, BLOCK)
            mask = offs < width
            row = tl.load(rows_ptr + target * stride_s + number * stride_n + offs * stride_d, mask=mask)
            place_ptrs = pool_ptr + place * pool_stride_r + offs * pool_stride_d
            tl.store(place_ptrs, row.to(pool_ptr.dtype.element_ty), mask=mask)
