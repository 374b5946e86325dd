"""Regions as VOT annotates them, 0-based pixels: ``x, y, w, h``, or a polygon's corners ``x1, y1, x2, y2, ...``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..ground_truth import read_vot_boxes

_LARGEST_PIXEL = 30_000  # OpenCV draws with 16 bits of whole pixels


def read_regions(path: Path) -> list[NDArray[np.float64]]:
    """The region of every frame, each [4] or [2k] with k >= 3 corners.

    Raises:
        InputError: as :func:`~fdn_triton.ground_truth.read_vot_boxes`, or a frame has no region.
    """
    missing = np.flatnonzero(np.isnan(read_vot_boxes(path)[:, 0]))
    if len(missing):
        raise InputError(
            f"{path}, line {missing[0] + 1}: no region: the reset-based experiment needs one on every frame"
        )
    lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    return [np.array(line.replace(",", " ").split(), dtype=np.float64) for line in lines]


def bounding_box(region: ArrayLike) -> NDArray[np.float64]:
    """[4] ``x, y, w, h``: the region itself, or the axis-aligned box around a polygon's corners."""
    numbers = np.asarray(region, dtype=np.float64)
    if len(numbers) == 4:
        return numbers
    corners = numbers.reshape(-1, 2)
    return np.concatenate((corners.min(axis=0), np.ptp(corners, axis=0)))


def overlaps(box_xywh: ArrayLike, region: ArrayLike, size_wh: tuple[int, int]) -> bool:
    """Whether a box and a region share a pixel of the frame.

    As in VOT's toolkit both are rounded to whole pixels first, a polygon's outline belongs to it, and what lies outside
    the frame does not count. (Where they share a single row or column of pixels, the toolkit may judge otherwise.)

    Args:
        box_xywh: [4].
        region: [4] or [2k].
        size_wh: of the frame, pixels.
    """
    numbers = np.asarray(region, dtype=np.float64)
    canvas = np.zeros((size_wh[1], size_wh[0]), np.uint8)
    if len(numbers) == 4:
        canvas[_pixels(numbers)] = 1
    else:
        corners = np.clip(numbers, -_LARGEST_PIXEL, _LARGEST_PIXEL).round().astype(np.int32).reshape(-1, 1, 2)
        cv2.fillPoly(canvas, [corners], 1)
    return bool(canvas[_pixels(np.asarray(box_xywh, dtype=np.float64))].any())


def _pixels(box_xywh: NDArray[np.float64]) -> tuple[slice, slice]:
    """The rows and columns of a box."""
    x, y, w, h = box_xywh.round().astype(int)
    return slice(max(0, y), max(0, y + h)), slice(max(0, x), max(0, x + w))
