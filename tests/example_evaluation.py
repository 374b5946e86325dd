"""A made-up evaluation with known numbers, for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fdn_triton.evaluation.profiles import PROFILES, Curves, curves
from fdn_triton.evaluation.summary import OURS, Evaluation, SequenceScore, Track, TrackerScore

FRAMES = {"Alpha": 24, "Beta": 40, "gamma": 8}
STAGES = {"read": 1.0, "features": 40.0, "score": 10.0, "collect": 9.0, "update": 40.0}
SIZE = (64, 48)  # width, height


def truth(frames: int) -> np.ndarray:
    """[frames, 4] boxes that move to the right."""
    x = np.linspace(4, 30, frames)
    return np.stack([x, np.full(frames, 10.0), np.full(frames, 16.0), np.full(frames, 12.0)], axis=1)


def scored(boxes_xywh: np.ndarray, truth_xywh: np.ndarray) -> Curves:
    return curves(boxes_xywh, truth_xywh, PROFILES["otb"])


def boxes(frames: int, error: float) -> np.ndarray:
    """Results that are further off from frame to frame, by ``error`` pixels in the end."""
    result = truth(frames)
    result[:, 0] += np.linspace(0, error, frames)
    return result


def tracker(name: str, error: float, seeds: int = 1) -> TrackerScore:
    """A tracker whose error in the end is ``error`` pixels, two more with each seed; ours is timed."""
    sequences = {}
    for k, (sequence, frames) in enumerate(FRAMES.items()):
        of_seed = [scored(boxes(frames, error + 2 * seed), truth(frames)) for seed in range(seeds)]
        ours = name == OURS
        sequences[sequence] = SequenceScore(
            curves=Curves.pooled(of_seed),
            seeds={seed: (one.precision_20, one.auc) for seed, one in enumerate(of_seed)},
            fps=5.0 * (k + 1) if ours else None,
            stages_ms=dict(STAGES) if ours else None,
            updates={"short": k, "long": 2, "iterations": 10 * (k + 2)} if ours else None,
        )
    return TrackerScore(name, sequences, Curves.mean([score.curves for score in sequences.values()]))


def evaluation(folder: Path, published: dict[str, float] | None = None, seeds: int = 2) -> Evaluation:
    """Ours with an error of 12 pixels beside published trackers, name -> error; frames are written to ``folder``."""
    if published is None:
        published = {"Good": 3.0, "Bad & <Ugly>": 60.0, "Middle": 14.0}
    tracks = {}
    for name, frames in FRAMES.items():
        paths = [folder / name / f"{k + 1:04d}.jpg" for k in range(frames)]
        paths[0].parent.mkdir(parents=True)
        for k, path in enumerate(paths):
            image = np.full((SIZE[1], SIZE[0], 3), 4 * k, np.uint8)
            assert cv2.imwrite(str(path), image)
        tracks[name] = Track(paths, boxes(frames, 12.0), truth(frames))
    ours = tracker(OURS, 12.0, seeds)
    return Evaluation(
        benchmark="OTB",
        protocol="ope",
        profile="otb",
        trackers={OURS: ours, **{name: tracker(name, error) for name, error in published.items()}},
        attributes={"Alpha": ["IV", "OCC"], "Beta": ["OCC"]},
        tracks=tracks,
        problems=["Delta is missing", "Bad & <Ugly>: the mean is over 2 of 3 sequences"],
        settings={"preset": "paper", "device": "cpu"},
    )
