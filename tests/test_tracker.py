"""The tracker's behaviour: it follows, recovers, repeats bit for bit, and takes what users give it.

The network is untrained here: its features tell a textured patch from a smooth background, which is enough to see
that every part does its work. Small numbers of samples keep the tests quick.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recorded_graphs import recorded_graphs

from fdn_triton import timing
from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.device import choose_device
from fdn_triton.errors import InputError
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.ground_truth import read_otb_boxes
from fdn_triton.online import Lesson, Update
from fdn_triton.target import Target
from fdn_triton.timing import StageClock
from fdn_triton.tracker import Tracker, TrackResult
from fdn_triton.weights import NetworkWeights, untrained_weights

Image = NDArray[np.uint8]

SMALL: dict[str, Any] = {
    "short_side": 120,
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


def searched_from(tracker: Tracker) -> NDArray[np.float64]:
    """[1, 4], pixels of the image."""
    target = only_target(tracker)
    return (target.box_xywh / target.view.scale).double().numpy()[None]


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


# Following


@pytest.fixture(scope="module")
def followed() -> list[TrackResult]:
    return follow(tracker_of(), 26)


def test_it_follows_the_owl_of_the_demo_clip() -> None:
    """The clip's first frames, as files hold them; beyond them the owl turns faster than untrained features allow."""
    images = sorted((clip_path() / "img").glob("*.jpg"))[:9]
    boxes = read_otb_boxes(clip_path() / "groundtruth_rect.txt")
    tracker = tracker_of(short_side=300)
    tracker.init(read_rgb(images[0]), boxes[0])
    overlap = overlaps(boxes_of([tracker.update(read_rgb(image)) for image in images[1:]]), boxes[1:9])
    assert overlap.mean() > 0.5


def read_rgb(path: Any) -> Image:
    image = cv2.imread(str(path))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)


def test_it_follows_a_patch(followed: list[TrackResult]) -> None:
    overlap = overlaps(boxes_of(followed), truths(26))
    assert overlap.mean() > 0.65
    assert overlap.min() > 0.4


def test_results_are_plain_numbers_of_the_stated_types(followed: list[TrackResult]) -> None:
    for result in followed:
        assert (result.boxes_xywh.dtype, result.boxes_xywh.shape) == (np.float64, (1, 4))
        assert (result.scores.dtype, result.scores.shape) == (np.float64, (1,))
        assert (result.success.dtype, result.success.shape) == (np.bool_, (1,))
        assert len(result.updates) == 1
        assert result.ids == (0,)
        assert (result.success == (result.scores > 0)).all()


def test_equal_seeds_repeat_bit_for_bit_and_others_do_not(followed: list[TrackResult]) -> None:
    again, other = follow(tracker_of(), 11), follow(tracker_of(seed=1), 6)
    assert np.array_equal(boxes_of(again), boxes_of(followed[:10]))
    assert [result.scores.tolist() for result in again] == [result.scores.tolist() for result in followed[:10]]
    assert [result.updates for result in again] == [result.updates for result in followed[:10]]
    assert not (boxes_of(other) == boxes_of(again[:5])).any()
    assert overlaps(boxes_of(other), truths(6)).mean() > 0.6


def test_two_targets_are_tracked_as_each_alone() -> None:
    """Batched matrix products round differently, and one changed choice among the candidates then changes the draws
    that follow: the tracks are nearly the same."""
    frames, both = 9, (0, 1)
    images = [picture(i, both) for i in range(frames)]
    together = tracker_of()
    firsts = together.init(images[0], [truth(0, 0), truth(0, 1)])
    results = [together.update(image) for image in images[1:]]
    for target in both:
        alone = tracker_of()
        assert alone.init(images[0], truth(0, target))[0].loss == pytest.approx(firsts[target].loss, rel=1e-3)
        singles = [alone.update(image) for image in images[1:]]
        overlap = overlaps(boxes_of(results, target), boxes_of(singles))
        assert (overlap > 0.9).mean() > 0.75
        assert overlap.min() > 0.6
        accuracy = [
            overlaps(boxes_of(track, t), truths(frames, target)).mean()
            for track, t in ((results, target), (singles, 0))
        ]
        assert accuracy[0] > max(0.4, accuracy[1] - 0.1)


