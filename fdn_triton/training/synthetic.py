"""Domains made from still images: a patch of one image moves over another, turns, grows, is lit and partly covered.

They multiply the number of domains (the paper trains on 58 to 89 videos). In a part of them patches of the same
photograph, of like size and outline, keep near the target: what a video of a crowd shows, a target among its like. A
frame is a function of the seed and its number, so that no frame is stored.
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
from .windows import rotation

DRAWING = 2
"""Counts the ways in which scenes have been drawn: a run does not go on with other scenes under the same names."""

_FRAME_WH = (480, 360)
_FRAMES = 40
_CORNERS = 12  # of an outline
_COVERED_SHARE = 0.3  # of the domains
_CROWDED_SHARE = 0.6  # likewise
_MOST_NEIGHBOURS = 4


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
    """What is drawn: the target, perhaps among its like, the photograph behind them, a bar before them."""

    def __init__(
        self,
        rng: np.random.Generator,
        source: NDArray[np.uint8],
        backdrop: NDArray[np.uint8],
        cover: NDArray[np.uint8],
    ) -> None:
        size = rng.uniform(40, 130) * np.exp(rng.uniform(-0.35, 0.35) * np.array([1, -1]))
        self._size_wh = np.maximum(size, 16)
        crowded = rng.uniform() < _CROWDED_SHARE and max(source.shape[:2]) > 1
        own, others = _halves(rng, source) if crowded else (source, source)
        outline = _outline(rng)
        self._target = _Cutout(rng, own, self._size_wh, outline)
        self._x, self._y = _Way(rng, rng.uniform(0.3, 1)), _Way(rng, rng.uniform(0.3, 1))
        self._neighbours = [
            _Neighbour(rng, _Cutout(rng, others, self._size_wh * rng.uniform(0.85, 1.15), outline))
            for _ in range(rng.integers(1, _MOST_NEIGHBOURS + 1) if crowded else 0)
        ]
        width, height = _FRAME_WH
        scale = max(1.15 * width / backdrop.shape[1], 1.15 * height / backdrop.shape[0])
        self._backdrop = cv2.resize(backdrop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._pan = _Way(rng, 1.0), _Way(rng, 1.0)
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
        middle = np.array(_FRAME_WH) / 2
        room = np.maximum(middle - 0.8 * self._target.reach(moment), 1)
        center = middle + room * [self._x(moment), self._y(moment)]
        light = float(np.exp(self._light(moment)))
        frame = canvas.astype(np.float32)
        for neighbour in self._neighbours:
            neighbour.cutout.lay(frame, moment, center + self._size_wh * neighbour.offset(moment), light)
        alpha = self._target.lay(frame, moment, center, light)
        rows, columns = (np.flatnonzero((alpha > 0.5).any(axis=axis)) for axis in (1, 0))
        if len(rows) == 0:
            rows = columns = np.array([0, 8])
        box = np.array([columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]], dtype=np.float64)
        if self._cover is not None:
            self._hide(frame, center + self._size_wh * [way(moment) for way in self._cover_way])
        if self._blur > 0.4:
            frame = cv2.GaussianBlur(frame, (0, 0), self._blur)  # type: ignore[assignment]
        if self._grey:
            frame = np.repeat(frame @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=2)
        return frame.astype(np.uint8), box

    def _hide(self, frame: NDArray[np.floating], center: NDArray[np.float64]) -> None:
        """Put the bar over the frame."""
        assert self._cover is not None
        height, width = self._cover.shape[:2]
        left, top = (int(value) for value in center - [width / 2, height / 2])
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, frame.shape[1]), min(top + height, frame.shape[0])
        if x0 < x1 and y0 < y1:
            frame[y0:y1, x0:x1] = self._cover[y0 - top : y1 - top, x0 - left : x1 - left]


class _Cutout:
    """A patch that grows, turns and is squeezed over time."""

    def __init__(
        self,
        rng: np.random.Generator,
        source: NDArray[np.uint8],
        size_wh: NDArray[np.float64],
        outline: NDArray[np.float64],
    ) -> None:
        self._size_wh = size_wh
        self._patch = _patch(rng, source, size_wh, outline)
        self._growth, self._turn = _Way(rng, rng.uniform(0, 0.45)), _Way(rng, rng.uniform(0, 0.6))
        if rng.uniform() < 0.25:  # full turns, as of a gymnast
            self._turn = _Way(rng, np.pi)
        self._squeeze = _Way(rng, rng.uniform(0, 0.25))

    def reach(self, moment: float) -> NDArray[np.float64]:
        """Half the width and height of what is drawn, at most."""
        return np.abs(self._linear(moment)) @ (self._size_wh / 2)

    def lay(
        self, frame: NDArray[np.float32], moment: float, center: NDArray[np.float64], light: float
    ) -> NDArray[np.float32]:
        """Draw it onto the frame; returns how much of each pixel it covers, [H, W]."""
        linear, middle = self._linear(moment), np.array(self._patch.shape[1::-1]) / 2 - 0.5
        matrix = np.column_stack((linear, center - 0.5 - linear @ middle))
        drawn = cv2.warpAffine(self._patch, matrix, _FRAME_WH, flags=cv2.INTER_LINEAR)
        alpha = drawn[:, :, 3:] / np.float32(255)
        frame += alpha * (np.clip(drawn[:, :, :3] * np.float32(light), 0, 255) - frame)
        return alpha[:, :, 0]

    def _linear(self, moment: float) -> NDArray[np.float64]:
        growth, squeeze = np.exp(self._growth(moment)), np.exp(self._squeeze(moment))
        return rotation(self._turn(moment)) @ np.diag([growth * squeeze, growth / squeeze])


class _Neighbour:
    """A cutout that keeps near the target and comes and goes a little."""

    def __init__(self, rng: np.random.Generator, cutout: _Cutout) -> None:
        self.cutout = cutout
        angle = rng.uniform(0, 2 * np.pi)
        self._place = rng.uniform(0.8, 2.0) * np.array([np.cos(angle), np.sin(angle)])
        self._x, self._y = _Way(rng, 0.4), _Way(rng, 0.4)

    def offset(self, moment: float) -> NDArray[np.float64]:
        """Of its centre from the target's, in sizes of the target."""
        return self._place + [self._x(moment), self._y(moment)]


