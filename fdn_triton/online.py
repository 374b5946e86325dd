"""Learning while tracking: sample memory, and fine-tuning with the loss threshold (paper 3.4)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .device import upload
from .fine_tuning import FineTuner, SampleRows
from .noise import dropout_table


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
        first_row: of this memory's rows, which are as many as :meth:`capacity_of` says.
        frames: frames remembered.
        rows_per_frame: most rows that a frame adds, ...
        first_rows: ... but the first one, which may add this many.

    Attributes:
        pool, first_row: as given.
        capacity: rows of the ring.
        next_row: of the ring, where the next frame begins.
    """

    def __init__(self, pool: Tensor, first_row: int, frames: int, rows_per_frame: int, first_rows: int) -> None:
        self.pool = pool
        self.first_row = first_row
        self.capacity = self.capacity_of(frames, rows_per_frame, first_rows)
        self.next_row = 0
        self._rows: deque[NDArray[np.int64]] = deque(maxlen=frames)  # of the pool, per frame

    @staticmethod
    def capacity_of(frames: int, rows_per_frame: int, first_rows: int) -> int:
        """Rows that a memory needs."""
        return (frames - 1) * rows_per_frame + max(first_rows, rows_per_frame)

    def __len__(self) -> int:
        """Frames held."""
        return len(self._rows)

    def append(self, features: Tensor) -> None:
        """Remember the samples [n, width] of one more frame; the oldest frame is forgotten when the memory is full."""
        before_end = min(len(features), self.capacity - self.next_row)
        first = self.first_row + self.next_row
        self.pool[first : first + before_end] = features[:before_end]
        self.pool[self.first_row : self.first_row + len(features) - before_end] = features[before_end:]
        self.appended(len(features))

    def appended(self, count: int) -> None:
        """One more frame's rows, so many, have been written from ``next_row`` on, around the ring's end."""
        rows = np.arange(self.next_row, self.next_row + count, dtype=np.int64)
        if self.next_row + count > self.capacity:
            rows %= self.capacity
        self._rows.append(rows + self.first_row)
        self.next_row = (self.next_row + count) % self.capacity

    def of_last(self, frames: int) -> Tensor:
        """The pool's rows [n] that hold the samples of the most recent ``frames`` frames; on the host."""
        return torch.from_numpy(np.concatenate(list(self._rows)[-frames:]))


class Lesson(NamedTuple):
    """What one head is to be fine-tuned on.

    Attributes:
        target: the head's.
        positives: [p] int64, rows of a feature matrix; on the host.
        negatives: [n] int64, rows of the same matrix.
        generator: draws the batches, and where to read dropout; on the host.
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
    rows = [upload(torch.stack(drawn, dim=1), features.device) for drawn in (positives, negatives)]

    tuner.begin([lesson.target for lesson in lessons], learning_rate)
    keep = tuner.new_keep()
    if config.dropout:
        factors = keep[0].numel()
        table = dropout_table(config.dropout, factors, keep.device)
        places = upload(table.places(iterations, factors, [lesson.generator for lesson in lessons]), keep.device)
    results = [(0, math.nan)] * len(lessons)
    running = list(range(len(lessons)))
    for number, (positive_rows, negative_rows) in enumerate(zip(*rows, strict=True), start=1):
        if config.dropout:
            table.read(places[number - 1], factors, out=keep.view(len(keep), factors))
        losses = tuner.iterate(SampleRows(features, positive_rows, negative_rows), keep)
        if threshold == -math.inf and number < iterations:
            continue
        values = losses.tolist()  # waits for a GPU: only where the values decide or are reported
        for head in running:
            results[head] = (number, values[head])
        stopped = [head for head in running if values[head] < threshold]
        running = [head for head in running if head not in stopped]
        if not running:
            break
        for head in stopped:
            tuner.stop(head)
    tuner.finish()
    return results


def _batches(rows: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """[count, size] of the rows [n]: all of them in random order, reshuffled when used up; on the host."""
    n = len(rows)
    passes = -(-count * size // n)
    shuffles = [torch.randperm(n, generator=generator, device=rows.device) for _ in range(passes)]
    return rows.index_select(0, torch.cat(shuffles)[: count * size]).view(count, size)
