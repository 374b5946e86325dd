"""Learning while tracking: sample memory, hard negative mining, updates with the loss threshold (paper 3.4)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .config import TrackerConfig
from .heads import FineTuner, SampleRows


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
        frames: frames remembered.
        rows_per_frame: most rows that a frame adds, ...
        first_rows: ... but the first one, which may add this many.
        width: of a row.
    """

    def __init__(self, frames: int, rows_per_frame: int, first_rows: int, width: int, device: torch.device) -> None:
        capacity = (frames - 1) * rows_per_frame + max(first_rows, rows_per_frame)
        self.features = torch.empty((capacity, width), dtype=torch.float32, device=device)
        self._frame_rows: deque[Tensor] = deque(maxlen=frames)
        self._next_row = 0

    def __len__(self) -> int:
        """Frames held."""
        return len(self._frame_rows)

    def append(self, features: Tensor) -> None:
        """Remember the samples [n, width] of one more frame; the oldest frame is forgotten when the memory is full."""
        rows = (self._next_row + torch.arange(len(features), device=features.device)) % len(self.features)
        self.features[rows] = features
        self._frame_rows.append(rows)
        self._next_row = (self._next_row + len(features)) % len(self.features)

    def of_last(self, frames: int) -> SampleRows:
        """The samples of the most recent ``frames`` frames."""
        return SampleRows(self.features, torch.cat(list(self._frame_rows)[-frames:]))


def all_rows(features: Tensor) -> SampleRows:
    """All of the samples [n, width]."""
    return SampleRows(features, torch.arange(len(features), device=features.device))


def fine_tune(
    tuner: FineTuner,
    positives: SampleRows,
    negatives: SampleRows,
    iterations: int,
    loss_threshold: float | None,
    config: TrackerConfig,
    generator: torch.Generator,
) -> tuple[int, float]:
    """Fine-tune the head that ``tuner`` has turned to.

    Each iteration takes ``batch_positives`` random positives and mines its negatives among ``mining_negatives`` random
    ones. The first iteration whose loss is below ``loss_threshold`` is the last one.

    Returns:
        Iterations taken and the last loss (0 and NaN without iterations).
    """
    positive_batches = _batches(positives, iterations, config.batch_positives, generator)
    negative_batches = _batches(negatives, iterations, config.mining_negatives, generator)
    done, loss = 0, float("nan")
    for positive_batch, negative_batch in zip(positive_batches, negative_batches, strict=True):
        loss_on_device = tuner.iterate(positive_batch, negative_batch, generator)
        done += 1
        if loss_threshold is not None or done == iterations:
            loss = float(loss_on_device)  # waits for a GPU: only where the value decides or is reported
            if loss_threshold is not None and loss < loss_threshold:
                break
    return done, loss


def _batches(samples: SampleRows, count: int, size: int, generator: torch.Generator) -> list[SampleRows]:
    """``count`` batches of ``size`` samples: all of them in random order, reshuffled when used up."""
    n = len(samples.rows)
    passes = -(-count * size // n)
    shuffles = [torch.randperm(n, generator=generator, device=samples.rows.device) for _ in range(passes)]
    if not shuffles:
        return []
    rows = samples.rows[torch.cat(shuffles)[: count * size]]
    return [SampleRows(samples.features, batch) for batch in rows.split(size)]