def test_heads_trained_together_are_those_trained_one_by_one() -> None:
    """What a GPU does, but for the device: the same up to rounding, to the first long-term update of the clip."""
    images = [read_rgb(image) for image in sorted((clip_path() / "img").glob("*.jpg"))[:11]]
    owl = read_otb_boxes(clip_path() / "groundtruth_rect.txt")[0]

    def followed_by(tracker: Tracker) -> tuple[list[NDArray[np.float64]], list[list[tuple[str, int]]]]:
        tracker.init(images[0], [owl, owl + (25, 10, -5, 5)])
        results = [tracker.update(image) for image in images[1:]]
        updates = [[(u.kind, u.iterations) for u in result.updates if u] for result in results]
        return [boxes_of(results, t) for t in (0, 1)], updates

    boxes, updates = followed_by(tracker_of(short_side=300))
    tracker = tracker_of(short_side=300)
    tracker._targets._together = True
    with recorded_graphs() as graphs:
        together, together_updates = followed_by(tracker)
    for a, b in zip(boxes, together, strict=True):
        assert overlaps(a, b).min() > 0.99
    assert together_updates == updates
    assert any(len(frame) == 2 for frame in updates), "some frame must train both"
    # The heads of a frame iterate together, until the last one stops.
    replays = sum(max(iterations for _, iterations in frame) for frame in updates if frame)
    assert sum(graph.replays for graph in graphs) == replays > 0


# Updates and memory


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
    of_boxes = features.of_boxes

    def recorded(boxes_xywh: torch.Tensor) -> torch.Tensor:
        asked.append(boxes_xywh)
        return of_boxes(boxes_xywh)

    monkeypatch.setattr(features, "of_boxes", recorded)
    tracker.update(picture(1))
    candidates, best, collected = asked
    assert candidates.shape[1] == 64
    assert best.shape[1] == 5
    assert {tuple(box) for box in best[0].tolist()} <= {tuple(box) for box in candidates[0].tolist()}
    positives = len(target.positives.of_last(1))
    around = target.box_xywh.double().numpy()[None].repeat(len(collected), axis=0)
    overlap = overlaps(collected.double().numpy(), around)
    assert (overlap[:positives] > 0.7).all()
    assert (overlap[positives:] < 0.3).all()
    memory = target.negatives
    assert torch.equal(memory.pool[memory.of_last(1)], of_boxes(collected)[positives:])


# Loss and recovery


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

    def recorded(targets: Sequence[Target]) -> torch.Tensor:
        candidates.append(draw(targets))
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
    assert result.scores[0] == pytest.approx(scores[:3].mean().item(), rel=1e-4)
    expected = candidates[0][0][best[:3]].mean(dim=0) / view.scale
    np.testing.assert_allclose(result.boxes_xywh[0], expected.numpy(), rtol=1e-5)


# Frames and boxes


@pytest.mark.parametrize("factor", [(1.5, 1.5), (0.75, 0.75), (1.5, 1.0)])
def test_a_video_that_changes_its_size_is_followed_on(factor: tuple[float, float]) -> None:
    tracker = tracker_of()
    tracker.init(picture(0), truth(0))
    for i in range(1, 4):
        tracker.update(picture(i))
    scale = np.array(factor * 2)
    results = []
    for i in range(4, 9):
        resized = cv2.resize(picture(i), None, fx=factor[0], fy=factor[1], interpolation=cv2.INTER_AREA)
        results.append(tracker.update(resized.astype(np.uint8)))
    overlap = overlaps(boxes_of(results), truths(9)[3:] * scale)
    assert overlap.mean() > 0.5
    assert overlaps(boxes_of(results), truths(9)[3:]).mean() < 0.4 * overlap.mean(), "the boxes scale, too"


def test_images_of_any_memory_layout_and_kind_give_the_same() -> None:
    expected = boxes_of(follow(tracker_of(), 3))
    for convert in (
        lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        np.asfortranarray,
        lambda image: torch.from_numpy(image.copy()),
        lambda image: torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous().permute(1, 2, 0),
    ):
        tracker = tracker_of()
        tracker.init(convert(picture(0)), truth(0))
        found = [tracker.update(convert(picture(i))) for i in (1, 2)]
        np.testing.assert_array_equal(boxes_of(found), expected)


