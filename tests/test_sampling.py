"""Drawn boxes: bounds and moments of each distribution, limits, seeds, and the choice by overlap."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from fdn_triton.kernels.boxes import centers, iou
from fdn_triton.sampling import BoxSampler, apart, overlapping

FRAME_WH = (1000, 800)
TARGET = torch.tensor([440.0, 330.0, 80.0, 40.0])  # far from every limit
MEAN_SIDE = 60.0
COUNT = 20_000


def _sampler(
    seed: int = 0, frame_wh: tuple[int, int] = FRAME_WH, round_to: tuple[float, float] | None = None
) -> BoxSampler:
    return BoxSampler(frame_wh, torch.Generator().manual_seed(seed), round_to=round_to)


def _noise(boxes: Tensor, target: Tensor = TARGET) -> tuple[Tensor, Tensor]:
    """Shift of the centre in pixels [N, 2], and exponents of 1.05 of width and height [N, 2], in float64."""
    shift = centers(boxes.double()) - centers(target.double())
    return shift, (boxes[:, 2:].double() / target[2:]).log() / math.log(1.05)


def _clipped_normal_std() -> float:
    """Of 0.5 * N(0, 1) clipped to [-1, 1]: the normal's second moment inside two sigma, and 1 for what is outside."""
    inside = math.erf(2 / math.sqrt(2))
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    return math.sqrt(0.25 * (inside - 4 * density) + (1 - inside))


# Of 20,000 draws the mean has a standard error of 0.7 % of the deviation, the deviation one of 0.5 %: allow 3 %.
def _assert_moments(values: Tensor, std: float, mean: float = 0.0) -> None:
    assert values.mean().item() == pytest.approx(mean, abs=0.03 * std)
    assert values.std().item() == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize(("translation", "scale"), [(0.6, 1.0), (0.1, 5.0)])
def test_gaussian(translation: float, scale: float) -> None:
    shift, exponents = _noise(_sampler().gaussian(TARGET, COUNT, translation, scale))
    bound = translation * MEAN_SIDE
    assert shift.abs().max() <= bound + 1e-3
    assert exponents.abs().max() <= scale + 1e-4
    torch.testing.assert_close(exponents[:, 0], exponents[:, 1], rtol=0, atol=1e-4)  # one draw for both sides
    for values, reach in ((shift[:, 0], bound), (shift[:, 1], bound), (exponents[:, 0], scale)):
        _assert_moments(values, reach * _clipped_normal_std())
        at_the_bound = (values.abs() > reach * 0.9999).double().mean().item()
        assert at_the_bound == pytest.approx(1 - math.erf(2 / math.sqrt(2)), abs=0.006)
        assert (values.abs() < reach / 2).double().mean().item() == pytest.approx(0.6827, abs=0.015)
    draws = torch.cat((shift, exponents[:, :1]), dim=1)
    assert (draws.T.corrcoef() - torch.eye(3)).abs().max() < 0.03  # three independent draws


@pytest.mark.parametrize(("translation", "scale"), [(1.0, 10.0), (2.0, 5.0)])
def test_uniform(translation: float, scale: float) -> None:
    shift, exponents = _noise(_sampler().uniform(TARGET, COUNT, translation, scale))
    bound = translation * MEAN_SIDE
    torch.testing.assert_close(exponents[:, 0], exponents[:, 1], rtol=0, atol=1e-4)
    for values, reach in ((shift[:, 0], bound), (shift[:, 1], bound), (exponents[:, 0], scale)):
        assert reach * 0.99 < values.abs().max() <= reach + 1e-3
        _assert_moments(values, reach / math.sqrt(3))
        assert (values.abs() < reach / 2).double().mean().item() == pytest.approx(0.5, abs=0.015)
    draws = torch.cat((shift, exponents[:, :1]), dim=1)
    assert (draws.T.corrcoef() - torch.eye(3)).abs().max() < 0.03


@pytest.mark.parametrize("smaller", [False, True])
def test_aspect(smaller: bool) -> None:
    translation, scale = 0.3, 10.0
    shift, exponents = _noise(_sampler().aspect(TARGET, COUNT, translation, scale, smaller=smaller))
    least, width = (-scale, 2 * scale) if smaller else (0.0, scale)
    for axis, side in ((0, 80.0), (1, 40.0)):
        assert translation * side * 0.99 < shift[:, axis].abs().max() <= translation * side + 1e-3
        _assert_moments(shift[:, axis], translation * side / math.sqrt(3))
        # 2 u + s U[0, 1]: between -2 and 2 + s; 2 u + s u': between -2 - s and 2 + s.
        assert least - 2 - 1e-3 <= exponents[:, axis].min() < least
        assert scale < exponents[:, axis].max() <= 2 + scale + 1e-3
        _assert_moments(exponents[:, axis], math.sqrt(4 / 3 + width**2 / 12), mean=least + width / 2)
    ratio = exponents[:, 0] - exponents[:, 1]  # the common factor cancels: 2 (u - u')
    assert 3.8 < ratio.abs().max() <= 4 + 1e-3
    _assert_moments(ratio, 2 * math.sqrt(2 / 3))


