"""Domains made from annotated photographs, in PASCAL VOC's layout: an object stays where it is, among what it is among.

A video's target turns, is squeezed, lit and blurred; here the whole photograph is. What a synthetic domain's cutout
lacks is there: an object's own outline, its surroundings, and often others of its kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..weights import IMAGENET_MEAN
from .images import read_image
from .windows import mapped_sides, rotation

CHANGING = 1
"""Counts the ways in which photographs have been changed: a run does not go on with others under the same names."""

_FRAMES = 40
_SMALLEST_SIDE = 20.0  # pixels of an object's box
_LARGEST_SHARE = 0.4  # of the photograph's area: negatives need room
_TURN = math.radians(20)
_SQUEEZE, _LIGHT = 0.15, 0.25  # exponents
_BLURRED_SHARE, _BLUR = 0.4, (0.5, 2.0)  # of the frames; pixels
_LAYOUT = "give a folder with VOC's JPEGImages and Annotations"


@dataclass(frozen=True, eq=False)
class StillDomain:
    """A :class:`~.domains.Domain` of one object in one photograph.

    Attributes:
        name: for messages.
        image: its file.
        box_xywh: of the object, 0-based pixels.
        seed: of the frames.
    """

    name: str
    image: Path
    box_xywh: NDArray[np.float64]
    seed: int

    def __len__(self) -> int:
        return _FRAMES

    def frame(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """See :class:`~.domains.Domain`."""
        image = read_image(self.image)
        return None if image is None else _changed(image, self.box_xywh, np.random.default_rng((self.seed, number)))


def still_domains(folder: Path, count: int, seed: int) -> tuple[list[StillDomain], list[str]]:
    """Domains of objects in a folder's photographs, one of each photograph, in a random order.

    Args:
        folder: with ``JPEGImages`` and ``Annotations``.
        count: how many are wanted.
        seed: of the choice and of the frames.

    Returns:
        The domains, fewer than wanted if there are not so many, and a line for every photograph that was looked at and
        left out because a file of it cannot be read.

    Raises:
        InputError: there is none.
    """
    annotations = sorted((folder / "Annotations").glob("*.xml"))
    rng = np.random.default_rng(seed)
    domains: list[StillDomain] = []
    left_out: list[str] = []
    for i in rng.permutation(len(annotations)):
        if len(domains) == count:
            break
        path, own = annotations[i], int(rng.integers(2**32))
        photograph = folder / "JPEGImages" / f"{path.stem}.jpg"
        image = read_image(photograph)
        if image is None:
            left_out.append(f"{photograph} cannot be read")
            continue
        try:
            boxes = _boxes(path)
        except (ElementTree.ParseError, OSError, ValueError, LookupError):  # LookupError: an unknown encoding
            left_out.append(f"{path} cannot be read")
            continue
        usable = [box for box in boxes if _is_usable(box, image.shape[1], image.shape[0])]
        if usable:
            box = usable[int(rng.integers(len(usable)))]
            domains.append(StillDomain(f"{path.stem} at {box.round().astype(int).tolist()}", photograph, box, own))
    if not domains:
        raise InputError(f"{str(folder)!r} has no photograph with a usable box: {_LAYOUT}")
    return domains, left_out


def _boxes(path: Path) -> list[NDArray[np.float64]]:
    """x, y, w, h of the objects that are not marked difficult, 0-based.

    VOC's pixels count from 1, and the last one is inside.
    """
    found = []
    for item in ElementTree.parse(path).iterfind("object"):
        if item.findtext("difficult", "0").strip() == "1":
            continue
        names = ("xmin", "ymin", "xmax", "ymax")
        left, top, right, bottom = (float(item.findtext(f"bndbox/{name}", "")) for name in names)
        found.append(np.array([left - 1, top - 1, right - left + 1, bottom - top + 1]))
    return found


def _is_usable(box_xywh: NDArray[np.float64], width: int, height: int) -> bool:
    x, y, w, h = box_xywh
    inside = x >= 0 and y >= 0 and x + w <= width and y + h <= height
    return bool(inside and min(w, h) >= _SMALLEST_SIDE and w * h <= _LARGEST_SHARE * width * height)


def _changed(
    image: NDArray[np.uint8], box_xywh: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The photograph turned about the object's centre, squeezed, lit and blurred, and the object's box in it."""
    turn, squeeze = rng.uniform(-_TURN, _TURN), np.exp(rng.uniform(-_SQUEEZE, _SQUEEZE))
    linear = rotation(turn) @ np.diag([squeeze, 1 / squeeze])
    center = box_xywh[:2] + box_xywh[2:] / 2
    matrix = np.column_stack((linear, center - 0.5 - linear @ (center - 0.5)))
    frame = cv2.warpAffine(image, matrix, image.shape[1::-1], borderValue=tuple(IMAGENET_MEAN))
    if rng.uniform() < _BLURRED_SHARE:
        frame = cv2.GaussianBlur(frame, (0, 0), rng.uniform(*_BLUR))
    light = np.exp(rng.uniform(-_LIGHT, _LIGHT))
    wh = mapped_sides(linear, box_xywh[2:])
    return cv2.convertScaleAbs(frame, alpha=light), np.concatenate((center - wh / 2, wh))  # type: ignore[return-value]
