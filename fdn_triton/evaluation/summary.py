"""From the results on disk, ours and published ones, to scores: what the report shows and ``summary.json`` holds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .attributes import OTB_ATTRIBUTES
from .profiles import Curves, Profile, curves
from .published import find_trackers, read_results
from .work import Run, Task, Unit, read_run
from .worker import difference

OURS = "FDN"


@dataclass(frozen=True, eq=False)
class SequenceScore:
    """A tracker on one sequence.

    Attributes:
        curves: of all its frames, over seeds and parts of the protocol.
        seeds: precision at 20 pixels and AUC of each seed; of a published tracker those of the one result, as seed 0.
        fps: frames per second, reading included; None for a published tracker.
        stages_ms: mean milliseconds a frame of each stage; None for a published tracker.
        updates: short, long and iterations, summed over seeds and parts; None for a published tracker.
    """

    curves: Curves
    seeds: dict[int, tuple[float, float]]
    fps: float | None = None
    stages_ms: dict[str, float] | None = None
    updates: dict[str, int] | None = None


@dataclass(frozen=True, eq=False)
class TrackerScore:
    """A tracker on all sequences that it and we have; ``curves`` is the mean, every sequence counting the same."""

    name: str
    sequences: dict[str, SequenceScore]
    curves: Curves

    @property
    def seeds(self) -> dict[int, tuple[float, float]]:
        """Precision at 20 pixels and AUC of each seed, the mean over the sequences."""
        scores = [score.seeds for score in self.sequences.values()]
        return {
            seed: (
                statistics.fmean(of_seed[seed][0] for of_seed in scores),
                statistics.fmean(of_seed[seed][1] for of_seed in scores),
            )
            for seed in scores[0]
        }


@dataclass(frozen=True, eq=False)
class Track:
    """Our boxes on one sequence, first seed of OPE; boxes [N, 4] and ground truth [N, 4] 0-based, NaN where invalid."""

    image_paths: list[Path]
    boxes_xywh: NDArray[np.float64]
    truth_xywh: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that a report says.

    Attributes:
        benchmark: "OTB".
        protocol: ope, tre or sre.
        profile: name of the rules it is scored by.
        trackers: ours first, then the published ones.
        attributes: of each sequence.
        tracks: ours, by sequence.
        problems: what failed or was left out, a line each.
        settings: what the results were made with, in words.
    """

    benchmark: str
    protocol: str
    profile: str
    trackers: dict[str, TrackerScore]
    attributes: dict[str, list[str]]
    tracks: dict[str, Track]
    problems: list[str]
    settings: dict[str, str]


@dataclass(frozen=True, eq=False)
class OurResults:
    """Our score (None without a single sequence), the tracks, what they were made with, and a line for each problem."""

    score: TrackerScore | None
    tracks: dict[str, Track]
    settings: dict[str, str]
    problems: list[str]


def spread(seeds: Mapping[int, tuple[float, float]]) -> tuple[float, float] | None:
    """Sample standard deviation of precision and AUC over the seeds; None for fewer than two."""
    if len(seeds) < 2:
        return None
    precision, auc = zip(*seeds.values(), strict=True)
    return statistics.stdev(precision), statistics.stdev(auc)


def score_ours(
    tasks: Sequence[Task], out: Path, profile: Profile, settings: Mapping[str, Any] | None = None
) -> OurResults:
    """Score what is on disk.

    A sequence counts when all its runs are there and were made with the same settings.

    Args:
        tasks: what belongs to the evaluation.
        out: its folder.
        profile: the rules.
        settings: the fingerprint that all results must have; None for that of the first one found.
    """
    scores: dict[str, SequenceScore] = {}
    tracks: dict[str, Track] = {}
    problems: list[str] = []
    about: dict[str, str] = {}
    if not any(unit.path(out, ".json").exists() for task in tasks for unit in task.units):
        return OurResults(None, {}, {}, [f"there are no results of these sequences in {out / 'results'}"])
    for task in tasks:
        try:
            runs = {}
            for unit in task.units:
                run = read_run(unit, out)
                if run is None:
                    raise InputError(f"there is no result of {unit}")
                if settings is None:
                    settings = run.settings
                if run.settings != settings:
                    raise InputError(f"{unit} was run with other settings: {difference(run.settings, settings)}")
                about = about or run.about
                runs[unit] = run
        except InputError as error:
            problems.append(str(error))
            continue
        name = task.entry.name
        scores[name] = _sequence_score(task, runs, profile)
        unit, run = next(iter(runs.items()))
        if unit.part.name == "ope":
            images = task.entry.image_paths()[task.first_frame :][: unit.frames]
            tracks[name] = Track(images, run.boxes_xywh, task.truth_xywh)
    return OurResults(_tracker_score(OURS, scores) if scores else None, tracks, about, problems)


