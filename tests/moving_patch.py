"""A textured patch that moves over a smooth background, and a small tracker that follows it.

The network is untrained here: its features tell a textured patch from a smooth background, which is enough to see
that every part does its work. Small numbers of samples keep the tests quick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.target import Target
from fdn_triton.tracker import Tracker, TrackResult
from fdn_triton.weights import NetworkWeights, untrained_weights

Image = NDArray[np.uint8]

SMALL: dict[str, Any] = {
    "short_side": 120,
    "least_target_size": None,
    "candidates": 64,
    "bbox_regression_draws": 300,
    "bbox_regression_samples": 100,
    "first_positive_draws": 200,
    "first_positives": 60,
    "first_negative_draws": 400,
    "first_negatives": 200,
    "first_shifts": 1,
    "first_iterations": 20,
    "positive_draws": 40,
    "positives": 20,
    "negative_draws": 60,
    "negatives": 30,
    "batch_positives": 16,
    "batch_negatives": 32,
    "mining_negatives": 96,
    # Few iterations on features that nobody trained: larger steps make up for it.
    "first_learning_rate": 2e-3,
    "update_learning_rate": 3e-3,
}
WIDTH, HEIGHT, SIDE = 160, 120, 24


@cache
def weights(conv_layers: int = 3) -> NetworkWeights:
    return untrained_weights(NetworkConfig(conv_layers=conv_layers))  # type: ignore[arg-type]


def tracker_of(preset: str = "paper", **changes: Any) -> Tracker:
    config = TrackerConfig.from_preset(preset, **{**SMALL, **changes})
    return Tracker(config, weights=weights(config.network.conv_layers), device="cpu")


def truth(frame: int, target: int = 0) -> tuple[float, float, float, float]:
    """Two targets on different paths, in whole pixels."""
    if target == 0:
        return 20.0 + 3 * frame, 50.0 + round(20 * math.sin(frame / 6)), SIDE, SIDE
    return 120.0 - 2 * frame, 15.0 + frame, SIDE, SIDE


@cache
def background() -> NDArray[np.float32]:
    noise = np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return (110 + 3 * (smooth - smooth.mean())).clip(0, 255).astype(np.float32)


@cache
def picture(frame: int, targets: tuple[int, ...] = (0,)) -> Image:
    """RGB [120, 160, 3]: coarse coloured patches on a smooth background. Not writable: it is shared."""
    image = background().copy()
    for target in targets:
        texture = np.random.default_rng(target).integers(0, 2, (4, 4, 3)).astype(np.float32) * 255
        x, y, w, h = (int(v) for v in truth(frame, target))
        image[y : y + h, x : x + w] = cv2.resize(texture, (w, h), interpolation=cv2.INTER_NEAREST)
    image = cv2.GaussianBlur(image, (0, 0), 0.7).clip(0, 255).astype(np.uint8)
    image.setflags(write=False)
    return image


def follow(tracker: Tracker, frames: int, target: int = 0) -> list[TrackResult]:
    tracker.init(picture(0, (target,)), truth(0, target))
    return [tracker.update(picture(i, (target,))) for i in range(1, frames)]


def boxes_of(results: Sequence[TrackResult], target: int = 0) -> NDArray[np.float64]:
    return np.array([result.boxes_xywh[target] for result in results])


def truths(frames: int, target: int = 0) -> NDArray[np.float64]:
    return np.array([truth(i, target) for i in range(1, frames)])


def only_target(tracker: Tracker) -> Target:
    (target,) = tracker._targets._targets
    return target


def assert_usable(result: TrackResult, width: int, height: int) -> None:
    """Finite boxes with area whose centre lies in the frame, and finite scores."""
    boxes = result.boxes_xywh
    assert np.isfinite(boxes).all()
    assert np.isfinite(result.scores).all()
    assert (boxes[:, 2:] > 0).all()
    center = boxes[:, :2] + boxes[:, 2:] / 2
    # Refinement may push a centre over the frame's edge by part of the box.
    assert (center > -boxes[:, 2:] / 2).all()
    assert (center < (width, height) + boxes[:, 2:] / 2).all()


def assert_updates_follow_the_rule(results: Sequence[TrackResult], config: TrackerConfig) -> None:
    """Short-term after a failure, long-term on every tenth frame, nothing else; the first frame is number 1."""
    for number, result in enumerate(results, start=2):
        for update, success in zip(result.updates, result.success, strict=True):
            if success and number % 10:
                assert update is None, number
                continue
            assert update is not None, number
            assert update.kind == ("long" if success else "short"), number
            assert 1 <= update.iterations <= 10
            assert math.isfinite(update.loss)
            assert config.loss_threshold is not None
            if update.iterations < 10:
                assert update.loss < config.loss_threshold