class _Way:
    """A smooth way over time within [-amplitude, amplitude]."""

    def __init__(self, rng: np.random.Generator, amplitude: float) -> None:
        self._amplitude = amplitude
        self._rates, self._phases = rng.uniform(0.5, 3, 2), rng.uniform(0, 2 * np.pi, 2)

    def __call__(self, moment: float) -> float:
        return float(self._amplitude * np.sin(2 * np.pi * self._rates * moment + self._phases).mean())


def _halves(rng: np.random.Generator, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image cut across its longer side: like colours, other content."""
    parts = np.array_split(image, 2, axis=int(image.shape[1] > image.shape[0]))
    first = int(rng.integers(2))
    return parts[first], parts[1 - first]


def _outline(rng: np.random.Generator) -> NDArray[np.float64]:
    """[corners, 2] in [-1, 1]: a superellipse with dents."""
    angles = np.arange(_CORNERS) * 2 * np.pi / _CORNERS
    roundness = rng.uniform(0.7, 1.4)  # below 1 towards a rectangle
    directions = np.column_stack((np.cos(angles), np.sin(angles)))
    fullness = rng.uniform(0.4, 0.9)  # what is behind is seen between limbs, inside of the box
    return np.sign(directions) * np.abs(directions) ** roundness * rng.uniform(fullness, 1.0, (_CORNERS, 1))


def _patch(
    rng: np.random.Generator, source: NDArray[np.uint8], size_wh: NDArray[np.float64], outline: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """RGBA [h, w, 4]: a part of the photograph inside of the outline."""
    width, height = size_wh.astype(int)
    part = rng.uniform(0.35, 0.8) * min(source.shape[1] / width, source.shape[0] / height)
    crop_w, crop_h = max(8, int(width * part)), max(8, int(height * part))
    left = rng.integers(0, max(1, source.shape[1] - crop_w))
    top = rng.integers(0, max(1, source.shape[0] - crop_h))
    crop = source[top : top + crop_h, left : left + crop_w]
    pixels = cv2.resize(crop, (int(width), int(height)), interpolation=cv2.INTER_AREA if part > 1 else cv2.INTER_LINEAR)
    points = ((outline + 1) / 2 * [width - 1, height - 1] * 16).round().astype(np.int32)
    alpha = np.zeros((height, width), np.uint8)
    cv2.fillPoly(alpha, [points], 255, lineType=cv2.LINE_AA, shift=4)
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.5, 1.5))
    return np.dstack((pixels, alpha))