def score_published(
    folder: Path, tasks: Sequence[Task], names: Iterable[str], profile: Profile
) -> tuple[list[TrackerScore], list[str], list[str]]:
    """Score published one-pass results, each tracker over those of the named sequences that it has.

    Args:
        folder: of the results.
        tasks: with the sequences' ground truth.
        names: of sequences to score.
        profile: the rules.

    Returns:
        The scores by AUC, the best first; a line for each result that cannot be used; a line for each tracker that
        lacks sequences.

    Raises:
        InputError: there are no results in the folder, or it cannot be read.
    """
    wanted = {task.entry.name: task for task in tasks if task.entry.name in set(names)}
    trackers, problems, notes = [], [], []
    for tracker, files in find_trackers(folder).items():
        if not files:
            problems.append(f"{folder / tracker} holds no results: they lie in it as SEQUENCE.txt")
            continue
        scores = {}
        for name, task in wanted.items():
            if name not in files:
                continue
            try:
                boxes = read_results(files[name])
                if len(boxes) == task.annotated:
                    boxes = boxes[task.first_frame :]
                elif len(boxes) != task.annotated - task.first_frame:
                    raise InputError(f"{files[name]} has {len(boxes)} rows, {name} {task.annotated} frames")
            except InputError as error:
                problems.append(f"{tracker}: {error}: left out")
                continue
            scored = curves(boxes[: len(task.truth_xywh)], task.truth_xywh, profile)
            scores[name] = SequenceScore(scored, {0: (scored.precision_20, scored.auc)})
        lacking = ", ".join(name for name in wanted if name not in scores)
        if not scores:
            notes.append(f"{tracker} has results of none of the sequences")
            continue
        trackers.append(_tracker_score(tracker, scores))
        if lacking:
            notes.append(f"{tracker}: the mean is over {len(scores)} of {len(wanted)} sequences, without {lacking}")
    return sorted(trackers, key=lambda score: -score.curves.auc), problems, notes


def attributes_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The attributes of the sequences that OTB has annotated with them."""
    return {name: list(OTB_ATTRIBUTES[name]) for name in names if name in OTB_ATTRIBUTES}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``summary.json``; see the README for every key."""
    return {
        "benchmark": evaluation.benchmark,
        "protocol": evaluation.protocol,
        "profile": evaluation.profile,
        "settings": evaluation.settings,
        "problems": evaluation.problems,
        "trackers": {
            name: {
                **_scores(tracker),
                "sequences": {
                    sequence: {**_scores(score), "fps": score.fps} for sequence, score in tracker.sequences.items()
                },
            }
            for name, tracker in evaluation.trackers.items()
        },
    }


def _scores(score: TrackerScore | SequenceScore) -> dict[str, Any]:
    deviation = spread(score.seeds)
    return {
        "precision": score.curves.precision_20,
        "auc": score.curves.auc,
        "norm_precision": score.curves.norm_precision_score,
        "frames": score.curves.frames,
        "seeds": {str(seed): {"precision": p, "auc": auc} for seed, (p, auc) in score.seeds.items()},
        "spread": None if deviation is None else {"precision": deviation[0], "auc": deviation[1]},
    }


def _sequence_score(task: Task, runs: Mapping[Unit, Run], profile: Profile) -> SequenceScore:
    scored = {
        unit: curves(run.boxes_xywh, task.truth_xywh[unit.part.first_frame - task.first_frame :], profile)
        for unit, run in runs.items()
    }
    by_seed = {
        seed: Curves.pooled([score for unit, score in scored.items() if unit.seed == seed])
        for seed in dict.fromkeys(unit.seed for unit in runs)
    }
    # The first frame of a run is not timed.
    timed = [(unit.frames - 1, run) for unit, run in runs.items() if run.fps]
    frames = sum(count for count, _ in timed)
    return SequenceScore(
        curves=Curves.pooled(list(scored.values())),
        seeds={seed: (score.precision_20, score.auc) for seed, score in by_seed.items()},
        fps=frames / sum(count / run.fps for count, run in timed if run.fps) if timed else None,
        stages_ms={
            stage: sum(count * run.stages_ms[stage] for count, run in timed) / frames
            for stage in (timed[0][1].stages_ms if timed else ())
        },
        updates={kind: sum(run.updates[kind] for run in runs.values()) for kind in next(iter(runs.values())).updates},
    )


def _tracker_score(name: str, sequences: dict[str, SequenceScore]) -> TrackerScore:
    return TrackerScore(name, sequences, Curves.mean([score.curves for score in sequences.values()]))
