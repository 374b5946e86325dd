"""Domains made from still images: a patch of one image moves over another, turns, grows, is lit and partly covered.

They multiply the number of domains (the paper trains on 58 to 89 videos). A frame is a function of the seed and its
number, so that no frame is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .images import IMAGE_SUFFIXES, read_image

_FRAME_WH = (480, 360)
_FRAMES = 40
_CORNERS = 12  # of an outline
_COVERED_SHARE = 0.3  # of the domains


@dataclass(frozen=True, eq=False)
class SyntheticDomain:
    """A :class:`~.domains.Domain` of three photographs.

    Attributes:
        name: for messages.
        photographs: files the three are chosen from.
        seed: of everything.
    """

    name: str
    photographs: tuple[Path, ...]
    seed: int

    def __len__(self) -> int:
        return _FRAMES

    def frame(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """See :class:`~.domains.Domain`."""
        scene = self._scene
        if scene is None:
            return None
        moment = number / _FRAMES
        canvas = scene.background(moment)
        return scene.draw(canvas, moment)

    @cached_property
    def _scene(self) -> _Scene | None:
        rng = np.random.default_rng(self.seed)
        chosen = rng.choice(len(self.photographs), size=3, replace=len(self.photographs) < 3)
        images = [self._photograph(int(i)) for i in chosen]
        return _Scene(rng, *images) if all(image is not None for image in images) else None  # type: ignore[arg-type]

    def _photograph(self, number: int) -> NDArray[np.uint8] | None:
        """The photograph with this number, or the next one that can be read."""
        order = self.photographs[number:] + self.photographs[:number]
        return next((image for path in order if (image := read_image(path)) is not None), None)


def synthetic_domains(folder: Path, count: int, seed: int) -> list[SyntheticDomain]:
    """Domains of the photographs in a folder.

    Raises:
        InputError: the folder has fewer than two images.
    """
    photographs = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES))
    if len(photographs) < 2:
        raise InputError(f"{str(folder)!r} has {len(photographs)} images: give a folder of photographs")
    seeds = np.random.SeedSequence(seed).generate_state(count, np.uint32)
    return [SyntheticDomain(f"synthetic{i}", photographs, int(own)) for i, own in enumerate(seeds)]


class _Scene:
    """What is drawn: a patch with a soft outline, the photograph behind it, a bar before it, and their ways."""

    def __init__(
        self,
        rng: np.random.Generator,
        source: NDArray[np.uint8],
        backdrop: NDArray[np.uint8],
        cover: NDArray[np.uint8],
    ) -> None:
        size = rng.uniform(40, 130) * np.exp(rng.uniform(-0.35, 0.35) * np.array([1, -1]))
        self._size_wh = np.maximum(size, 16)
        self._patch = _patch(rng, source, self._size_wh)
        width, height = _FRAME_WH
        scale = max(1.15 * width / backdrop.shape[1], 1.15 * height / backdrop.shape[0])
        self._backdrop = cv2.resize(backdrop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._pan = _Way(rng, 1.0), _Way(rng, 1.0)
        self._x, self._y = _Way(rng, rng.uniform(0.3, 1)), _Way(rng, rng.uniform(0.3, 1))
        self._growth, self._turn = _Way(rng, rng.uniform(0, 0.45)), _Way(rng, rng.uniform(0, 0.6))
        if rng.uniform() < 0.25:  # full turns, as of a gymnast
            self._turn = _Way(rng, np.pi)
        self._squeeze = _Way(rng, rng.uniform(0, 0.25))
        self._light, self._blur = _Way(rng, rng.uniform(0, 0.35)), rng.uniform(0, 1.5)
        self._grey = rng.uniform() < 0.2
        self._cover = None
        if rng.uniform() < _COVERED_SHARE:
            bar = self._size_wh * rng.uniform(0.3, 0.6, 2)
            self._cover = cv2.resize(
                cover, tuple(np.maximum(bar, 4).astype(int).tolist()), interpolation=cv2.INTER_AREA
            )
            self._cover_way = _Way(rng, 1.0), _Way(rng, 1.0)

    def background(self, moment: float) -> NDArray[np.uint8]:
        width, height = _FRAME_WH
        slack = self._backdrop.shape[1] - width, self._backdrop.shape[0] - height
        left, top = (int(room * (way(moment) + 1) / 2) for room, way in zip(slack, self._pan, strict=True))
        return self._backdrop[top : top + height, left : left + width].copy()

    def draw(self, canvas: NDArray[np.uint8], moment: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        width, height = _FRAME_WH
        growth, squeeze = np.exp(self._growth(moment)), np.exp(self._squeeze(moment))
        linear = _rotation(self._turn(moment)) @ np.diag([growth * squeeze, growth / squeeze])
        reach = np.abs(linear) @ (self._size_wh / 2)
        room = np.maximum(np.array([width, height]) / 2 - 0.8 * reach, 1)
        center = np.array([width, height]) / 2 + room * [self._x(moment), self._y(moment)]
        middle = np.array(self._patch.shape[1::-1]) / 2 - 0.5
        matrix = np.column_stack((linear, center - 0.5 - linear @ middle))
        drawn = cv2.warpAffine(self._patch, matrix, _FRAME_WH, flags=cv2.INTER_LINEAR)
        alpha = drawn[:, :, 3:] / np.float32(255)
        lit = np.clip(drawn[:, :, :3] * np.float32(np.exp(self._light(moment))), 0, 255)
        frame = canvas + alpha * (lit - canvas)
        rows, columns = (np.flatnonzero((alpha[:, :, 0] > 0.5).any(axis=axis)) for axis in (1, 0))
        if len(rows) == 0:
            rows = columns = np.array([0, 8])
        box = np.array([columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]], dtype=np.float64)
        if self._cover is not None:
            self._lay(frame, center + self._size_wh * [way(moment) for way in self._cover_way])
        if self._blur > 0.4:
            frame = cv2.GaussianBlur(frame, (0, 0), self._blur)
        if self._grey:
            frame = np.repeat(frame @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
        return frame.astype(np.uint8), box

    def _lay(self, frame: NDArray[np.floating], center: NDArray[np.float64]) -> None:
        """Put the bar over the frame."""
        assert self._cover is not None
        height, width = self._cover.shape[:2]
        left, top = (int(value) for value in center - [width / 2, height / 2])
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, frame.shape[1]), min(top + height, frame.shape[0])
        if x0 < x1 and y0 < y1:
            frame[y0:y1, x0:x1] = self._cover[y0 - top : y1 - top, x0 - left : x1 - left]


class _Way:
    """A smooth way over time within [-amplitude, amplitude]."""

    def __init__(self, rng: np.random.Generator, amplitude: float) -> None:
        self._amplitude = amplitude
        self._rates, self._phases = rng.uniform(0.5, 3, 2), rng.uniform(0, 2 * np.pi, 2)

    def __call__(self, moment: float) -> float:
        return float(self._amplitude * np.sin(2 * np.pi * self._rates * moment + self._phases).mean())


def _patch(rng: np.random.Generator, source: NDArray[np.uint8], size_wh: NDArray[np.float64]) -> NDArray[np.uint8]:
    """RGBA [h, w, 4]: a part of the photograph inside of a random outline."""
    width, height = size_wh.astype(int)
    part = rng.uniform(0.35, 0.8) * min(source.shape[1] / width, source.shape[0] / height)
    crop_w, crop_h = max(8, int(width * part)), max(8, int(height * part))
    left = rng.integers(0, max(1, source.shape[1] - crop_w))
    top = rng.integers(0, max(1, source.shape[0] - crop_h))
    crop = source[top : top + crop_h, left : left + crop_w]
    pixels = cv2.resize(crop, (int(width), int(height)), interpolation=cv2.INTER_AREA if part > 1 else cv2.INTER_LINEAR)
    angles = np.arange(_CORNERS) * 2 * np.pi / _CORNERS
    roundness = rng.uniform(0.7, 1.4)  # of a superellipse: below 1 towards a rectangle
    directions = np.column_stack((np.cos(angles), np.sin(angles)))
    outline = np.sign(directions) * np.abs(directions) ** roundness * rng.uniform(0.75, 1.0, (_CORNERS, 1))
    points = ((outline + 1) / 2 * [width - 1, height - 1] * 16).round().astype(np.int32)
    alpha = np.zeros((height, width), np.uint8)
    cv2.fillPoly(alpha, [points], 255, lineType=cv2.LINE_AA, shift=4)
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.5, 1.5))
    return np.dstack((pixels, alpha))


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
