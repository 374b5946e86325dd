"""Bounding box regression: against the textbook's primal solution, and on boxes whose correction is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fdn_triton.bbox_regression import BoxRegressor, search_from
from fdn_triton.config import TrackerConfig

TARGET_XYWH = torch.tensor([50.0, 40.0, 30.0, 20.0], dtype=torch.float64)


def boxes_around(count: int, seed: int) -> Tensor:
    """[count, 4] float64 boxes near the target."""
    noise = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    wh = TARGET_XYWH[2:] * 1.2 ** noise[:, 2:]
    center = TARGET_XYWH[:2] + TARGET_XYWH[2:] / 2 + 0.2 * TARGET_XYWH[2:] * noise[:, :2]
    return torch.cat((center - wh / 2, wh), dim=1)


def offsets_of(boxes_xywh: Tensor, target_xywh: Tensor) -> Tensor:
    """(dx / w, dy / h, log dw, log dh), written out box by box."""
    tx, ty, tw, th = target_xywh.tolist()
    rows = []
    for x, y, w, h in boxes_xywh.tolist():
        dx, dy = (tx + tw / 2) - (x + w / 2), (ty + th / 2) - (y + h / 2)
        rows.append([dx / w, dy / h, math.log(tw / w), math.log(th / h)])
    return torch.tensor(rows, dtype=torch.float64)


def primal_predictions(features: Tensor, boxes_xywh: Tensor, ridge: float, new: Tensor) -> Tensor:
    """Offsets predicted for the new features [K, d], in the space of the features, with numbers of float64."""
    y = offsets_of(boxes_xywh, TARGET_XYWH)
    mean = y.mean(dim=0)
    covariance = (y - mean).T @ (y - mean) / len(y) + 1e-3 * torch.eye(4, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(covariance)
    whiten, unwhiten = u @ torch.diag(s**-0.5) @ vh, u @ torch.diag(s**0.5) @ vh
    x = torch.cat((features, torch.ones(len(features), 1)), dim=1)
    penalty = ridge * torch.eye(x.shape[1], dtype=torch.float64)  # on the bias column too
    coefficients = torch.linalg.inv(x.T @ x + penalty) @ x.T @ ((y - mean) @ whiten)
    return torch.cat((new, torch.ones(len(new), 1)), dim=1) @ coefficients @ unwhiten + mean


def corrected(boxes_xywh: Tensor, offsets: Tensor) -> Tensor:
    wh = boxes_xywh[:, 2:] * offsets[:, 2:].exp()
    center = boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2 + offsets[:, :2] * boxes_xywh[:, 2:]
    return torch.cat((center - wh / 2, wh), dim=1)


@pytest.mark.parametrize(("samples", "width"), [(40, 15), (15, 60)])
@pytest.mark.parametrize("ridge", [1000.0, 0.5])
def test_it_is_the_primal_ridge_solution(samples: int, width: int, ridge: float) -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randn(samples, width, generator=g, dtype=torch.float64) * 10
    new, boxes, new_boxes = features[:7] + 3, boxes_around(samples, 1), boxes_around(7, 2)
    expected = corrected(new_boxes, primal_predictions(features, boxes, ridge, new))
    assert (expected - new_boxes).abs().max() > 1, "a regressor that does nothing must fail"
    refined = BoxRegressor(features, boxes, TARGET_XYWH, ridge).refine(new, new_boxes)
    torch.testing.assert_close(refined, expected, rtol=1e-9, atol=1e-9)

    # float32 in and out; the system itself is solved in float64.
    single = BoxRegressor(features.float(), boxes.float(), TARGET_XYWH.float(), ridge)
    torch.testing.assert_close(single.refine(new.float(), new_boxes.float()), expected.float(), rtol=1e-4, atol=1e-3)


def test_wide_features_that_are_not_negative() -> None:
    """As on a first frame, more features than samples and far from centred: exact to a thousandth of a pixel."""
    g = torch.Generator().manual_seed(0)
    boxes = boxes_around(300, 1)
    mixing = torch.randn(4, 1500, generator=g, dtype=torch.float64) * 10
    features = (offsets_of(boxes, TARGET_XYWH) @ mixing + torch.randn(300, 1500, generator=g) * 3 + 10).relu()
    expected = corrected(boxes, primal_predictions(features, boxes, 1000.0, features))
    refined = BoxRegressor(features.float(), boxes.float(), TARGET_XYWH.float(), 1000.0).refine(
        features.float(), boxes.float()
    )
    torch.testing.assert_close(refined.double(), expected, rtol=0, atol=1e-3)


def test_known_shifts_are_undone_where_features_tell_the_offset() -> None:
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(4, 50, generator=g, dtype=torch.float64) * 100
    train, held_out = boxes_around(200, 1), boxes_around(50, 2)
    regressor = BoxRegressor(offsets_of(train, TARGET_XYWH) @ mixing, train, TARGET_XYWH, ridge=1e-3)
    refined = regressor.refine(offsets_of(held_out, TARGET_XYWH) @ mixing, held_out)
    assert (held_out - TARGET_XYWH).abs().max() > 4
    torch.testing.assert_close(refined, TARGET_XYWH.expand(50, 4), rtol=0, atol=1e-3)


def test_the_corrections_do_not_depend_on_where_and_how_large_the_target_is() -> None:
    g = torch.Generator().manual_seed(0)
    boxes, features = boxes_around(60, 1), torch.randn(60, 20, generator=g, dtype=torch.float64) * 10
    refined = BoxRegressor(features, boxes, TARGET_XYWH, 10.0).refine(features, boxes)
    shift = torch.tensor([7.0, -5.0, 0.0, 0.0], dtype=torch.float64)
    moved_boxes, moved_target = boxes * 3 + shift, TARGET_XYWH * 3 + shift
    moved = BoxRegressor(features, moved_boxes, moved_target, 10.0).refine(features, moved_boxes)
    torch.testing.assert_close(moved, refined * 3 + shift, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 30])
def test_samples_that_all_need_the_same_correction_give_that_correction(samples: int) -> None:
    """Targets without variance: whitening must not divide by zero."""
    box = torch.tensor([[47.0, 43.0, 24.0, 25.0]])
    features = torch.randn(samples, 12, generator=torch.Generator().manual_seed(0)) * 10
    regressor = BoxRegressor(features, box.expand(samples, 4), TARGET_XYWH.float(), 1000.0)
    refined = regressor.refine(features[:1] * 5, box)
    torch.testing.assert_close(refined, TARGET_XYWH.float()[None], rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [1e3, 1e8, 1e15])
def test_wild_features_give_finite_boxes_of_bounded_size(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    features, boxes = torch.randn(40, 15, generator=g), boxes_around(40, 1).float()
    regressor = BoxRegressor(features, boxes, TARGET_XYWH.float(), 1.0)
    wild = regressor.refine(torch.randn(200, 15, generator=g) * scale, boxes[:1].expand(200, 4))
    assert wild.isfinite().all()
    assert (wild[:, 2:] > 0).all()
    ratio = wild[:, 2:] / boxes[0, 2:]
    assert ratio.max() <= 1000 / 16 * 1.001
    assert ratio.min() >= 16 / 1000 * 0.999


def test_no_boxes_give_no_boxes() -> None:
    regressor = BoxRegressor(torch.randn(9, 5), boxes_around(9, 0).float(), TARGET_XYWH.float(), 1.0)
    assert regressor.refine(torch.empty(0, 5), torch.empty(0, 4)).shape == (0, 4)


def test_stacked_regressors_refine_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    regressors, features, boxes = [], [], []
    for seed in range(3):
        drawn = boxes_around(40, seed)
        samples = torch.randn(40, 11, generator=generator, dtype=torch.float64)
        regressors.append(BoxRegressor(samples, drawn, TARGET_XYWH, ridge=1.0))
        features.append(torch.randn(5, 11, generator=generator, dtype=torch.float64))
        boxes.append(boxes_around(5, 10 + seed))
    together = BoxRegressor.stacked(regressors).refine(torch.stack(features), torch.stack(boxes))
    for each, regressor, of_each, its_boxes in zip(together, regressors, features, boxes, strict=True):
        torch.testing.assert_close(each, regressor.refine(of_each, its_boxes), rtol=1e-9, atol=1e-9)


FRAME_WH = 200, 100
AROUND = (65.0, 50.0)  # the centre of the boxes found


def config_of(share: float, tolerance: float) -> TrackerConfig:
    return TrackerConfig(search_size_refined=share, search_size_tolerance=tolerance, min_box_size=5.0)


def around(width: float, height: float) -> list[float]:
    return [AROUND[0] - width / 2, AROUND[1] - height / 2, width, height]


@pytest.mark.parametrize(
    ("share", "tolerance", "change"),
    [(0.0, 0.0, 0.0), (0.5, 0.0, 0.4), (1.0, 0.0, 0.8), (0.5, 0.2, 0.3), (1.0, 0.9, 0.0)],
)
def test_the_size_is_followed_by_a_share_where_scores_agree(share: float, tolerance: float, change: float) -> None:
    found = torch.tensor([around(30, 20)]).expand(4, -1)
    larger, smaller = (
        (30 * math.exp(0.6), 20 * math.exp(1.0)),
        (30 * math.exp(-0.6), 20 * math.exp(-1.0)),
    )  # 0.8 in the mean
    refined = torch.tensor([[41.0, 33.0, *larger], [9.0, 9.0, 120.0, 5.0], around(*smaller), around(*smaller)])
    asked = []

    def scores_of(pairs: Tensor) -> Tensor:
        asked.append(pairs)
        return torch.tensor([[1.0, 1.5], [1.0, 1.0], [2.0, 2.0], [2.0, 1.9]])

    boxes = search_from(found, refined, config_of(share, tolerance), FRAME_WH, scores_of)
    factors = math.exp(change), 1.0, math.exp(-change), 1.0  # the second keeps its area, the fourth scores less
    for box, factor in zip(boxes.tolist(), factors, strict=True):
        assert box == pytest.approx(around(30 * factor, 20 * factor))
    assert len(asked) == bool(share), "nothing is computed where nothing is followed"
    for pairs in asked:
        assert torch.equal(pairs[:, 0], found)
        assert pairs[0, 1].tolist() == pytest.approx(around(30 * math.exp(0.8), 20 * math.exp(0.8)))


@pytest.mark.parametrize(
    "refined", [(1e4, 1e4), (198.0, 98.0), (1.0, 1.0), (math.nan, 20.0), (math.inf, math.inf), (0.0, 0.0)]
)
def test_a_size_beyond_the_limits_is_not_followed(refined: tuple[float, float]) -> None:
    found = torch.tensor([around(60, 30)])

    def scores_of(pairs: Tensor) -> Tensor:
        assert pairs.isfinite().all(), "nothing else is looked at"
        return torch.tensor([[0.0, 1.0]])

    boxes = search_from(found, torch.tensor([around(*refined)]), config_of(1.0, 0.0), FRAME_WH, scores_of)
    assert torch.equal(boxes, found)


def test_targets_follow_together_as_alone() -> None:
    """Up to rounding: batches raise to powers otherwise than rows do. So a CPU's way takes one target at a time."""
    generator = torch.Generator().manual_seed(0)
    found = torch.rand(40, 4, generator=generator) * 20 + 20
    refined = torch.rand(40, 4, generator=generator) * 20 + 20

    def followed(found: Tensor, refined: Tensor) -> Tensor:
        config = config_of(0.5, 0.05)
        return search_from(found, refined, config, FRAME_WH, lambda pairs: torch.zeros(pairs.shape[:2]))

    together = followed(found, refined)
    for one_found, one_refined, box in zip(found.split(1), refined.split(1), together.split(1), strict=True):
        torch.testing.assert_close(followed(one_found, one_refined), box)
    assert not torch.equal(together, found)


def test_the_search_goes_on_from_the_refined_box_where_it_is_to() -> None:
    found, refined = torch.tensor([around(30, 20)]), torch.tensor([around(40, 25)])
    config = TrackerConfig(search_from_refined=True)
    assert search_from(found, refined, config, FRAME_WH, lambda pairs: pytest.fail("nothing is scored")) is refined
