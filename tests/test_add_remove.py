"""Targets that come and go in the middle of a video: the others are tracked as without them, to the last bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recorded_graphs import recorded_graphs
from small_otb import quick_config

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.errors import InputError
from fdn_triton.frame import network_input
from fdn_triton.frame_features import Features
from fdn_triton.ground_truth import read_otb_boxes
from fdn_triton.heads import Heads
from fdn_triton.tracker import Tracker, TrackResult
from fdn_triton.weights import NetworkWeights, untrained_weights

Image = NDArray[np.uint8]
Boxes = NDArray[np.float64]

OWL = read_otb_boxes(clip_path() / "groundtruth_rect.txt")
OTHER = np.array([60.0, 40.0, 50.0, 40.0])


class WholeFrame(Features):
    """The features of the whole frame: one target's do not depend on the window that another one asks for."""

    def __init__(self, backbone: Backbone, frame_hw: tuple[int, int], mean: torch.Tensor) -> None:
        self.frame_hw = frame_hw
        self._mean = mean
        self._backbone = backbone
        self._features = torch.empty(0)

    def begin(self, image: torch.Tensor) -> None:
        self._features = self._backbone(network_input(image, self.frame_hw, self._mean))

    def require(self, boxes_xywh: torch.Tensor) -> None:
        pass

    def of_boxes(self, boxes_xywh: torch.Tensor) -> torch.Tensor:
        return self._backbone.roi_features(self._features, boxes_xywh)


@cache
def weights() -> NetworkWeights:
    return untrained_weights(NetworkConfig())


@cache
def image(number: int) -> Image:
    found = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
    assert found is not None
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB).astype(np.uint8)


def config_of(**changes: Any) -> TrackerConfig:
    """Frames keep their size: else it follows all targets, and a track depends on the others by it."""
    return replace(quick_config(), **{"resize_step": None, **changes})


def tracker_of(config: TrackerConfig | None = None) -> Tracker:
    return Tracker(config or config_of(), weights=weights(), device="cpu", features=WholeFrame)


def track_of(results: Sequence[TrackResult], target: int) -> list[Any]:
    """All that is told of the target with this id, frame by frame."""
    rows = [(result, result.ids.index(target)) for result in results if target in result.ids]
    return [(*result.boxes_xywh[i], result.scores[i], result.success[i], result.updates[i]) for result, i in rows]


def follow(tracker: Tracker, first: int, last: int) -> list[TrackResult]:
    return [tracker.update(image(number)) for number in range(first, last + 1)]


def alone(box_xywh: Boxes, first: int, last: int) -> list[Any]:
    tracker = tracker_of()
    tracker.init(image(first), box_xywh)
    return track_of(follow(tracker, first + 1, last), 0)


def test_a_target_that_is_added_changes_no_other_and_is_tracked_as_from_its_first_frame() -> None:
    tracker = tracker_of()
    tracker.init(image(1), OWL[0])
    results = follow(tracker, 2, 4)
    assert tracker.add(image(4), OTHER) == (1,)
    results += follow(tracker, 5, 9)
    assert [result.ids for result in results] == [(0,)] * 3 + [(0, 1)] * 5
    assert track_of(results, 0) == alone(OWL[0], 1, 9)
    assert track_of(results, 1) == alone(OTHER, 4, 9)
    assert [update and update.kind for *_, update in track_of(results, 1)][1] is not None, "counts its own frames"


@pytest.mark.parametrize(
    ("growth", "enlarged"),
    [((1.15, 1.0), 1.0), ((1.25, 1.0), 1 / 1.1), ((1.0, 0.8), 1.1), ((1.5, 0.7), 1.0), ((1.5, 1.3), 1.1**-3)],
)
def test_frames_are_sized_by_the_mean_growth_of_all(growth: tuple[float, float], enlarged: float) -> None:
    tracker = tracker_of(config_of(resize_step=1.1, short_side=200))
    tracker.init(image(1), [OWL[0], OTHER])
    view, targets = tracker._view, tracker._targets._targets
    assert view is not None
    width, boxes = view.frame_wh[0], torch.stack([target.box_xywh for target in targets])
    for target, factor in zip(targets, growth, strict=True):
        target.growth *= factor
    tracker._targets.begin(view, torch.from_numpy(image(2)))
    assert view.frame_wh[0] == pytest.approx(width * enlarged, abs=1)
    assert torch.stack([target.box_xywh for target in targets]).numpy() == pytest.approx(
        boxes.numpy() * enlarged, rel=0.01
    )
    assert [target.growth for target in targets] == pytest.approx([factor * enlarged for factor in growth], rel=0.01)


def test_several_are_added_at_once_from_a_frame_that_was_not_tracked() -> None:
    tracker = tracker_of()
    tracker.init(image(1), [OWL[0], OTHER])
    results = follow(tracker, 2, 3)
    assert tracker.add(image(7), [OWL[6], OTHER + 20]) == (2, 3)
    results += follow(tracker, 8, 10)
    without = tracker_of()
    without.init(image(1), [OWL[0], OTHER])
    expected = follow(without, 2, 3) + follow(without, 8, 10)
    for target in (0, 1):
        assert track_of(results, target) == track_of(expected, target)
    assert track_of(results, 2) == alone(OWL[6], 7, 10)
    assert track_of(results, 3) == alone(OTHER + 20, 7, 10)


