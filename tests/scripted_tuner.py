"""A tuner whose losses are given, and lessons for it: for the tests of learning while tracking."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from fdn_triton.config import TrackerConfig
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import Heads
from fdn_triton.online import Lesson, fine_tune

CONFIG = TrackerConfig(batch_positives=3, batch_negatives=4, mining_negatives=8)


class ScriptedTuner(FineTuner):
    """Returns the given losses, of each head, and writes down what it is told."""

    def __init__(self, losses: Sequence[Sequence[float]], together: bool = False, dropout: float = 0.5) -> None:
        heads = Heads(
            [torch.ones(5, 4, 2), torch.ones(5, 4, 4), torch.ones(5, 2, 4)], [torch.ones(5, n) for n in (4, 4, 2)]
        )
        super().__init__(heads, dataclasses.replace(CONFIG, dropout=dropout), together=together)
        self.losses = list(losses)
        self.told: list[object] = []
        self.steps: list[tuple[list[list[int]], list[list[int]], Tensor]] = []

    def begin(self, targets: Sequence[int], learning_rate: float) -> None:
        super().begin(targets, learning_rate)
        self.told.append((list(targets), learning_rate))

    def iterate(self, samples: SampleRows, keep: Tensor) -> Tensor:
        self.steps.append((samples.positives.tolist(), samples.negatives.tolist(), keep.clone()))
        self.told.append("step")
        return torch.tensor(self.losses[len(self.steps) - 1])

    def stop(self, head: int) -> None:
        self.told.append(f"stop {head}")

    def finish(self) -> None:
        self.told.append("finish")


def lessons(count: int = 1, seed: int = 0) -> list[Lesson]:
    """Targets 3, 2, ... with rows of their own and equal generators."""
    return [
        Lesson(3 - s, 100 * s + torch.arange(7), 100 * s + 10 + torch.arange(20), torch.Generator().manual_seed(seed))
        for s in range(count)
    ]


def tune(tuner: FineTuner, iterations: int, threshold: float | None, seed: int = 0) -> tuple[int, float]:
    (result,) = fine_tune(tuner, torch.ones(30, 2), lessons(seed=seed), 0.1, iterations, threshold)
    return result
