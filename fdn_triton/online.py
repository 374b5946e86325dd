"""Learning while tracking: sample memory, and fine-tuning with the loss threshold (paper 3.4)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .fine_tuning import FineTuner, SampleRows


@dataclass(frozen=True)
class Update:
    """What one fine-tuning did (a column of the paper's Table 1).

    Attributes:
        kind: on the first frame, after a failed frame (short) or at the regular interval (long).
        iterations: iterations taken.
        loss: of the last minibatch, before its step.
    """

    kind: Literal["first", "short", "long"]
    iterations: int
    loss: float


class SampleMemory:
    """Features of the samples of the last frames, in a ring buffer of rows: constant memory, no copies to read it.

    Args:
        pool: feature matrix [R, width], shared with other memories.
        first_row: of this memory's rows, which are as many as :meth:`capacity` says.
        frames: frames remembered.
        rows_per_frame: most rows that a frame adds, ...
        first_rows: ... but the first one, which may add this many.
    """

    def __init__(self, pool: Tensor, first_row: int, frames: int, rows_per_frame: int, first_rows: int) -> None:
        self.pool = pool
        self._first_row = first_row
        self._capacity = self.capacity(frames, rows_per_frame, first_rows)
        self._frame_rows: deque[Tensor] = deque(maxlen=frames)
        self._next_row = 0

    @staticmethod
    def capacity(frames: int, rows_per_frame: int, first_rows: int) -> int:
        """Rows that a memory needs."""
        return (frames - 1) * rows_per_frame + max(first_rows, rows_per_frame)

    def __len__(self) -> int:
        """Frames held."""
        return len(self._frame_rows)

    def append(self, features: Tensor) -> None:
        """Remember the samples [n, width] of one more frame; the oldest frame is forgotten when the memory is full."""
        rows = (self._next_row + torch.arange(len(features), device=features.device)) % self._capacity + self._first_row
        self.pool[rows] = features
        self._frame_rows.append(rows)
        self._next_row = (self._next_row + len(features)) % self._capacity

    def of_last(self, frames: int) -> Tensor:
        """The pool's rows [n] that hold the samples of the most recent ``frames`` frames."""
        return torch.cat(list(self._frame_rows)[-frames:])


class Lesson(NamedTuple):
    """What one head is to be fine-tuned on.

    Attributes:
        target: the head's.
        positives: [p] int64, rows of a feature matrix.
        negatives: [n] int64, rows of the same matrix.
        generator: draws the batches and the dropout.
    """

    target: int
    positives: Tensor
    negatives: Tensor
    generator: torch.Generator


def fine_tune(
    tuner: FineTuner,
    features: Tensor,
    lessons: Sequence[Lesson],
    learning_rate: float,
    iterations: int,
    loss_threshold: float | None,
) -> list[tuple[int, float]]:
    """Fine-tune heads on rows of the features [R, 4608].

    Each iteration takes ``batch_positives`` random positives and mines its negatives among ``mining_negatives`` random
    ones. A head's first iteration whose loss is below ``loss_threshold`` is its last one.

    Returns:
        Per lesson the iterations taken and the last loss (0 and NaN without iterations).
    """
    if iterations == 0:
        return [(0, math.nan)] * len(lessons)
    groups = [lessons] if tuner.together and lessons else [[lesson] for lesson in lessons]
    threshold = -math.inf if loss_threshold is None else loss_threshold
    return [
        result
        for group in groups
        for result in _fine_tune_group(tuner, features, group, learning_rate, iterations, threshold)
    ]


def _fine_tune_group(
    tuner: FineTuner,
    features: Tensor,
    lessons: Sequence[Lesson],
    learning_rate: float,
    iterations: int,
    threshold: float,
) -> list[tuple[int, float]]:
    config = tuner.config
    positives, negatives = [], []
    for lesson in lessons:
        positives.append(_batches(lesson.positives, iterations, config.batch_positives, lesson.generator))
        negatives.append(_batches(lesson.negatives, iterations, config.mining_negatives, lesson.generator))
    batches = zip(torch.stack(positives, dim=1), torch.stack(negatives, dim=1), strict=True)

    tuner.begin([lesson.target for lesson in lessons], learning_rate)
    keep = tuner.new_keep()
    results = [(0, math.nan)] * len(lessons)
    running = list(range(len(lessons)))
    for number, (positive_rows, negative_rows) in enumerate(batches, start=1):
        for head in running:
            _draw_dropout(keep[head], config.dropout, lessons[head].generator)
        losses = tuner.iterate(SampleRows(features, positive_rows, negative_rows), keep)
        if threshold == -math.inf and number < iterations:
            continue
        values = losses.tolist()  # waits for a GPU: only where the values decide or are reported
        for head in running:
            results[head] = (number, values[head])
        stopped = [head for head in running if values[head] < threshold]
        for head in stopped:
            tuner.stop(head)
        running = [head for head in running if head not in stopped]
        if not running:
            break
    tuner.finish()
    return results


def _batches(rows: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """[count, size] of the rows [n]: all of them in random order, reshuffled when used up."""
    n = len(rows)
    passes = -(-count * size // n)
    shuffles = [torch.randperm(n, generator=generator, device=rows.device) for _ in range(passes)]
    return rows[torch.cat(shuffles)[: count * size]].view(count, size)


def _draw_dropout(keep: Tensor, dropout: float, generator: torch.Generator) -> None:
    """Fill ``keep`` [hidden layers, batch, 512], all ones without dropout, for inverted dropout."""
    if dropout == 0:
        return
    for layer in keep:
        layer.bernoulli_(1 - dropout, generator=generator)
    keep.div_(1 - dropout)