@pytest.mark.parametrize("short_side", [120, 90, 200])
def test_images_are_not_changed(short_side: int) -> None:
    """Also at the network's own size, where a resize has nothing to do."""
    tracker = tracker_of(short_side=short_side, first_iterations=1)
    image, tensor = picture(0).copy(), torch.from_numpy(picture(1).copy())
    tracker.init(image, truth(0))
    tracker.update(tensor)
    assert np.array_equal(image, picture(0))
    assert np.array_equal(tensor.numpy(), picture(1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((50, 60), np.uint8), "image has the shape (50, 60): give height x width x 3 in RGB order"),
        (np.zeros((50, 60, 4), np.uint8), "image has the shape (50, 60, 4): give height x width x 3"),
        (np.zeros((3, 50, 60), np.uint8), "image has the shape (3, 50, 60): give height x width x 3"),
        (np.zeros((0, 60, 3), np.uint8), "image has the shape (0, 60, 3): it is empty"),
        (np.zeros((50, 60, 3), np.float32), "image is of type float32: give uint8 RGB values from 0 to 255"),
        (torch.zeros(50, 60, 3), "image is of type float32: give uint8 RGB values from 0 to 255"),
        ([[[0, 0, 0]]], "image is of type list: give uint8 RGB values from 0 to 255"),
        (None, "image is of type NoneType: give uint8 RGB values from 0 to 255"),
    ],
)
def test_images_that_cannot_be_used(image: Any, message: str) -> None:
    tracker = tracker_of(first_iterations=1)
    with pytest.raises(InputError, match=re.escape(message)):
        tracker.init(image, truth(0))
    tracker.init(picture(0), truth(0))
    with pytest.raises(InputError, match=re.escape(message)):
        tracker.update(image)
    assert_usable(tracker.update(picture(1)), WIDTH, HEIGHT)


def test_a_refused_frame_changes_nothing() -> None:
    expected = boxes_of(follow(tracker_of(), 4))
    tracker = tracker_of()
    tracker.init(picture(0), truth(0))
    found = []
    for i in range(1, 4):
        with pytest.raises(InputError):
            tracker.update(np.zeros((5, 5), np.uint8))
        with pytest.raises(InputError):
            tracker.init(picture(0), (0, 0, 0, 0))
        found.append(tracker.update(picture(i)))
    assert np.array_equal(boxes_of(found), expected)


