"""The tracker follows one target or two, in all its variants, and equal seeds repeat bit for bit."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from moving_patch import Image, boxes_of, follow, only_target, picture, tracker_of, truth, truths
from numpy.typing import NDArray
from recorded_graphs import recorded_graphs

from fdn_triton.config import TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.ground_truth import read_otb_boxes
from fdn_triton.target_sampling import Draws
from fdn_triton.tracker import Tracker, TrackResult

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
    """What a GPU does, but for the device: the same up to rounding, to the first long-term update of the clip.

    With the seed no two candidates tie so nearly that rounding, which is also the CPU's, decides between them.
    """
    images = [read_rgb(image) for image in sorted((clip_path() / "img").glob("*.jpg"))[:11]]
    owl = read_otb_boxes(clip_path() / "groundtruth_rect.txt")[0]

    def followed_by(tracker: Tracker) -> tuple[list[NDArray[np.float64]], list[list[tuple[str, int]]]]:
        tracker.init(images[0], [owl, owl + (25, 10, -5, 5)])
        results = [tracker.update(image) for image in images[1:]]
        updates = [[(u.kind, u.iterations) for u in result.updates if u] for result in results]
        return [boxes_of(results, t) for t in (0, 1)], updates

    boxes, updates = followed_by(tracker_of(short_side=300, seed=3))
    tracker = tracker_of(short_side=300, seed=3)
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


# Targets that grow


def approached(image: Image, box_xywh: NDArray[np.float64], factor: float) -> tuple[Image, NDArray[np.float64]]:
    """The image and the box, enlarged around the box's centre."""
    center = box_xywh[:2] + box_xywh[2:] / 2
    matrix = np.array([[factor, 0, (1 - factor) * center[0]], [0, factor, (1 - factor) * center[1]]])
    height, width = image.shape[:2]
    wh = box_xywh[2:] * factor
    return cv2.warpAffine(image, matrix, (width, height)).astype(np.uint8), np.concatenate((center - wh / 2, wh))


@pytest.mark.parametrize("step", [1.02, 1 / 1.02], ids=["grows", "shrinks"])
def test_the_box_grows_and_shrinks_with_the_target(step: float) -> None:
    image = read_rgb(clip_path() / "img" / "0001.jpg")
    box = read_otb_boxes(clip_path() / "groundtruth_rect.txt")[0]

    def errors(**changes: Any) -> tuple[float, float]:
        """Of the last box: its size against the target's, and how large the target is in the resized frame."""
        tracker = Tracker(TrackerConfig.from_preset("fast", short_side=360, max_side=640, **changes), device="cpu")
        tracker.init(image, box)
        learnt = only_target(tracker).learnt_side
        for frame in range(1, 31):
            seen, truth_xywh = approached(image, box, step**frame)
            found = tracker.update(seen).boxes_xywh[0]
        assert tracker._view is not None
        seen_side = float(truth_xywh[2:].mean() * tracker._view.pixel[0])
        return float(np.prod(found[2:] / truth_xywh[2:]) ** 0.5), seen_side / learnt

    size, seen_size = errors()
    assert size == pytest.approx(1, abs=0.15)
    assert seen_size == pytest.approx(1, abs=0.25)
    lagging, seen_lagging = errors(resize_step=None, search_size_refined=0.0)
    assert abs(np.log(lagging)) > abs(np.log(size)) + 0.03
    assert seen_lagging == pytest.approx(step**30, rel=0.02), "the frame keeps its size"


# Variants


@pytest.mark.parametrize(
    "changes",
    [
        {"roi_layer": "pool"},
        {"sampling_ratio": 1},
        {"sampling_ratio": 3},
        {"conv_layers": 5},
        {"fc_layers": 2, "fc6_rate": 1.0},  # behind a fresh fc4, ten times the rate is too much
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
    targets = tracker._targets._targets
    draws = Draws.of(tracker.config, [target.generator for target in targets])
    drawn = tracker._targets._host_search._candidates(targets, draws).numpy() / 1.5
    np.testing.assert_allclose(drawn, drawn.round(), atol=1e-4)
    floats = tracker_of("paper", short_side=180)
    assert (np.abs(follow(floats, 2)[0].boxes_xywh % 1 - 0.5) < 0.49).any()


# Repeating: nothing outside the tracker matters, and it changes nothing outside


def test_equal_seeds_repeat_bit_for_bit_and_others_do_not(followed: list[TrackResult]) -> None:
    again, other = follow(tracker_of(), 11), follow(tracker_of(seed=1), 6)
    assert np.array_equal(boxes_of(again), boxes_of(followed[:10]))
    assert [result.scores.tolist() for result in again] == [result.scores.tolist() for result in followed[:10]]
    assert [result.updates for result in again] == [result.updates for result in followed[:10]]
    assert not (boxes_of(other) == boxes_of(again[:5])).any()
    assert overlaps(boxes_of(other), truths(6)).mean() > 0.6


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