def _grid(target: Tensor, frame_wh: tuple[int, int]) -> Counter[tuple[float, ...]]:
    """Every box of the grid: inside the frame, a fifth of the target apart, eleven exponents of scale."""
    w, h = target[2:].tolist()
    columns, rows = int((frame_wh[0] - w) / max(w / 5, 1)) + 1, int((frame_wh[1] - h) / max(h / 5, 1)) + 1
    boxes: Counter[tuple[float, ...]] = Counter()
    for i in range(columns):
        for j in range(rows):
            for exponent in range(-5, 6):
                x, y = i * w / 5 + w / 2, j * h / 5 + h / 2
                boxes[round(x, 1), round(y, 1), exponent, exponent] += 1
    return boxes


def _nodes(boxes: Tensor, target: Tensor) -> Counter[tuple[float, ...]]:
    rows = torch.cat((centers(boxes.double()), _noise(boxes, target)[1]), dim=1).tolist()
    return Counter(tuple(round(v, 1) for v in row) for row in rows)


def test_whole_is_a_part_of_the_grid_without_repetition() -> None:
    grid = _grid(TARGET, FRAME_WH)
    drawn = _nodes(_sampler().whole(TARGET, 5000), TARGET)
    assert drawn.total() == 5000
    assert not drawn - grid


def test_whole_holds_every_node_once_and_covers_the_frame() -> None:
    target, frame_wh = torch.tensor([40.0, 40.0, 100.0, 60.0]), (400, 300)
    boxes = _sampler(frame_wh=frame_wh).whole(target, 10**6)
    grid = _grid(target, frame_wh)
    assert len(boxes) == 16 * 21 * 11 == grid.total() == len(grid)
    assert _nodes(boxes, target) == grid
    plain = boxes[(boxes[:, 2] - 100).abs() < 1e-3]
    covered = torch.zeros(300, 400, dtype=torch.bool)
    for x, y, w, h in plain.tolist():
        covered[max(round(y), 0) : max(round(y + h), 0), max(round(x), 0) : max(round(x + w), 0)] = True
    assert covered.all()


def test_whole_draws_evenly() -> None:
    boxes = _sampler().whole(TARGET, 5000)
    assert centers(boxes).mean(dim=0).tolist() == pytest.approx([500, 400], rel=0.03)
    exponents = ((boxes[:, 2] / 80).log() / math.log(1.05)).round()
    shares = torch.bincount(exponents.long() + 5, minlength=11) / 5000
    assert (shares - 1 / 11).abs().max() < 0.02


def test_whole_of_a_tiny_target_steps_by_a_pixel() -> None:
    target = torch.tensor([3.0, 3.0, 2.0, 2.0])
    boxes = _sampler(frame_wh=(30, 20)).whole(target, 10**6)
    assert len(boxes) == 29 * 19 * 11
    assert len(_sampler(frame_wh=(30, 20)).whole(torch.tensor([0.0, 0.0, 500.0, 500.0]), 100)) == 11


def _draws(sampler: BoxSampler, target: Tensor, count: int = 2000) -> list[Tensor]:
    return [
        sampler.gaussian(target, count, 0.6, 5.0),
        sampler.uniform(target, count, 2.0, 10.0),
        sampler.aspect(target, count, 0.3, 10.0),
        sampler.aspect(target, count, 0.3, 10.0, smaller=True),
        sampler.whole(target, count),
    ]


