"""The highest of many scores by few exact products: for CPUs that multiply bf16 faster than fp32.

All rows are scored in bf16 first. Those with the highest rough scores, and some more, are scored exactly. That is all,
if no other row could have come among the highest: if the lowest of the likely ones lies so far below these that the
others would have to be rounded several times as badly as any of the likely ones was. Else all are scored exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .heads import Heads

_MORE = 64  # rows that are scored exactly beside the highest
# What rounding may do to a row that is not scored exactly, in largest errors of those that are. On real footage it did
# up to 3; the gap that it must not bridge was 22 at least.
_LARGER_ERRORS = 8.0


def saves(rows: int, count: int) -> bool:
    """Whether any of the rows could do without an exact score."""
    return rows > count + _MORE


def likely_highest(rough: Tensor, count: int) -> Tensor:
    """The rows [m], of all [n], among which the ``count`` highest should be; n must be enough that it :func:`saves`."""
    return rough.topk(count + _MORE).indices


def are_highest(rough: Tensor, likely: Tensor, exact: Tensor, count: int) -> bool:
    """Whether the highest of the exact scores [m] of the likely rows [m] can be taken for the highest of all [n]."""
    of_likely = rough[likely]
    error = _LARGER_ERRORS * (exact - of_likely).abs().max()
    # Not "not above": NaN decides nothing.
    return bool(of_likely.min() + error < exact.topk(count).values.min())


def scores_exact_where_highest(head: Heads, features: Tensor, count: int) -> Tensor:
    """[1, n] scores of one head for fp32 features [1, n, 4608]: the ``count`` highest exactly, others roughly."""
    if not saves(features.shape[1], count):
        return head.scores(features)
    rough = head.scores(features.to(torch.bfloat16))[0]
    likely = likely_highest(rough, count)
    exact = head.scores(features[:, likely])[0]
    if not are_highest(rough, likely, exact, count):
        return head.scores(features)
    # Unlikely rows stay below: their rough scores are at most the lowest of the likely ones.
    return rough.index_copy(0, likely, exact)[None]
