"""What makes the preset "fast" fast: a frame sized for its target, and bf16 on a CPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.errors import InputError
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.heads import Heads
from fdn_triton.sequence import open_sequence
from fdn_triton.tracker import Tracker
from fdn_triton.weights import NetworkWeights, load_weights

QUICK = {"first_iterations": 1, "bbox_regression": False, "first_negative_draws": 200, "first_positive_draws": 50}


@cache
def weights() -> NetworkWeights:
    return load_weights("fdn", NetworkConfig())


@cache
def clip(count: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
    sequence = open_sequence(clip_path(), max_frames=count)
    assert sequence.ground_truth is not None
    return [frame.image for frame in sequence.frames() if frame.image is not None], sequence.ground_truth[0, :count]


def test_it_follows_the_owl() -> None:
    images, truth = clip(20)
    tracker = Tracker(TrackerConfig.from_preset("fast"), device="cpu")
    tracker.init(images[0], truth[0])
    results = [tracker.update(image) for image in images[1:]]
    overlap = overlaps(np.stack([result.boxes_xywh[0] for result in results]), truth[1:])
    assert overlap.mean() > 0.7 and overlap.min() > 0.5
    success = [bool(result.success[0]) for result in results]
    assert all(success[:12])
    assert np.mean(success) > 0.6  # the owl then turns: its score falls for some frames, and returns
    assert success[-1]


def _frame_hw(image_hw: tuple[int, int], boxes: list[list[float]], **sizes: float | None) -> tuple[int, int]:
    config = TrackerConfig.from_preset("paper", **{**QUICK, "least_target_size": None, **sizes})
    tracker = Tracker(config, weights=weights(), device="cpu")
    tracker.init(np.zeros((*image_hw, 3), np.uint8), boxes)
    assert tracker._view is not None
    return tracker._view.features.frame_hw


@pytest.mark.parametrize(
    ("target_size", "boxes", "expected"),
    [
        (None, [[50, 50, 60, 40]], (600, 800)),
        (200.0, [[50, 50, 60, 40]], (600, 800)),  # it measures 125 pixels there: never enlarged
        (50.0, [[50, 50, 60, 40]], (240, 320)),
        (25.0, [[50, 50, 60, 40]], (120, 160)),
        (25.0, [[50, 50, 60, 40], [20, 20, 10, 40]], (240, 320)),  # the smallest of several decides
    ],
)
def test_the_frame_is_sized_for_the_target(
    target_size: float | None, boxes: list[list[float]], expected: tuple[int, int]
) -> None:
    assert _frame_hw((240, 320), boxes, target_size=target_size) == expected


@pytest.mark.parametrize(
    ("least", "boxes", "expected"),
    [
        (25.0, [[50, 50, 12, 8]], (600, 800)),  # it measures 25 pixels there
        (40.0, [[50, 50, 12, 8]], (960, 1280)),
        (64.0, [[50, 50, 12, 8]], (1200, 1600)),  # no more than twice
        (40.0, [[50, 50, 60, 40], [20, 20, 12, 8]], (960, 1280)),  # the smallest of several decides
    ],
)
def test_the_frame_is_enlarged_for_a_small_target(
    least: float, boxes: list[list[float]], expected: tuple[int, int]
) -> None:
    assert _frame_hw((240, 320), boxes, least_target_size=least) == expected
    assert _frame_hw((240, 320), boxes, least_target_size=least, target_size=25.0) == (600, 800), "no larger than that"


@pytest.mark.parametrize(
    ("sizes", "box", "frame_hw"),
    [
        ({"target_size": 25.0}, [50, 50, 60, 40], (120, 160)),
        ({"short_side": 60, "least_target_size": 40.0}, [50, 50, 120, 80], (96, 128)),
    ],
)
def test_a_video_that_changes_its_size_keeps_the_frames(
    sizes: dict[str, float], box: list[float], frame_hw: tuple[int, int]
) -> None:
    config = TrackerConfig.from_preset("paper", **{**QUICK, **sizes})
    tracker = Tracker(config, weights=weights(), device="cpu")
    tracker.init(np.zeros((240, 320, 3), np.uint8), box)
    assert tracker._view is not None
    for image_hw in ((480, 640), (240, 320)):
        tracker.update(np.zeros((*image_hw, 3), np.uint8))
        assert tracker._view.features.frame_hw == frame_hw


def test_a_small_target_that_is_added_leaves_the_frames() -> None:
    config = TrackerConfig.from_preset("paper", **QUICK, short_side=60, least_target_size=40.0)
    tracker = Tracker(config, weights=weights(), device="cpu")
    image = np.zeros((240, 320, 3), np.uint8)
    tracker.init(image, [50, 50, 120, 80])
    assert tracker.add(image, [20, 20, 12, 8]) == (1,)
    assert tracker._view is not None and tracker._view.features.frame_hw == (96, 128)
    for target in (0, 1):
        tracker.remove(target)
    tracker.add(image, [20, 20, 30, 30])
    assert tracker._view is not None and tracker._view.features.frame_hw == (120, 160), "a new video begins"


@pytest.mark.parametrize("changes", [{"target_size": 0}, {"target_size": "big"}, {"feature_precision": "fp16"}])
def test_what_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        TrackerConfig(**changes)  # type: ignore[arg-type]


def test_features_in_bf16() -> None:
    """Three layers with 8 bits of mantissa, in windows as in fp32; the RoI layer gets fp32."""
    image = torch.from_numpy(clip(1)[0][0])
    boxes = torch.tensor([[40.0, 30.0, 40.0, 40.0], [90.0, 60.0, 50.0, 30.0]])
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = Backbone.with_weights(NetworkConfig(), weights().tensors, weights().feature_scale, dtype)
        features = FrameFeatures(backbone, (150, 200), torch.tensor(weights().mean))
        assert [stage.map.padded.dtype for stage in features._stages] == [dtype, dtype, torch.float32]
        features.begin(image)
        results.append(features.of_boxes(boxes))
    exact, rounded = results
    assert rounded.dtype == torch.float32
    assert 1e-4 < float((rounded - exact).norm() / exact.norm()) < 1e-2


def _fine_tuned(dtype: torch.dtype) -> tuple[Heads, list[float]]:
    """Heads and losses after three iterations on features of the trackers' size."""
    g = torch.Generator().manual_seed(0)
    heads = Heads.for_targets(NetworkConfig(), weights().tensors, [torch.Generator().manual_seed(1)])
    features = torch.randn(600, 4608, generator=g).relu() * 8
    features[:100] += torch.randn(4608, generator=g).relu() * 4
    config = TrackerConfig.from_preset("paper", mining_negatives=256)
    tuner = FineTuner(heads, config, together=False, dtype=dtype)
    tuner.begin([0], 1e-4)
    losses = []
    for _ in range(3):
        positives, negatives = torch.randperm(100, generator=g)[:32], 100 + torch.randperm(500, generator=g)[:256]
        samples = SampleRows(features.to(dtype), positives[None], negatives[None])
        losses += tuner.iterate(samples, tuner.new_keep()).tolist()
    tuner.finish()
    return heads, losses


