"""What is drawn around a target: how many, where, and with the configuration's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fdn_triton.bbox_regression import BoxRegressor
from fdn_triton.config import TrackerConfig
from fdn_triton.kernels.boxes import iou
from fdn_triton.target_sampling import Draws, TargetSampler

BOX = torch.tensor([200.0, 150.0, 60.0, 80.0])
# Every number differs, so that one taken for another shows.
CONFIG = TrackerConfig(
    candidates=90, bbox_regression_draws=2000, bbox_regression_samples=150, bbox_regression_iou=0.55,
    first_positive_draws=700, first_positives=120, positive_draws=400, positives=40, positive_iou=0.75,
    first_negative_draws=3000, first_negatives=800, first_negative_iou=0.45,
    negative_draws=900, negatives=70, negative_iou=0.25,
)  # fmt: skip


def sampler(config: TrackerConfig = CONFIG, seed: int = 0) -> TargetSampler:
    return TargetSampler(config, (640, 480), torch.Generator().manual_seed(seed), None)


def drawn(config: TrackerConfig = CONFIG, seed: int = 0) -> Draws:
    """A frame's of one target, without the axis of targets."""
    return Draws(*(noise[0] for noise in Draws.of(config, [torch.Generator().manual_seed(seed)])))


def positives(seed: int = 0) -> Tensor:
    """Of a later frame."""
    boxes, count = sampler().positives(BOX, drawn(seed=seed).positives)
    return boxes[:count]


def negatives(seed: int = 0) -> Tensor:
    """Of a later frame."""
    boxes, count = sampler().negatives(BOX, drawn(seed=seed).negatives)
    return boxes[:count]


def overlap(boxes_xywh: Tensor) -> Tensor:
    return iou(boxes_xywh, BOX)


@pytest.mark.parametrize(
    "kind, count, above, below",
    [
        (lambda seed: sampler(seed=seed).regression_samples(BOX), 150, 0.55, 1.0),
        (lambda seed: sampler(seed=seed).first_positives(BOX), 120, 0.75, 1.0),
        (positives, 40, 0.75, 1.0),
        (lambda seed: sampler(seed=seed).first_negatives(BOX), 800, -1.0, 0.45),
        (lambda seed: sampler(seed=seed).remembered_negatives(BOX), 70, -1.0, 0.45),
        (negatives, 70, -1.0, 0.25),
    ],
    ids=["regression", "first positives", "positives", "first negatives", "remembered negatives", "negatives"],
)
def test_samples_are_as_many_and_overlap_as_configured(
    kind: Callable[[int], Tensor], count: int, above: float, below: float
) -> None:
    boxes = kind(0)
    assert boxes.shape == (count, 4)
    assert overlap(boxes).min() > above
    assert overlap(boxes).max() <= below
    assert len(boxes.unique(dim=0)) > 0.95 * count
    assert torch.equal(boxes, kind(0))
    assert not torch.equal(boxes, kind(1))


def test_negatives_come_as_close_as_their_limit_allows() -> None:
    assert overlap(sampler().remembered_negatives(BOX)).max() > 0.3
    assert 0.15 < overlap(negatives()).max() < 0.25


def test_candidates_lie_within_the_translation() -> None:
    for translation in (0.3, 1.2):
        boxes = sampler().candidates(BOX, drawn().candidates, translation)
        assert boxes.shape == (90, 4)
        shift = (boxes[:, :2] + boxes[:, 2:] / 2 - BOX[:2] - BOX[2:] / 2).abs().max() / BOX[2:].mean()
        assert 0.7 * translation < shift <= translation * 1.0001
        factors = (boxes[:, 2:] / BOX[2:]).log() / torch.tensor(1.05).log()
        assert 0.7 < factors.abs().max() < 1.0001, "search_scale is 1 exponent of scale_step"


def test_first_negatives_are_of_the_surroundings_and_of_the_whole_frame_in_random_order() -> None:
    boxes = sampler().first_negatives(BOX)
    far = (boxes[:, :2] - BOX[:2]).abs().amax(dim=1) > 1.5 * BOX[2:].max()
    halves = far[:400].float().mean(), far[400:].float().mean()
    assert min(halves) > 0.3 and max(halves) < 0.7, "whole-frame ones are half of them, and not at the end"


def test_boxes_are_rounded_where_asked_for() -> None:
    rounding = TargetSampler(CONFIG, (640, 480), torch.Generator().manual_seed(0), (2.0, 4.0))
    boxes = rounding.candidates(BOX, drawn().candidates, 0.6)
    assert torch.equal(boxes % torch.tensor([2.0, 4.0, 2.0, 4.0]), torch.zeros(90, 4))


@pytest.mark.parametrize("smaller", [True, False])
def test_a_regressor_that_sees_nothing_keeps_the_size_of_a_box_unless_it_learnt_as_mdnet_does(smaller: bool) -> None:
    many = replace(CONFIG, bbox_regression_draws=40_000, bbox_regression_samples=5_000)
    samples = sampler(replace(many, bbox_regression_smaller=smaller)).regression_samples(BOX)
    side = (samples[:, 2:].prod(dim=1) / BOX[2:].prod()).sqrt()
    assert (side.min() < 0.8) == smaller
    assert side.max() > 1.25
    nothing = torch.zeros(1, 8)
    blind = BoxRegressor(nothing.expand(len(samples), -1), samples, BOX, 1000.0)
    factor = (blind.refine(nothing, BOX[None])[0, 2:].prod() / BOX[2:].prod()).sqrt()
    # The bound on IoU rejects more of the smaller boxes than of the larger: a little of the bias remains.
    assert 0.95 < factor < 1 if smaller else factor < 0.92


def test_a_frames_draws_are_each_targets_own_and_distributed_as_mdnets() -> None:
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = Draws.of(CONFIG, generators(1, 2, 3))
    # A normal distribution with a standard deviation of 0.5, clipped to [-1, 1], has one of 0.4596.
    for noise, count, deviation in zip(together, (90, 400, 900), (0.4596, 0.4596, 3**-0.5), strict=True):
        assert noise.shape == (3, count, 3) and float(noise.abs().max()) <= 1
        assert float(noise.mean()) == pytest.approx(0, abs=0.06)
        assert float(noise.std()) == pytest.approx(deviation, rel=0.08)
        assert not torch.equal(noise[0], noise[1])
    (generator,) = generators(2)
    first, second = Draws.of(CONFIG, [generator]), Draws.of(CONFIG, [generator])
    for noise, alone, later in zip(together, first, second, strict=True):
        assert torch.equal(noise[1:2], alone), "whatever the others draw"
        assert not torch.equal(alone, later)
    assert together.part(slice(1, 2)).candidates.shape == (1, 90, 3)
    assert torch.equal(together.part([2, 0]).negatives, together.negatives[[2, 0]])