def test_update_before_init() -> None:
    with pytest.raises(InputError, match=r"no target: call init\(image, boxes_xywh\) or add"):
        tracker_of().update(picture(0))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ((10, 10, float("nan"), 5), "box 10,10,nan,5 is not finite or far too large: give x, y, w, h in pixels"),
        ((10, float("inf"), 5, 5), "box 10,inf,5,5 is not finite"),
        ((10, 10, 0, 5), "box 10,10,0,5 has no area: give a positive width and height"),
        ((10, 10, 5, -2.5), "box 10,10,5,-2.5 has no area"),
        ((160, 10, 5, 5), "box 160,10,5,5 lies outside the frame of 160x120 pixels: give one that overlaps it"),
        ((10, 120, 5, 5), "box 10,120,5,5 lies outside the frame of 160x120"),
        ((-5, 10, 5, 5), "box -5,10,5,5 lies outside the frame"),
        ([(1, 2, 30, 40), (300, 2, 30, 40)], "box 300,2,30,40 lies outside the frame"),
        ((1, 2, 3), "boxes have the shape (1, 3): give one x, y, w, h or several as [T, 4]"),
        (np.ones((2, 2, 4)), "boxes have the shape (2, 2, 4)"),
        ([], "give one x, y, w, h or several as [T, 4]"),
        (np.empty((0, 4)), "boxes have the shape (0, 4)"),
        ("a box", "boxes must be numbers: give x, y, w, h in pixels"),
        ([(1, 2, 3, 4), (1, 2)], "boxes must be numbers"),
        (None, "give"),
    ],
)
def test_boxes_that_cannot_be_used(boxes: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        tracker_of().init(picture(0), boxes)


@pytest.mark.parametrize(
    "box",
    [
        (-15, -10, 30, 25),  # partly outside
        (150, 100, 40, 40),
        (-30, -20, 220, 170),  # larger than the frame
        (0, 0, WIDTH, HEIGHT),  # the frame
        (60, 60, 3, 3),  # tiny
        (60.4, 30.2, 0.5, 0.5),  # less than a pixel
        (10, 60, 140, 2),  # a line
    ],
)
def test_boxes_of_any_place_and_size_can_be_tracked(box: tuple[float, ...]) -> None:
    tracker = tracker_of(score_threshold=-100.0, long_interval=3)
    assert math.isfinite(tracker.init(picture(0), box)[0].loss)
    for i in range(1, 5):
        result = tracker.update(picture(i))
        assert_usable(result, WIDTH, HEIGHT)
        ratio = result.boxes_xywh[0, 2:] / box[2:]
        assert (ratio > 0.4).all(), "no jump in size"
        assert (ratio < 2.5).all(), "no jump in size"


@pytest.mark.parametrize("short_side", [32, 120])
def test_a_tiny_frame(short_side: int) -> None:
    images = [cv2.resize(picture(i), (40, 32), interpolation=cv2.INTER_AREA).astype(np.uint8) for i in range(6)]
    scale = np.array((40 / WIDTH, 32 / HEIGHT) * 2)
    tracker = tracker_of(short_side=short_side)
    tracker.init(images[0], np.array(truth(0)) * scale)
    results = [tracker.update(image) for image in images[1:]]
    for result in results:
        assert_usable(result, 40, 32)
    if short_side == 120:
        assert overlaps(boxes_of(results), truths(6) * scale).mean() > 0.3


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (300, 2)])
def test_frames_of_extreme_shape_do_not_fail(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    tracker = tracker_of(max_side=200, first_iterations=2, update_iterations=2)
    tracker.init(image, (0, 0, 1, 1))
    for _ in range(3):
        result = tracker.update(image)
        assert np.isfinite(result.boxes_xywh).all()
        assert np.isfinite(result.scores).all()


# Variants


@pytest.mark.parametrize(
    "changes",
    [
        {"roi_layer": "pool"},
        {"sampling_ratio": 1},
        {"sampling_ratio": 3},
        {"conv_layers": 5},
        {"fc_layers": 2},
        {"roi_grid": "interior"},
        {"top_k": 1},
        {"preset": "release"},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items()),
)
def test_variants_follow_for_some_frames(changes: dict[str, Any], followed: list[TrackResult]) -> None:
    results = follow(tracker_of(**changes), 7)
    assert overlaps(boxes_of(results), truths(7)).mean() > 0.4
    assert not np.array_equal(boxes_of(results), boxes_of(followed[:6])), "the variant computes something else"


def test_the_release_draws_whole_pixels() -> None:
    tracker = tracker_of("release", short_side=180)  # 1.5 times the image, whose pixels count
    for result in follow(tracker, 4):
        np.testing.assert_allclose(result.boxes_xywh, result.boxes_xywh.round(), atol=1e-4)
    drawn = tracker._targets._host_search._candidates(tracker._targets._targets).numpy() / 1.5
    np.testing.assert_allclose(drawn, drawn.round(), atol=1e-4)
    floats = tracker_of("paper", short_side=180)
    assert (np.abs(follow(floats, 2)[0].boxes_xywh % 1 - 0.5) < 0.49).any()


def test_auto_takes_the_grid_that_the_weights_were_trained_with() -> None:
    trained = dataclasses.replace(weights(), roi_grid="interior")
    config = TrackerConfig.from_preset("paper", **SMALL)
    auto = Tracker(config, weights=trained, device="cpu")
    assert auto.config.network.roi_grid == "interior"
    assert tracker_of().config.network.roi_grid == "midpoint"
    assert np.array_equal(boxes_of(follow(auto, 3)), boxes_of(follow(tracker_of(roi_grid="interior"), 3)))


# Nothing outside the tracker matters, and it changes nothing outside


def test_random_states_of_torch_and_numpy_are_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    first = boxes_of(follow(tracker_of(), 3))
    torch.manual_seed(1)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    second = boxes_of(follow(tracker_of(), 3))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy[1])  # noqa: NPY002


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_results_do_not_depend_on_the_gradient_mode(mode: Any, followed: list[TrackResult]) -> None:
    tracker = tracker_of()
    with mode():
        results = follow(tracker, 4)
    assert np.array_equal(boxes_of(results), boxes_of(followed[:3]))
    parameters = [*tracker._targets._heads.weights, *tracker._targets._heads.biases, only_target(tracker).box_xywh]
    assert not any(parameter.requires_grad for parameter in parameters)
    assert torch.is_grad_enabled()


def test_init_again_forgets_everything(followed: list[TrackResult]) -> None:
    tracker = tracker_of()
    image = cv2.resize(picture(3, (1,)), (200, 120)).astype(np.uint8)
    tracker.init(image, [truth(3, 1), (50, 50, 20, 30)])
    for _ in range(2):
        tracker.update(np.zeros_like(image))
    assert np.array_equal(boxes_of(follow(tracker, 6)), boxes_of(followed[:5]))


# Clock and device


class Passed:
    """A CUDA event at a given millisecond, that the device passes when it is waited for."""

    def __init__(self, **options: object) -> None:
        self.passed, self.waits = False, 0

    def record(self, stream: object) -> None:
        self.at = float(next(Passed.times))

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.passed = True
        self.waits += 1

    def elapsed_time(self, end: Passed) -> float:
        return end.at - self.at

    times: Iterator[int]


