"""Rows appended to ring buffers, one for each of many targets, without waiting to know how many rows there are.

Ring s lies in the rows ``first[s] ... first[s] + capacity - 1`` of a pool. The first ``counts[s]`` of the target's
rows go to places ``starts[s], starts[s] + 1, ...`` of it, around its end. On a GPU :mod:`.gpu.ring_rows` moves just
these rows, in one launch for all targets; everywhere else plain PyTorch reads what lies behind them and puts it back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import runs_on_triton


def append_to_rings(pool: Tensor, rows: Tensor, counts: Tensor, first: Tensor, starts: Tensor, capacity: int) -> None:
    """Append rows to the rings.

    Args:
        pool: [R, D], changed in place.
        rows: [S, n, D], n at most ``capacity``, of any floating type.
        counts: [S] int64, so many of each are appended, none to n.
        first: [S] int64, rows of the pool.
        starts: [S] int64, places in the rings, 0 to ``capacity`` - 1.
        capacity: rows of a ring.

    Raises:
        ValueError: n is more than a ring holds.
    """
    if rows.shape[1] > capacity:
        raise ValueError(f"{rows.shape[1]} rows do not fit a ring of {capacity}")
    if runs_on_triton(pool):
        from .gpu.ring_rows import append_to_rings as on_gpu

        on_gpu(pool, rows, counts, first, starts, capacity)
        return
    number = torch.arange(rows.shape[1], device=rows.device)
    places = first[:, None] + (starts[:, None] + number) % capacity
    appended = torch.where((number < counts[:, None])[..., None], rows.to(pool.dtype), pool[places])
    pool.index_copy_(0, places.flatten(), appended.flatten(0, 1))
