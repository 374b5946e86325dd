"""Frames with 64 different moving things in them, of any size, for ``perf/scaling.py``."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from fdn_triton.demo import clip_path

BASE_WH = (640, 360)
THINGS = 64
PERIOD = 40
"""Frames after which the scene repeats."""
_THING_WH = (46, 36)  # no smaller than least_target_size in the frame as the presets resize it
_RADIUS = 4  # of the circle that each thing moves on, pixels


class Scene:
    """The demo clip's village behind 64 patches of coloured blots, which are spread over the frame and circle in place.

    A thing measures 46x36 pixels of 640x360, whatever the size of the frames: equal to the tracker, which resizes them.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        w, h = _THING_WH
        blots = rng.integers(0, 256, (THINGS, 4, 5, 3), dtype=np.uint8)
        self._things = [cv2.resize(each, _THING_WH, interpolation=cv2.INTER_CUBIC) for each in blots]
        mask = np.zeros((h, w), np.uint8)
        self._mask = cv2.ellipse(mask, (w // 2, h // 2), (w // 2 - 1, h // 2 - 1), 0, 0, 360, 255, -1)[..., None] > 0
        rows = math.isqrt(THINGS)
        grid = [((column + 0.5) / rows, (row + 0.5) / rows) for row in range(rows) for column in range(rows)]
        self._places = np.array([grid[i] for i in rng.permutation(THINGS)]) * BASE_WH
        self._phases = rng.uniform(0, 2 * math.pi, THINGS)
        village = cv2.imread(str(clip_path() / "img" / "0001.jpg"))
        self._background = cv2.resize(cv2.cvtColor(village, cv2.COLOR_BGR2RGB), BASE_WH)
        self._frames = [self._drawn(i) for i in range(PERIOD)]

    def frame(self, index: int, size_wh: tuple[int, int] = BASE_WH) -> NDArray[np.uint8]:
        """The frame as uint8 [H, W, 3], RGB."""
        image = self._frames[index % PERIOD]
        if size_wh == BASE_WH:
            return image
        smaller = size_wh[0] < BASE_WH[0]
        return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def boxes(self, index: int, targets: int, size_wh: tuple[int, int] = BASE_WH) -> NDArray[np.float64]:
        """[targets, 4] ``x, y, w, h`` of the first things, pixels of a frame of this size."""
        boxes = np.concatenate((self._corners(index), np.tile(_THING_WH, (THINGS, 1))), axis=1)[:targets]
        return boxes * np.tile(np.array(size_wh) / BASE_WH, 2)

    def close_up(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """A quarter of the frame's width and height around the first thing, and its box there."""
        size = np.array(BASE_WH) // 4
        x, y = np.clip((self._places[0] - size / 2).astype(int), 0, np.array(BASE_WH) - size).tolist()
        image = np.ascontiguousarray(self.frame(index)[y : y + size[1], x : x + size[0]])
        return image, self.boxes(index, 1)[0] - (x, y, 0, 0)

    def _corners(self, index: int) -> NDArray[np.int64]:
        angles = self._phases + 2 * math.pi * index / PERIOD
        centres = self._places + _RADIUS * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        return (centres - np.array(_THING_WH) / 2).round().astype(np.int64)

    def _drawn(self, index: int) -> NDArray[np.uint8]:
        image = self._background.copy()
        w, h = _THING_WH
        for (x, y), thing in zip(self._corners(index).tolist(), self._things, strict=True):
            left, top = max(x, 0), max(y, 0)
            place = image[top : y + h, left : x + w]
            part = np.s_[top - y : top - y + place.shape[0], left - x : left - x + place.shape[1]]
            np.copyto(place, thing[part], where=self._mask[part])
        return image
