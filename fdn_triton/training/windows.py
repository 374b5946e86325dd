"""Windows of frames for training: the target at a random size and place in a square that the trunk sees whole.

The tracker's trunk sees the whole frame; samples are drawn near the target, so that training needs their surroundings
only. All windows are of one size, which suits a batch, and a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..weights import IMAGENET_MEAN


@dataclass(frozen=True)
class View:
    """How a frame is looked at; the frames of one step share what is not placement.

    Attributes:
        side: pixels of the window.
        target_size: mean of the target's width and height in the window before it is turned, pixels.
        place: where the target's centre lies, shares of the window [2].
        mirrored: left and right exchanged.
        turn: radians about the target's centre, from the x to the y axis, after mirroring.
    """

    side: int
    target_size: float
    place: tuple[float, float]
    mirrored: bool
    turn: float = 0.0


def window(
    image: NDArray[np.uint8], box_xywh: NDArray[np.float64], view: View
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The window [side, side, 3] RGB and the target's box in it; outside of the frame it has the mean colour."""
    scale = view.target_size / float(box_xywh[2:].mean())
    # Shrinking by more than half skips pixels; halve them into each other before.
    while scale < 0.5:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        box_xywh, scale = box_xywh / 2, scale * 2
    center = box_xywh[:2] + box_xywh[2:] / 2
    linear = rotation(view.turn) @ np.diag([-scale if view.mirrored else scale, scale])
    shift = np.array(view.place) * view.side
    # Pixel centres are at half-integers: u + 0.5 = shift + linear (x + 0.5 - center).
    matrix = np.column_stack((linear, shift - 0.5 - linear @ (center - 0.5)))
    pixels = cv2.warpAffine(
        image, matrix, (view.side, view.side), flags=cv2.INTER_LINEAR, borderValue=tuple(IMAGENET_MEAN)
    )
    wh = mapped_sides(linear, box_xywh[2:])
    return pixels, np.concatenate((shift - wh / 2, wh)).astype(np.float32)  # type: ignore[return-value]


def rotation(angle: float) -> NDArray[np.float64]:
    """[2, 2], by radians, from the x to the y axis."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def mapped_sides(linear: NDArray[np.float64], wh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Width and height of an object that is mapped by [2, 2].

    It fills its box like an ellipse rather than to the corners: these are those of the mapped ellipse.
    """
    return np.hypot(*(linear * wh).T)
