"""The window, on a screen that is only pretended: OpenCV's functions are replaced."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from fdn_triton import window
from fdn_triton.errors import InputError
from fdn_triton.window import Window, select_boxes

RED = np.full((30, 40, 3), (255, 0, 0), np.uint8)


class Screen:
    """What the replaced functions were called with, and what they answer."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.shown: list[np.ndarray] = []
        self.sizes: list[tuple[int, int]] = []
        self.key = -1
        self.visible = 1.0
        self.drawn: Any = ()

    def named_window(self, title: str, *_: Any) -> None:
        self.open.append(title)

    def imshow(self, title: str, image: np.ndarray) -> None:
        assert title in self.open
        self.shown.append(image.copy())

    def select(self, title: str, image: np.ndarray, **_: Any) -> Any:
        self.imshow(title, image)
        return self.drawn


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    it = Screen()
    monkeypatch.setenv("DISPLAY", ":0")
    replacements = {
        "namedWindow": it.named_window,
        "resizeWindow": lambda _, width, height: it.sizes.append((width, height)),
        "imshow": it.imshow,
        "waitKey": lambda _: it.key,
        "getWindowProperty": lambda *_: it.visible,
        "selectROIs": it.select,
        "destroyAllWindows": it.open.clear,
    }
    for name, function in replacements.items():
        monkeypatch.setattr(window.cv2, name, function)
    return it


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no DISPLAY")
@pytest.mark.parametrize("value", [None, ""])
def test_without_a_display_it_says_so(monkeypatch: pytest.MonkeyPatch, screen: Screen, value: str | None) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"no display.*--init"):
        Window("title")
    with pytest.raises(InputError, match="no display"):
        select_boxes(RED)
    assert screen.open == [] and screen.shown == []


@pytest.mark.parametrize("name", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_either_kind_of_display_will_do(monkeypatch: pytest.MonkeyPatch, screen: Screen, name: str) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv(name, "somewhere")
    with Window("title"):
        assert screen.open == ["title"]
    assert screen.open == []


def test_an_opencv_without_windows(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> None:
    def fail(*_: Any) -> None:
        raise window.cv2.error("The function is not implemented")

    monkeypatch.setattr(window.cv2, "namedWindow", fail)
    with pytest.raises(InputError, match="install opencv-python instead of opencv-python-headless"):
        Window("title")


def test_frames_are_shown_in_opencv_s_order_of_colours(screen: Screen) -> None:
    with Window("title") as shown:
        assert shown.show(RED) and shown.show(RED)
    assert len(screen.shown) == 2
    assert screen.shown[0][0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("key", "goes_on"),
    [(-1, True), (ord("a"), True), (ord("q"), False), (27, False), (0x100000 | ord("q"), False)],
    ids=["none", "a", "q", "Escape", "q with Num Lock"],
)
def test_keys(screen: Screen, key: int, goes_on: bool) -> None:
    screen.key = key
    with Window("title") as shown:
        assert shown.show(RED) is goes_on


@pytest.mark.parametrize("visible", [0.0, -1.0])
def test_closing_the_window_ends(screen: Screen, visible: float) -> None:
    screen.visible = visible
    with Window("title") as shown:
        assert not shown.show(RED)


def test_the_window_is_closed_after_an_error(screen: Screen) -> None:
    with pytest.raises(KeyboardInterrupt), Window("title"):
        raise KeyboardInterrupt
    assert screen.open == []


def test_large_frames_are_shown_smaller_in_their_proportion(screen: Screen) -> None:
    with Window("small") as shown:
        shown.show(RED)
        shown.show(RED)
    with Window("large") as shown:
        shown.show(np.zeros((2160, 3840, 3), np.uint8))
    (small, (width, height)) = screen.sizes  # once for each window: what the user does to it is left alone
    assert small == (40, 30)
    assert width <= 1280 and height <= 720 and width / height == pytest.approx(16 / 9, rel=0.01)


def test_boxes_that_were_drawn(screen: Screen) -> None:
    screen.drawn = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
    boxes = select_boxes(RED)
    assert boxes.dtype == np.float64
    np.testing.assert_array_equal(boxes, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert screen.open == [] and screen.shown[0][0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("drawn", [(), np.empty((0, 4), np.int32)])
def test_no_box_drawn(screen: Screen, drawn: Any) -> None:
    screen.drawn = drawn
    with pytest.raises(InputError, match=r"no box was drawn.*--init"):
        select_boxes(RED)
    assert screen.open == []