@pytest.mark.parametrize(
    ("frame_wh", "target"),
    [
        (FRAME_WH, (440.0, 330.0, 80.0, 40.0)),
        (FRAME_WH, (0.0, 0.0, 12.0, 12.0)),
        (FRAME_WH, (970.0, 770.0, 60.0, 60.0)),
        (FRAME_WH, (2.0, 2.0, 980.0, 780.0)),
        (FRAME_WH, (300.0, 300.0, 4.0, 6.0)),  # smaller than the least size
        (FRAME_WH, (-200.0, -100.0, 1500.0, 1200.0)),  # larger than the frame
        ((20, 20), (4.0, 4.0, 9.0, 12.0)),  # the least size is also the largest
        ((5, 8), (1.0, 1.0, 3.0, 3.0)),  # a frame smaller than the margin
        (FRAME_WH, (-500.0, 5000.0, 40.0, 40.0)),  # lost outside
    ],
)
def test_limits(frame_wh: tuple[int, int], target: tuple[float, ...]) -> None:
    """Sizes in [10, frame - 10] and centres in the frame, widened to the target's own."""
    target_xywh = torch.tensor(target)
    for boxes in _draws(_sampler(frame_wh=frame_wh), target_xywh):
        assert boxes.isfinite().all()
        for axis in (0, 1):
            size, center = boxes[:, 2 + axis], centers(boxes)[:, axis]
            assert size.min() >= min(10.0, target[2 + axis])
            assert size.max() <= max(frame_wh[axis] - 10.0, target[2 + axis]) + 1e-3
            own = target[axis] + target[2 + axis] / 2
            assert center.min() >= min(0.0, own) - 1e-3
            assert center.max() <= max(frame_wh[axis], own) + 1e-3


@pytest.mark.parametrize(
    "target", [(300.0, 300.0, 4.0, 6.0), (-200.0, -100.0, 1400.0, 1000.0), (-35.0, 200.0, 40.0, 40.0)]
)
def test_targets_beyond_the_limits_keep_samples_that_overlap_them(target: tuple[float, ...]) -> None:
    target_xywh = torch.tensor(target)
    boxes = _sampler().gaussian(target_xywh, 2000, 0.1, 5.0)
    assert (iou(boxes, target_xywh) > 0.7).float().mean() > 0.3


def test_rounding_gives_whole_pixels_of_the_same_boxes() -> None:
    unit = torch.tensor([2.0, 4.0, 2.0, 4.0])  # an image's pixel, twice as wide and four times as high as the frame's
    exact, rounded = _draws(_sampler(), TARGET), _draws(_sampler(round_to=(2.0, 4.0)), TARGET)
    for a, b in zip(exact, rounded, strict=True):
        assert torch.equal((a / unit).round() * unit, b)
        assert not torch.equal(a, b)
    tiny = _sampler(round_to=(8.0, 8.0)).gaussian(torch.tensor([40.0, 40.0, 2.0, 3.0]), 50, 0.1, 1.0)
    assert torch.equal(tiny[:, 2:], torch.full((50, 2), 8.0)), "no box is rounded to nothing"


def test_a_seed_decides_all_and_the_global_generator_is_not_touched() -> None:
    state = torch.get_rng_state()
    first, again, other = (_draws(_sampler(seed), TARGET) for seed in (7, 7, 8))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    sampler = _sampler(7)
    assert not torch.equal(sampler.gaussian(TARGET, 9, 1.0, 1.0), sampler.gaussian(TARGET, 9, 1.0, 1.0))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_drawn() -> None:
    assert [boxes.shape for boxes in _draws(_sampler(), TARGET, count=0)] == [(0, 4)] * 5


# IoU with the box (0, 0, 10, 10): 0.5, 1, 0, 0.25, 1/3, 0.5
OVERLAPS = torch.tensor(
    [[0, 0, 10, 5], [0, 0, 10, 10], [50, 0, 9, 9], [0, 0, 5, 5], [5, 0, 10, 10], [0, 5, 10, 5]], dtype=torch.float32
)
UNIT = torch.tensor([0.0, 0.0, 10.0, 10.0])


def test_overlapping_keeps_order_and_is_strict() -> None:
    assert torch.equal(overlapping(OVERLAPS, UNIT, 0.3, 10), OVERLAPS[[0, 1, 4, 5]])
    assert torch.equal(overlapping(OVERLAPS, UNIT, 0.5, 10), OVERLAPS[[1]])
    assert torch.equal(overlapping(OVERLAPS, UNIT, 0.3, 2), OVERLAPS[[0, 1]])


def test_apart_keeps_order_and_is_strict() -> None:
    assert torch.equal(apart(OVERLAPS, UNIT, 0.5, 10), OVERLAPS[[2, 3, 4]])
    assert torch.equal(apart(OVERLAPS, UNIT, 0.25, 10), OVERLAPS[[2]])
    assert torch.equal(apart(OVERLAPS, UNIT, 0.5, 2), OVERLAPS[[2, 3]])


def test_fallbacks() -> None:
    """The best there is where no box passes the threshold."""
    assert torch.equal(overlapping(OVERLAPS[[2, 3, 4]], UNIT, 0.7, 10), OVERLAPS[[4]])
    assert torch.equal(apart(OVERLAPS[[0, 1, 4]], UNIT, 0.3, 10), OVERLAPS[[4]])