def test_the_clock_of_a_gpu_waits_only_where_it_is_to(monkeypatch: pytest.MonkeyPatch) -> None:
    Passed.times = iter([0, 2000, 2000, 5000])
    monkeypatch.setattr(torch.cuda, "Event", Passed)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = StageClock(torch.device("cuda"))
    for name in ("a", "b"):
        with clock.stage(name):
            pass
    assert clock.lap(wait=False) == {}
    first, second = clock._events[0][3], clock._events[1][3]
    first.passed = True
    assert clock.lap(wait=False) == {"a": 2.0} and second.waits == 0
    assert clock.lap() == {"b": 3.0} and second.waits == 1


def test_the_clock_adds_up_the_stages_and_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 10.0, 12.0, 20.0, 24.0, 30.0, 38.0])
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: next(now)))
    clock = StageClock(torch.device("cpu"))
    assert clock.lap() == {}
    for name in ("a", "b", "a"):
        with clock.stage(name):
            pass
    assert clock.lap() == {"a": 5.0, "b": 2.0}
    assert clock.lap() == {}
    with clock.stage("b"):
        pass
    assert clock.lap() == {"b": 8.0}


def test_the_tracker_times_its_stages() -> None:
    tracker = tracker_of()
    tracker.init(picture(0), truth(0))
    assert set(tracker.clock.lap()) == {"features", "collect", "update"}
    tracker.update(picture(1))
    seconds = tracker.clock.lap()
    assert set(seconds) == {"features", "score", "collect", "update"}
    assert min(seconds.values()) >= 0
    assert tracker.clock.lap() == {}


def test_choosing_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match=r"^unknown device 'meta'"):
        choose_device(torch.device("meta"))
    for name in ("tpu", "", "mps", "cuda:x", "gpu 0"):
        with pytest.raises(InputError, match=f"^unknown device '{name}': choose auto, cpu, cuda or cuda:N$"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:99"):
        with pytest.raises(InputError, match=f"device '{name}' asked for, but torch .* sees no GPU: use --device cpu"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"^device 'cuda:99' asked for, but the last GPU is cuda:1$"):
        choose_device("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree() -> None:
    """The generators of the two devices draw different numbers: the tracks agree as those of two seeds do (0.92 on a
    CPU over these frames)."""
    config = TrackerConfig.from_preset("paper", **{**SMALL, "short_side": 240})
    on_cpu, on_gpu = (follow(Tracker(config, weights=weights(), device=device), 16) for device in ("cpu", "cuda"))
    assert overlaps(boxes_of(on_gpu), truths(16)).mean() > 0.85
    assert overlaps(boxes_of(on_cpu), boxes_of(on_gpu)).mean() > 0.88


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_repeats_bit_for_bit() -> None:
    config = TrackerConfig.from_preset("paper", **SMALL)
    first, second = (boxes_of(follow(Tracker(config, weights=weights(), device="cuda"), 8)) for _ in range(2))
    assert np.array_equal(first, second)


# Weights


def test_default_weights_are_the_shipped_ones() -> None:
    tracker = Tracker(TrackerConfig.from_preset("paper", **SMALL), device="cpu")
    assert tracker.weights.name == "fdn" and "fc5.weight" in tracker.weights.tensors


def test_loaded_weights_must_be_of_the_network() -> None:
    with pytest.raises(InputError, match=r"unexpected 'conv4\.bias'"):
        Tracker(weights=weights(5), device="cpu")
    with pytest.raises(InputError, match=r"missing conv4\.weight"):
        Tracker(TrackerConfig.from_preset("paper", conv_layers=5), weights=weights(3), device="cpu")
    fc4 = {"fc4.weight": torch.zeros(512, 4608), "fc4.bias": torch.zeros(512)}
    half = dataclasses.replace(weights(), tensors={**weights().tensors, **fc4})
    with pytest.raises(InputError, match=r"missing fc5\.weight, fc5\.bias"):
        Tracker(weights=half, device="cpu")


def test_a_target_mostly_outside_has_positives_that_overlap_it_well() -> None:
    tracker = tracker_of()
    tracker.init(picture(0), [-0.8 * SIDE, 40, SIDE, SIDE])
    assert len(tracker._targets._targets[0].positives.of_last(1)) > 20
    target = only_target(tracker)
    assert len(target.sampler(tracker.config).positives(target.box_xywh)) > 10


def test_event_pairs_do_not_pile_up_without_lap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to read the clock: on a GPU, finished events turn into seconds when the next stage begins."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            assert stream == "the device's stream"

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, other: object) -> float:
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the device's stream")
    clock = StageClock(torch.device("cuda", 1))
    for _ in range(100):
        with clock.stage("score"):
            pass
    assert len(clock._events) == 1
    assert clock.lap() == {"score": pytest.approx(0.2)}
    assert clock.lap() == {}