@pytest.mark.parametrize("target_size", [None, 12.0])
def test_adding_to_an_empty_tracker_is_init(target_size: float | None) -> None:
    config = config_of(target_size=target_size)
    fresh, emptied, begun = (tracker_of(config) for _ in range(3))
    begun.init(image(3), OWL[2])
    expected = track_of(follow(begun, 4, 8), 0)
    assert fresh.add(image(3), OWL[2]) == (0,)
    assert track_of(follow(fresh, 4, 8), 0) == expected
    emptied.init(image(1), OTHER / 2)
    emptied.begin_update(image(2))
    emptied.remove(0)
    assert emptied.add(image(3), OWL[2]) == (1,)
    assert track_of(follow(emptied, 4, 8), 1) == expected
    emptied.init(image(3), OWL[2])
    assert track_of(follow(emptied, 4, 8), 0) == expected


def test_a_target_that_is_removed_changes_no_other() -> None:
    tracker = tracker_of()
    tracker.init(image(1), [OTHER, OWL[0], OTHER + 20])
    results = follow(tracker, 2, 4)
    tracker.remove(0)
    results += follow(tracker, 5, 7)
    tracker.remove(2)
    results += follow(tracker, 8, 9)
    assert [result.ids for result in results] == [(0, 1, 2)] * 3 + [(1, 2)] * 3 + [(1,)] * 2
    assert track_of(results, 1) == alone(OWL[0], 1, 9)
    assert track_of(results, 2) == alone(OTHER + 20, 1, 7)


def test_memory_is_used_again_and_given_back_with_the_last_target() -> None:
    tracker = tracker_of()
    tracker.init(image(1), [OWL[0], OTHER])
    targets, pool = tracker._targets, tracker._targets._pool
    tracker.remove(0)
    tracker.add(image(1), OTHER + 20)
    assert targets._pool is pool
    assert [target.slot for target in targets._targets] == [1, 0]
    tracker.add(image(1), OTHER - 20)
    assert len(targets._pool) == 3 * len(pool) // 2
    assert [target.slot for target in targets._targets] == [1, 0, 2]
    for target_id in (1, 2, 3):
        tracker.remove(target_id)
    assert targets._pool.untyped_storage().nbytes() == 0
    tracker.add(image(1), OWL[0])
    assert len(targets._pool) == len(pool) // 2


def test_what_is_remembered_moves_with_a_growing_pool() -> None:
    tracker = tracker_of()
    tracker.init(image(1), [OTHER, OWL[0]])
    tracker.update(image(2))
    tracker.remove(0)
    memory = tracker._targets._targets[0].negatives
    before = memory.pool[memory.of_last(9)].clone()
    tracker.add(image(2), [OTHER, OTHER + 20])
    assert memory.pool is tracker._targets._pool
    assert torch.equal(memory.pool[memory.of_last(9)], before)


def test_heads_trained_together_come_and_go() -> None:
    """What a GPU does, but for the device: the graphs that are captured serve until the pool grows."""

    def run(together: bool) -> list[TrackResult]:
        tracker = tracker_of()
        tracker._targets._together = together
        tracker.init(image(1), [OWL[0], OTHER])
        results = follow(tracker, 2, 4)
        tracker.remove(0)
        results += follow(tracker, 5, 5)
        tracker.add(image(5), OWL[4])
        results += follow(tracker, 6, 7)
        tracker.add(image(7), OTHER + 20)
        return results + follow(tracker, 8, 9)

    with recorded_graphs() as graphs:
        together = run(together=True)
    assert sum(graph.replays for graph in graphs) > 0
    for one, other in zip(run(together=False), together, strict=True):
        assert one.ids == other.ids
        np.testing.assert_allclose(one.scores, other.scores, rtol=0.01, atol=0.01)
        np.testing.assert_allclose(one.boxes_xywh, other.boxes_xywh, atol=0.1)
        assert [u and u.kind for u in one.updates] == [u and u.kind for u in other.updates]


def test_targets_that_are_searched_together_are_followed_as_each_alone() -> None:
    """What a GPU does, but for the device: up to the rounding of batched products."""

    def run(boxes_xywh: Sequence[Boxes]) -> list[TrackResult]:
        tracker = tracker_of()
        tracker._targets._together = True
        tracker.init(image(1), boxes_xywh)
        return follow(tracker, 2, 8)

    with recorded_graphs():
        both = run([OWL[0], OTHER])
        apart = [run([OWL[0]]), run([OTHER])]
    for target, results in enumerate(apart):
        for one, together in zip(results, both, strict=True):
            np.testing.assert_allclose(together.boxes_xywh[target], one.boxes_xywh[0], atol=0.1)
            np.testing.assert_allclose(together.scores[target], one.scores[0], rtol=0.01, atol=0.01)
    assert any(update for result in both for update in result.updates)