def test_learning_in_bf16_is_that_of_fp32() -> None:
    start = Heads.for_targets(NetworkConfig(), weights().tensors, [torch.Generator().manual_seed(1)])
    (exact, exact_losses), (rounded, losses) = (_fine_tuned(dtype) for dtype in (torch.float32, torch.bfloat16))
    assert losses == pytest.approx(exact_losses, rel=0.02)
    assert losses != exact_losses and exact_losses[-1] < exact_losses[0]
    for before, one, other in zip(start.weights, exact.weights, rounded.weights, strict=True):
        assert other.dtype == torch.float32, "what is learnt is kept in fp32"
        step = one - before
        assert float(step.norm()) > 0
        assert float((other - one).norm() / step.norm()) < 0.1


def test_scores_in_bf16() -> None:
    heads = Heads.for_targets(NetworkConfig(), weights().tensors, [torch.Generator().manual_seed(1)])
    features = torch.randn(1, 50, 4608, generator=torch.Generator().manual_seed(0)).relu() * 8
    exact, rounded = heads.scores(features), heads.scores(features.bfloat16())
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).norm() / (exact - exact.mean()).norm()) < 0.05


def test_samples_are_remembered_in_bf16() -> None:
    config = TrackerConfig.from_preset("paper", feature_precision="bf16", **QUICK)
    tracker = Tracker(config, weights=weights(), device="cpu")
    images, truth = clip(2)
    tracker.init(images[0], truth[0])
    tracker.update(images[1])
    assert tracker._targets._pool.dtype == torch.bfloat16
