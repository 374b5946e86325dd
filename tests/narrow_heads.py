"""Narrow heads in float64 for the tests of fine-tuning, and samples to tune them with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fdn_triton.config import TrackerConfig
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import Heads

WIDTHS = {3: (20, 16, 16, 2), 2: (20, 16, 2)}  # narrow layers: in float64 the comparison is tight and quick
RATE = 0.02


def config_of(**changes: object) -> TrackerConfig:
    small = {"batch_positives": 6, "batch_negatives": 10, "mining_negatives": 40}
    return TrackerConfig.from_preset("paper", **{**small, **changes})


def random_heads(widths: Sequence[int], targets: int = 1, seed: int = 0) -> Heads:
    g = torch.Generator().manual_seed(seed)
    pairs = list(pairwise(widths))
    weights = [torch.randn(targets, n, m, generator=g, dtype=torch.float64) * m**-0.5 for m, n in pairs]
    biases = [torch.randn(targets, n, generator=g, dtype=torch.float64) * 0.2 for _, n in pairs]
    return Heads(weights, biases)


def copy_of(heads: Heads) -> Heads:
    return Heads([w.clone() for w in heads.weights], [b.clone() for b in heads.biases])


def samples(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(rows: Tensor, heads: int, count: int, seed: int) -> Tensor:
    """[heads, count] of the rows in an order that is not theirs: an iteration must go by the rows."""
    g = torch.Generator().manual_seed(seed)
    return torch.stack([rows[torch.randperm(len(rows), generator=g)[:count]] for _ in range(heads)])


class Pool:
    """30 positives and 90 negatives in one feature matrix, and batches of them for a number of heads."""

    def __init__(self, width: int = 20, heads: int = 1) -> None:
        self.features = torch.cat((samples(30, width, seed=1) + 0.3, samples(90, width, seed=2)))
        self.heads = heads

    def batch(self, seed: int) -> SampleRows:
        rows, device = torch.arange(120), self.features.device
        positives = some(rows[:30], self.heads, 6, seed=10 + seed)
        negatives = some(rows[30:], self.heads, 40, seed=20 + seed)
        return SampleRows(self.features, positives.to(device), negatives.to(device))


def random_keep(tuner: FineTuner, dropout: float, seed: int = 0) -> Tensor:
    ones = tuner.new_keep()
    drawn = torch.empty(ones.shape).bernoulli_(1 - dropout, generator=torch.Generator().manual_seed(seed))
    return drawn.to(ones) / (1 - dropout)