def test_an_added_frame_of_another_size_rescales_the_video() -> None:
    def small(number: int) -> Image:
        return cv2.resize(image(number), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8)

    tracker, without = tracker_of(), tracker_of()
    for it in (tracker, without):
        it.init(image(1), OWL[0])
    tracker.add(small(1), OTHER / 2)
    added, plain = tracker.update(small(2)), without.update(small(2))
    assert added.ids == (0, 1)
    assert np.array_equal(added.boxes_xywh[:1], plain.boxes_xywh)
    center = added.boxes_xywh[:, :2] + added.boxes_xywh[:, 2:] / 2
    assert np.abs(center[1] - (OTHER / 2)[:2] - (OTHER / 4)[2:]).max() < 20


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda it: it.add(image(2), (0, 0, 0, 5)), "box 0,0,0,5 has no area: give a positive width and height"),
        (lambda it: it.add(image(2), [OTHER, (9999, 2, 30, 40)]), "box 9999,2,30,40 lies outside the frame"),
        (lambda it: it.add(image(2), []), "give one x, y, w, h or several as [T, 4]"),
        (lambda it: it.add(image(2).astype(float), OTHER), "image is of type float64"),
        (lambda it: it.remove(2), "there is no target 2: the tracker's are 0, 1"),
        (lambda it: it.remove(-1), "there is no target -1: the tracker's are 0, 1"),
    ],
)
def test_what_is_refused_changes_nothing(refused: Callable[[Tracker], object], message: str) -> None:
    tracker, expected = tracker_of(), tracker_of()
    for it in (tracker, expected):
        it.init(image(1), [OWL[0], OTHER])
    with pytest.raises(InputError, match=re.escape(message)):
        refused(tracker)
    for one, other in zip(follow(tracker, 2, 4), follow(expected, 2, 4), strict=True):
        assert np.array_equal(one.boxes_xywh, other.boxes_xywh)
        assert one.ids == other.ids
    assert tracker.add(image(4), OTHER) == (2,), "no id is lost"


def test_a_tracker_without_targets_says_what_to_call() -> None:
    tracker = tracker_of()
    with pytest.raises(InputError, match="there is no target 0: the tracker's are none"):
        tracker.remove(0)
    tracker.init(image(1), OWL[0])
    tracker.remove(0)
    with pytest.raises(InputError, match=r"the tracker has no target: call init\(image, boxes_xywh\) or add"):
        tracker.update(image(2))
    with pytest.raises(InputError, match="there is no target 0: the tracker's are none"):
        tracker.remove(0)


def test_removing_inside_of_inference_mode_leaves_heads_that_learn() -> None:
    with torch.inference_mode():
        tracker = tracker_of(config_of(score_threshold=100.0))  # every frame fails: every head is updated
        tracker.init(image(1), np.stack((OWL[0], OTHER)))
        tracker.remove(0)
        assert tracker.update(image(2)).updates[0] is not None


def test_the_frame_fits_a_target_that_comes_after_the_last_one() -> None:
    config = config_of(target_size=16.0)
    once, fresh = tracker_of(config), tracker_of(config)
    once.init(image(1), [10.0, 10.0, 200.0, 200.0])
    once.remove(0)
    assert once.add(image(1), OWL[0]) == (1,)
    fresh.init(image(1), OWL[0])
    assert np.array_equal(once.update(image(2)).boxes_xywh, fresh.update(image(2)).boxes_xywh)


def test_the_second_half_of_an_update_wants_the_first() -> None:
    tracker = tracker_of()
    with pytest.raises(InputError, match="begin_update"):
        tracker.finish_update()
    tracker.init(image(1), OWL[0])
    with pytest.raises(InputError, match="begin_update"):
        tracker.finish_update()
    tracker.begin_update(image(2))
    tracker.remove(0)
    with pytest.raises(InputError, match="begin_update"):
        tracker.finish_update()


def test_a_target_that_could_not_be_added_leaves_the_others_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool has grown by then: what searches for the others writes to the new one."""
    tracker, untouched = (tracker_of(config_of(score_threshold=-100.0)) for _ in range(2))

    def fails(*arguments: object) -> None:
        raise MemoryError

    with recorded_graphs():
        for each in (tracker, untouched):
            each._targets._together = True
            each.init(image(1), OWL[0])
            each.update(image(2))
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(Heads, "for_targets", fails)
            tracker.add(image(2), OTHER)
        tracker.remove(1)
        tracker.update(image(3))
        untouched.update(image(3))
    (target,), (expected,) = tracker._targets._targets, untouched._targets._targets
    for memory, other in ((target.positives, expected.positives), (target.negatives, expected.negatives)):
        assert memory.pool is tracker._targets._pool
        assert torch.equal(memory.pool[memory.of_last(99)], other.pool[other.of_last(99)])
