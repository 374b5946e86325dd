"""Where the tracker searches, what it makes of the best candidates, and that it finds a lost target again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from moving_patch import (
    HEIGHT,
    WIDTH,
    assert_updates_follow_the_rule,
    assert_usable,
    follow,
    only_target,
    picture,
    tracker_of,
    truth,
)
from numpy.typing import NDArray

from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.host_search import HostSearch
from fdn_triton.target import Target
from fdn_triton.target_sampling import Draws
from fdn_triton.tracker import Tracker


def searched_from(tracker: Tracker) -> NDArray[np.float64]:
    """[1, 4], pixels of the image."""
    target = only_target(tracker)
    return (target.box_xywh / target.view.scale).double().numpy()[None]


def test_it_finds_a_target_again_that_was_gone_for_some_frames() -> None:
    tracker = tracker_of(short_side=240)
    tracker.init(picture(0), truth(0))
    target = tracker._targets._targets[0]
    results, remembered, spreads = [], [], []
    for i, shown in enumerate([1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]):  # behind the absence the picture stands still
        results.append(tracker.update(picture(shown, () if 4 <= i < 6 else (0,))))
        remembered.append((len(target.positives), len(target.negatives)))
        spreads.append(target.translation)
        assert_usable(results[-1], WIDTH, HEIGHT)
    assert (np.array([result.scores[0] for result in results[4:6]]) < 0).all()
    assert [result.updates[0] and result.updates[0].kind for result in results[4:6]] == ["short"] * 2
    assert remembered[3] == remembered[4] == remembered[5], "nothing is learnt as positive"
    assert results[-1].success[0]
    assert spreads[-1] == 0.6
    assert overlaps(results[-1].boxes_xywh, np.array([truth(4)]))[0] > 0.5
    spread = 0.6
    for result, after in zip(results, spreads, strict=True):
        spread = 0.6 if result.success[0] else min(spread * 1.1, 1.5)
        assert after == pytest.approx(spread)
    assert_updates_follow_the_rule(results, tracker.config)


def test_the_search_widens_to_its_limit_while_nothing_is_found() -> None:
    tracker = tracker_of(update_iterations=1, score_threshold=100.0)
    tracker.init(picture(0), truth(0))
    plain = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for n in range(1, 13):
        result = tracker.update(plain)
        assert not result.success[0]
        assert tracker._targets._targets[0].translation == pytest.approx(min(0.6 * 1.1**n, 1.5))
        assert_usable(result, WIDTH, HEIGHT)
    assert tracker._targets._targets[0].translation == 1.5


def test_only_boxes_that_were_found_are_refined() -> None:
    for threshold, refined in ((100.0, False), (-100.0, True)):
        tracker = tracker_of(score_threshold=threshold)
        for result in follow(tracker, 4):
            assert result.success[0] == refined
        searched = searched_from(tracker)
        assert np.array_equal(searched, result.boxes_xywh) != refined
        assert len(tracker._targets._targets[0].positives) == (4 if refined else 1)


def test_the_search_can_go_on_from_the_refined_box() -> None:
    tracker = tracker_of(score_threshold=-100.0, search_from_refined=True)
    results = follow(tracker, 4)
    assert np.array_equal(searched_from(tracker), results[-1].boxes_xywh)
    unrefined = follow(tracker_of(score_threshold=-100.0), 4)
    assert np.array_equal(results[0].boxes_xywh, unrefined[0].boxes_xywh)
    assert not np.array_equal(results[1].boxes_xywh, unrefined[1].boxes_xywh)


def test_without_regression_the_result_is_the_mean_of_the_best_candidates() -> None:
    tracker = tracker_of(bbox_regression=False, top_k=3)
    result = follow(tracker, 2)[0]
    again = tracker_of(bbox_regression=False, top_k=3)
    again.init(picture(0), truth(0))
    candidates: list[torch.Tensor] = []
    draw = again._targets._host_search._candidates

    def recorded(targets: Sequence[Target], draws: Draws) -> torch.Tensor:
        candidates.append(draw(targets, draws))
        return candidates[0]

    again._targets._host_search._candidates = recorded  # type: ignore[method-assign]
    head = [
        (w[0].clone(), b[0].clone())
        for w, b in zip(again._targets._heads.weights, again._targets._heads.biases, strict=True)
    ]
    again.update(picture(1))
    view = only_target(again).view
    x = view.features.of_boxes(candidates[0][0])
    for i, (weight, bias) in enumerate(head):
        x = x @ weight.T + bias
        x = x.relu() if i + 1 < len(head) else x
    scores, best = x[:, 1].sort(descending=True)
    # The mean of scores of either sign may be small: they themselves are about 0.01, rounded at 1e-9.
    assert result.scores[0] == pytest.approx(scores[:3].mean().item(), rel=1e-4, abs=1e-6)
    expected = candidates[0][0][best[:3]].mean(dim=0) / view.scale
    np.testing.assert_allclose(result.boxes_xywh[0], expected.numpy(), rtol=1e-5)


def test_candidates_are_scored_as_their_features_are() -> None:
    """In fp32 the first layer may be applied to the cells before the RoI layer takes its samples."""
    tracker = tracker_of(short_side=240)
    tracker.init(picture(0), truth(0))
    tracker.update(picture(1))
    targets, target = tracker._targets, only_target(tracker)
    search = HostSearch(tracker.config, torch.float32, rough=False)
    candidates = target.box_xywh + 3 * torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    head = targets._heads[:1]
    expected = head.scores(target.view.features.of_boxes(candidates[None]))
    torch.testing.assert_close(search._scores(target, head, candidates), expected, rtol=1e-4, atol=1e-4)
