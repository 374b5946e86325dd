"""Frames per second of the tracker on the embedded clip."""

from __future__ import annotations

import numpy as np
import pytest

from fdn_triton import Tracker, TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.sequence import open_sequence

FRAMES = 21


@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.benchmark(group=f"tracking {FRAMES - 1} frames of the embedded clip")
def test_tracker(benchmark, preset: str) -> None:
    sequence = open_sequence(clip_path(), max_frames=FRAMES)
    images = [frame.image for frame in sequence.frames()]
    assert sequence.ground_truth is not None
    truth = sequence.ground_truth[0]

    def learn() -> tuple[tuple[Tracker], dict[str, object]]:
        tracker = Tracker(TrackerConfig.from_preset(preset), device="cpu")
        tracker.init(images[0], truth[0])
        return (tracker,), {}

    def follow(tracker: Tracker) -> np.ndarray:
        return np.array([tracker.update(image).boxes_xywh[0] for image in images[1:]])

    boxes = benchmark.pedantic(follow, setup=learn, rounds=3)
    assert overlaps(boxes, truth[1:]).mean() > 0.5
