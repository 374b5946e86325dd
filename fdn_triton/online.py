"""Learning while tracking: sample memory, and fine-tuning with the loss threshold (paper 3.4)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
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
        first_row: of this memory's rows, which are as many as :meth:`capacity` says.
        frames: frames remembered.
        rows_per_frame: most rows that a frame adds, ...
        first_rows: ... but the first one, which may add this many.
    """

    def __init__(self, pool: Tensor, first_row: int, frames: int, rows_per_frame: int, first_rows: int) -> None:
        self.pool = pool
        self._first_row = first_row
        self._capacity = self.capacity(frames, rows_per_frame, first_rows)
        self._frames: deque[tuple[int, int]] = deque(maxlen=frames)  # first row, of this memory's, and number of rows
        self._next_row = 0

    @staticmethod
    def capacity(frames: int, rows_per_frame: int, first_rows: int) -> int:
        """Rows that a memory needs."""
        return (frames - 1) * rows_per_frame + max(first_rows, rows_per_frame)

    def __len__(self) -> int:
        """Frames held."""
        return len(self._frames)

    def append(self, features: Tensor) -> None:
        """Remember the samples [n, width] of one more frame; the oldest frame is forgotten when the memory is full."""
        pieces = self.take(len(features))
        for piece, rows in zip(pieces, features.split([piece.stop - piece.start for piece in pieces]), strict=True):
            self.pool[piece] = rows

    def take(self, count: int) -> list[slice]:
        """Give one more frame so many of the pool's rows, in one piece or, around the ring's end, in two."""
        start, self._next_row = self._next_row, (self._next_row + count) % self._capacity
        self._frames.append((start, count))
        before_end = min(count, self._capacity - start)
        first, rest = self._first_row, count - before_end
        pieces = [slice(first + start, first + start + before_end)]
        return pieces + [slice(first, first + rest)] if rest else pieces

    def of_last(self, frames: int) -> Tensor:
        """The pool's rows [n] that hold the samples of the most recent ``frames`` frames; on the host."""
        rows = [np.arange(start, start + count, dtype=np.int64) for start, count in list(self._frames)[-frames:]]
        return torch.from_numpy(np.concatenate(rows) % self._capacity + self._first_row)


def remember(samples: Tensor, frames: Sequence[tuple[SampleMemory, slice]]) -> None:
    """Append one more frame to each of some memories of one pool, by as many launches for many as for one.

    Args:
        samples: [R, width], of the pool's type.
        frames: memories, one at least, and the rows of the samples that each of them gets.
    """
    taken = [piece for memory, rows in frames for piece in memory.take(rows.stop - rows.start)]
    to_rows, from_rows = (
        np.concatenate([np.arange(rows.start, rows.stop, dtype=np.int64) for rows in all_rows])
        for all_rows in (taken, [rows for _, rows in frames])
    )
    to_rows, from_rows = upload(torch.from_numpy(np.stack((to_rows, from_rows))), samples.device)
    frames[0][0].pool.index_copy_(0, to_rows, samples.index_select(0, from_rows))


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
        places = table.places(iterations, factors, [lesson.generator for lesson in lessons])
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
        for head in stopped:
            tuner.stop(head)
        running = [head for head in running if head not in stopped]
        if not running:
            break
    tuner.finish()
    return results


def _batches(rows: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """[count, size] of the rows [n]: all of them in random order, reshuffled when used up; on the host."""
    n = len(rows)
    passes = -(-count * size // n)
    shuffles = [torch.randperm(n, generator=generator, device=rows.device) for _ in range(passes)]
    return rows[torch.cat(shuffles)[: count * size]].view(count, size)
