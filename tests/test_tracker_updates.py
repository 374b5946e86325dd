"""When the tracker updates a target's head, and what it remembers to learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from moving_patch import SIDE, assert_updates_follow_the_rule, follow, only_target, picture, tracker_of, truth

from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.online import Lesson, Update
from fdn_triton.target_sampling import Draws


def test_long_term_updates_come_on_frames_10_and_20_only() -> None:
    tracker = tracker_of(score_threshold=-100.0)  # every frame succeeds
    first = tracker.init(picture(0), truth(0))
    assert [(update.kind, update.iterations) for update in first] == [("first", 20)]
    assert 0 < first[0].loss < 1
    results = [tracker.update(picture(i)) for i in range(1, 26)]
    updated = {number: result.updates[0] for number, result in enumerate(results, start=2) if result.updates[0]}
    assert list(updated) == [10, 20]
    assert all(update.kind == "long" for update in updated.values())
    assert_updates_follow_the_rule(results, tracker.config)


def test_short_term_updates_come_on_every_failed_frame() -> None:
    tracker = tracker_of(score_threshold=100.0)  # every frame fails
    results = follow(tracker, 6)
    assert [result.updates[0] and result.updates[0].kind for result in results] == ["short"] * 5
    assert_updates_follow_the_rule(results, tracker.config)


def test_the_loss_threshold_stops_updates_but_not_the_first_frame() -> None:
    tracker = tracker_of(score_threshold=100.0, loss_threshold=1e9)
    first = tracker.init(picture(0), truth(0))
    update = tracker.update(picture(1)).updates[0]
    assert first[0].iterations == 20
    assert update is not None
    assert update.iterations == 1
    assert tracker_of(first_loss_threshold=1e9).init(picture(0), truth(0))[0].iterations == 1
    never = tracker_of(score_threshold=100.0, loss_threshold=None, update_iterations=3)
    never.init(picture(0), truth(0))
    update = never.update(picture(1)).updates[0]
    assert update is not None
    assert update.iterations == 3


def test_an_update_trains_only_the_target_that_needs_it() -> None:
    start, gone = [truth(0, 0), truth(0, 1)], picture(1, (0,))  # the second target has gone
    tracker = tracker_of(score_threshold=-100.0)
    tracker.init(picture(0, (0, 1)), start)
    scores = tracker.update(gone).scores
    assert scores[0] != scores[1]
    better, worse = (0, 1) if scores[0] > scores[1] else (1, 0)

    tracker = tracker_of(score_threshold=float(scores.mean()))
    tracker.init(picture(0, (0, 1)), start)
    before = [weight.clone() for weight in tracker._targets._heads.weights]
    result = tracker.update(gone)
    assert (result.success[better], result.success[worse]) == (True, False)
    assert result.updates[better] is None
    assert result.updates[worse] is not None
    assert [len(tracker._targets._targets[t].positives) for t in (better, worse)] == [2, 1]
    assert [tracker._targets._targets[t].translation for t in (better, worse)] == [0.6, pytest.approx(0.66)]
    for old, new in zip(before, tracker._targets._heads.weights, strict=True):
        assert torch.equal(old[better], new[better])
        assert not torch.equal(old[worse], new[worse])


def test_success_is_remembered_within_the_limits() -> None:
    # Nothing but the numbers of samples is the real configuration's.
    tracker = tracker_of(
        score_threshold=-100.0, positive_draws=100, positives=50, negative_draws=400, negatives=200, long_memory=4,
        short_memory=2, first_positives=60, search_from_refined=False,
    )  # fmt: skip
    tracker.init(picture(0), truth(0))
    target = tracker._targets._targets[0]
    assert (len(target.positives), len(target.negatives)) == (1, 1)
    for i in range(1, 6):
        tracker.update(picture(i))
        assert len(target.positives) == min(i + 1, 4)
        assert len(target.negatives) == min(i + 1, 2)
        # The draws are many enough to fill the quota of this target, which is no small one.
        assert len(target.positives.of_last(1)) == 50
        assert len(target.negatives.of_last(1)) == 200


def test_updates_learn_from_the_frames_that_their_kind_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both from the negatives of the last frames; long-term updates from the positives of more frames."""
    tracker = tracker_of(score_threshold=-100.0, long_memory=6, short_memory=3, long_interval=8)
    tracker.init(picture(0), truth(0))
    target, taught = tracker._targets._targets[0], []

    def recorded(tuner: object, features: torch.Tensor, lessons: Sequence[Lesson], *rest: object) -> list[Any]:
        assert features is tracker._targets._pool
        taught.extend(lessons)
        return [(1, 0.0) for _ in lessons]

    monkeypatch.setattr("fdn_triton.targets.fine_tune", recorded)
    for i in range(1, 8):
        tracker.update(picture(i))
    assert len(taught) == 1
    assert torch.equal(taught[0].positives, target.positives.of_last(6))
    assert torch.equal(taught[0].negatives, target.negatives.of_last(3))
    assert len(target.positives.of_last(6)) > len(target.positives.of_last(3))
    failing = dataclasses.replace(tracker.config, score_threshold=100.0)
    tracker._targets.config = tracker._targets._host_search._config = failing
    assert tracker.update(picture(8)).updates[0] == Update("short", 1, 0.0)
    assert torch.equal(taught[1].positives, target.positives.of_last(3))
    assert torch.equal(taught[1].negatives, target.negatives.of_last(3))


