"""Windows of frames: the box lands where the object does, whatever the scale, mirrored or turned or not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_training import bounding_box

from fdn_triton.training.windows import View, window
from fdn_triton.weights import IMAGENET_MEAN


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("frame_hw", "box", "target_size"),
    [
        ((240, 320), (100, 80, 60, 40), 50.0),  # as it is
        ((240, 320), (100, 80, 20, 30), 75.0),  # three times larger
        ((480, 641), (200, 111, 130, 90), 40.0),  # smaller than half: shrunk first; an odd width
        ((1080, 1921), (701, 303, 640, 480), 40.0),  # a fourteenth
        ((200, 200), (170, 150, 60, 60), 48.0),  # partly outside of the frame
    ],
)
def test_the_box_lands_where_the_object_does(
    frame_hw: tuple[int, int], box: tuple[int, int, int, int], target_size: float, mirrored: bool
) -> None:
    """The left half of the object is red, to see which side is which."""
    x, y, w, h = box
    image = np.full((*frame_hw, 3), 10, np.uint8)
    image[y : y + h, x : x + w] = (60, 200, 60)
    image[y : y + h, x : x + w // 2] = (200, 60, 60)
    before = image.copy()
    view = View(side=192, target_size=target_size, place=(0.4, 0.6), mirrored=mirrored)
    pixels, landed = window(image, np.array(box, dtype=np.float64), view)
    assert pixels.shape == (192, 192, 3) and pixels.dtype == np.uint8 and landed.dtype == np.float32
    assert np.array_equal(image, before)

    assert landed[2:].mean() == pytest.approx(target_size)
    assert landed[2] / landed[3] == pytest.approx(w / h)
    np.testing.assert_allclose(landed[:2] + landed[2:] / 2, [0.4 * 192, 0.6 * 192], rtol=1e-5)

    objects = pixels.astype(int).max(axis=2) > 145  # brighter than halfway from the ground, and than the mean colour
    seen_x, seen_y, seen_w, seen_h = bounding_box(objects)
    scale = target_size / np.mean([w, h])
    visible = min(w, frame_hw[1] - x), min(h, frame_hw[0] - y)
    np.testing.assert_allclose([seen_w, seen_h], np.array(visible) * scale, atol=2.1)
    left = landed[0] + (w - visible[0]) * scale if mirrored else landed[0]
    np.testing.assert_allclose([seen_x, seen_y], [left, landed[1]], atol=1.1)

    red = pixels[:, :, 0].astype(int) > pixels[:, :, 1].astype(int) + 60
    middle = landed[0] + landed[2] / 2
    assert (np.flatnonzero(red.any(axis=0)).mean() > middle) == mirrored


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [-90.0, -20.0, 35.0])
def test_the_box_of_an_ellipse_turns_with_it(degrees: float, mirrored: bool) -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    cv2.ellipse(image, (140, 160), (40, 20), 0, 0, 360, (200, 200, 200), thickness=-1)
    image[155:166, 160:173, 1] = 0  # a mark at its right end, to see which way it turns
    view = View(200, 60.0, (0.45, 0.55), mirrored, turn=np.radians(degrees))
    pixels, landed = window(image, np.array([100.0, 140, 81, 41]), view)
    seen = np.array([*bounding_box(pixels[:, :, 0].astype(int) > 150)])
    np.testing.assert_allclose(landed, seen, atol=0.9)

    marked = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 100)
    x, y = np.argwhere(marked)[:, ::-1].mean(axis=0) - [0.45 * 200, 0.55 * 200]
    angle = np.degrees(np.arctan2(y, x)) - (180 if mirrored else 0)
    assert (angle - degrees + 180) % 360 - 180 == pytest.approx(0, abs=5)


def test_outside_of_the_frame_is_the_mean_colour() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    pixels, _ = window(image, np.array([0.0, 0, 20, 20]), View(100, 20.0, (0.5, 0.5), False))
    np.testing.assert_allclose(pixels[10, 10], IMAGENET_MEAN, atol=0.5)
    assert pixels[60, 60].tolist() == [0, 0, 0]


def test_shrinking_keeps_what_is_thin() -> None:
    """Every second column is bright: their mean is left of it, not a choice of columns."""
    image = np.zeros((800, 800, 3), np.uint8)
    image[:, ::2] = 200
    pixels, _ = window(image, np.array([200.0, 200, 400, 400]), View(60, 40.0, (0.5, 0.5), False))
    np.testing.assert_allclose(pixels, 100, atol=3)
