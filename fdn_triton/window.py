"""The window of ``--show`` and ``--select``."""

from __future__ import annotations

import os
import sys
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError

_LARGEST_WH = (1280, 720)
_QUIT_KEYS = (ord("q"), 27)  # 27: Escape


class Window:
    """Shows RGB frames under a title.

    Raises:
        InputError: there is no display, or OpenCV was built without windows.
    """

    def __init__(self, title: str) -> None:
        _require_display()
        self._title = title
        self._fitted = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error:
            raise InputError(
                "this build of OpenCV has no windows: install opencv-python instead of opencv-python-headless"
            ) from None

    def show(self, image: NDArray[np.uint8]) -> bool:
        """Show a frame; False once the user has closed the window or pressed q or Escape."""
        self.fit(image)
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in _QUIT_KEYS and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) > 0

    def fit(self, image: NDArray[np.uint8]) -> None:
        """Give the window the image's size, or as much of it as fits a small screen, once."""
        if not self._fitted:
            height, width = image.shape[:2]
            scale = min(1.0, _LARGEST_WH[0] / width, _LARGEST_WH[1] / height)
            cv2.resizeWindow(self._title, max(1, round(width * scale)), max(1, round(height * scale)))
            self._fitted = True

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()


def select_boxes(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Let the user draw boxes on the RGB image: Enter or Space after each, Escape when done.

    Returns:
        [T, 4] ``x, y, w, h``, 0-based pixels.

    Raises:
        InputError: no box was drawn, or there is no display.
    """
    title = "Draw a box, press Enter; Escape when done"
    with Window(title) as window:
        window.fit(image)
        drawn = cv2.selectROIs(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), showCrosshair=False, printNotice=False)
    cv2.waitKey(1)  # the Escape that ended the drawing must not reach the next window
    boxes = np.array(drawn, dtype=np.float64).reshape(-1, 4)
    if len(boxes) == 0:
        raise InputError("no box was drawn: draw one and press Enter, or give --init X,Y,W,H")
    return boxes


def _require_display() -> None:
    # Without this look, OpenCV's window toolkit ends the whole process.
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError("there is no display: leave out --show and --select, give --init X,Y,W,H or --save-video FILE")