def test_what_is_remembered_are_features_of_boxes_that_overlap_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = tracker_of(score_threshold=-100.0)
    tracker.init(picture(0), truth(0))
    asked: list[torch.Tensor] = []
    features, target = only_target(tracker).view.features, only_target(tracker)
    of_boxes, linear_of_boxes = features.of_boxes, features.linear_of_boxes

    def recorded(boxes_xywh: torch.Tensor) -> torch.Tensor:
        asked.append(boxes_xywh.reshape(-1, 4))
        return of_boxes(boxes_xywh)

    def recorded_linear(boxes_xywh: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        asked.append(boxes_xywh)
        return linear_of_boxes(boxes_xywh, weight, bias)

    monkeypatch.setattr(features, "of_boxes", recorded)
    monkeypatch.setattr(features, "linear_of_boxes", recorded_linear)  # that of candidates, on CPUs without bf16
    tracker.update(picture(1))
    candidates, best, sizes, collected = asked
    assert len(candidates) == 64
    assert len(best) == 5
    assert len(sizes) == 2, "the box found, and one as large as the refined one"
    assert {tuple(box) for box in best.tolist()} <= {tuple(box) for box in candidates.tolist()}
    positives = len(target.positives.of_last(1))
    around = target.box_xywh.double().numpy()[None].repeat(len(collected), axis=0)
    overlap = overlaps(collected.double().numpy(), around)
    assert (overlap[:positives] > 0.7).all()
    assert (overlap[positives:] < 0.3).all()
    memory = target.negatives
    assert torch.equal(memory.pool[memory.of_last(1)], of_boxes(collected)[positives:])


def test_a_target_mostly_outside_has_positives_that_overlap_it_well() -> None:
    tracker = tracker_of()
    tracker.init(picture(0), [-0.8 * SIDE, 40, SIDE, SIDE])
    assert len(tracker._targets._targets[0].positives.of_last(1)) > 20
    target = only_target(tracker)
    _, near, _ = Draws.of(tracker.config, [target.generator])
    _, counts = target.sampler(tracker.config).positives(target.box_xywh[None], near)
    assert counts[0] > 10


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_negatives_are_remembered_at_their_interval(interval: int) -> None:
    """Positives of every frame that is a success; the first frame has both, and counts as the first."""
    tracker = tracker_of(negatives_interval=interval, score_threshold=-100.0)
    tracker.init(picture(0), truth(0))
    target = only_target(tracker)
    for number in range(2, 9):
        tracker.update(picture(number - 1))
        assert len(target.positives) == number
        assert len(target.negatives) == 1 + number // interval - 1 // interval
