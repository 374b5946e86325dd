"""Triton kernels that measure the device: one that does nothing, one that gathers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 64  # read by one program: sums stay in registers, and little is written
_AT_ONCE = 16  # of them, so that many loads are in flight


def empty() -> None:
    """Launch a kernel that does nothing."""
    _empty_kernel[(1,)]()


def gather(table: Tensor, index: Tensor) -> Tensor:
    """Sums of 64 rows of a [R, C] table each: C is a power of two, the int32 indices are n * 64; fp32 [n, C]."""
    out = torch.empty(len(index) // _ROWS, table.shape[1], dtype=torch.float32, device=table.device)
    _gather_kernel[(len(out),)](table, index, out, ROWS=_ROWS, AT_ONCE=_AT_ONCE, C=table.shape[1], num_warps=4)
    return out


@triton.jit
def _empty_kernel():
    pass


@triton.jit
def _gather_kernel(table_ptr, index_ptr, out_ptr, ROWS: tl.constexpr, AT_ONCE: tl.constexpr, C: tl.constexpr):
    program = tl.program_id(0)
    offs_c = tl.arange(0, C)
    total = tl.zeros((AT_ONCE, C), tl.float32)
    for first in tl.range(0, ROWS, AT_ONCE, loop_unroll_factor=2):
        rows = tl.load(index_ptr + program * ROWS + first + tl.arange(0, AT_ONCE))  # [AT_ONCE]
        total += tl.load(table_ptr + rows[:, None] * C + offs_c[None, :]).to(tl.float32)  # [AT_ONCE, C]
    tl.store(out_ptr + program * C + offs_c, tl.sum(total, axis=0))
