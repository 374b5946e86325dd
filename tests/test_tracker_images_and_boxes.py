"""Images and boxes that users give the tracker: of any size and layout, or refused in one line."""

from __future__ import annotations

import math
import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from moving_patch import HEIGHT, WIDTH, assert_usable, boxes_of, follow, picture, tracker_of, truth, truths

from fdn_triton.errors import InputError
from fdn_triton.evaluation.metrics import overlaps


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
