"""The numbers of the report: our sequences beside the best published result, where time and iterations went."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..summary import OURS, Evaluation, SequenceScore, TrackerScore


@dataclass(frozen=True)
class Spread:
    """What the seeds of one sequence differ by.

    Attributes:
        deviation: sample standard deviation.
        low, high: the extremes.
    """

    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class SequenceRow:
    """One sequence: ours, and the published tracker with the highest AUC. None: not measured, or no such tracker."""

    sequence: str
    attributes: tuple[str, ...]
    frames: int
    precision: float
    precision_spread: Spread | None
    auc: float
    auc_spread: Spread | None
    norm_precision: float
    fps: float | None
    iterations_per_update: float | None
    best_published: str | None
    best_precision: float | None
    best_auc: float | None


def sequence_rows(evaluation: Evaluation) -> list[SequenceRow]:
    """A row for each of our sequences, by name."""
    ours = evaluation.trackers.get(OURS)
    rows = []
    for name, score in sorted(ours.sequences.items() if ours else (), key=lambda item: item[0].casefold()):
        best = _best_published(evaluation, name)
        rows.append(
            SequenceRow(
                sequence=name,
                attributes=tuple(evaluation.attributes.get(name, ())),
                frames=score.curves.frames,
                precision=score.curves.precision_20,
                precision_spread=_spread([precision for precision, _ in score.seeds.values()]),
                auc=score.curves.auc,
                auc_spread=_spread([auc for _, auc in score.seeds.values()]),
                norm_precision=score.curves.norm_precision_score,
                fps=score.fps,
                iterations_per_update=iterations_per_update(score.updates),
                best_published=best.name if best else None,
                best_precision=best.sequences[name].curves.precision_20 if best else None,
                best_auc=best.sequences[name].curves.auc if best else None,
            )
        )
    return rows


def stages_ms(evaluation: Evaluation) -> dict[str, float]:
    """Milliseconds a frame, stage by stage, over all frames that were timed; empty where none was."""
    total: dict[str, float] = {}
    frames = 0
    for score in our_scores(evaluation):
        if score.stages_ms:
            frames += score.curves.frames
            for stage, ms in score.stages_ms.items():
                total[stage] = total.get(stage, 0.0) + score.curves.frames * ms
    return {stage: ms / frames for stage, ms in total.items()}


def fps(evaluation: Evaluation) -> float | None:
    """Our frames per second over all sequences; None where none was timed."""
    return frame_rate(our_scores(evaluation))


def frame_rate(scores: Iterable[SequenceScore]) -> float | None:
    """Frames per second: the frames that were timed by the time they took; None where none was."""
    timed = [(score.curves.frames, score.fps) for score in scores if score.fps]
    seconds = sum(frames / rate for frames, rate in timed)
    return sum(frames for frames, _ in timed) / seconds if seconds else None


def updates(evaluation: Evaluation) -> dict[str, int] | None:
    """Our updates over all sequences; None where they were not counted."""
    return added_updates(our_scores(evaluation))


def added_updates(scores: Iterable[SequenceScore]) -> dict[str, int] | None:
    """Updates by kind and their iterations over all runs; None where they were not counted."""
    counted = [score.updates for score in scores if score.updates is not None]
    return {key: sum(count[key] for count in counted) for key in ("short", "long", "iterations")} if counted else None


def iterations_per_update(counts: dict[str, int] | None) -> float | None:
    """Iterations that an update took in the mean; None where there was none."""
    if counts is None or not counts["short"] + counts["long"]:
        return None
    return counts["iterations"] / (counts["short"] + counts["long"])


def our_scores(evaluation: Evaluation) -> list[SequenceScore]:
    """Our score on each sequence; none where we have none."""
    ours = evaluation.trackers.get(OURS)
    return list(ours.sequences.values()) if ours else []


def _best_published(evaluation: Evaluation, sequence: str) -> TrackerScore | None:
    published = [
        tracker for name, tracker in evaluation.trackers.items() if name != OURS and sequence in tracker.sequences
    ]
    return max(published, key=lambda tracker: tracker.sequences[sequence].curves.auc, default=None)


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(statistics.stdev(values), min(values), max(values)) if len(values) > 1 else None
