"""What the tests of training train on: images of three colours, pieces of the embedded clip, a trunk to start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fdn_triton.training.trunk import TrainableTrunk
from fdn_triton.weights import IMAGENET_MEAN, NetworkWeights, save_weights

_CLASSIFY = "--image-side 24 --batch 12 --epochs 2 --learning-rate 0.02 --device cpu"
_DOMAINS = "--window 96 --frames 2 --positives 4 --negatives 12 --target-size-min 30 --target-size-max 40 --device cpu"
CLASSIFY_FLAGS, DOMAINS_FLAGS = _CLASSIFY.split(), _DOMAINS.split()


def class_folders(root: Path, each: int = 25) -> Path:
    """``root/<colour>/images/<i>.jpg``: noise about three colours."""
    rng = np.random.default_rng(0)
    for name, bgr in {"blue": (200, 60, 60), "green": (60, 200, 60), "red": (60, 60, 200)}.items():
        (root / name / "images").mkdir(parents=True)
        for i in range(each):
            image = np.clip(rng.normal(bgr, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / name / f"images/{i:02d}.jpg"), image)
    return root


def video_folders(root: Path, names: tuple[str, ...] = ("first", "second"), frames: int = 10) -> Path:
    """OTB-like folders, a part of the clip each."""
    from small_otb import add_sequence

    for i, name in enumerate(names):
        add_sequence(root, name, 1 + 15 * i, frames)
    return root


def start_weights(path: Path) -> Path:
    """Random convolutions with the activations that training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = TrainableTrunk().eval()
        with torch.no_grad():
            scale = 10 / float(trunk(50 * torch.randn(1, 3, 96, 96)).std())
    save_weights(path, NetworkWeights(path.name, trunk.folded(), IMAGENET_MEAN, scale, None, None, "for a test", ""))
    return path


def photograph(root: Path, name: str, *boxes: tuple[int, int, int, int], difficult: bool = False) -> None:
    """VOC's files of a photograph of 240x180: a red ellipse in each box on grey noise.

    Boxes are left, top, right, bottom, counted from 1, the last pixel inside.
    """
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(90, 130, (180, 240, 1), dtype=np.uint8).repeat(3, axis=2)
    objects = ""
    for left, top, right, bottom in boxes:
        center, axes = ((left + right) / 2 - 1, (top + bottom) / 2 - 1), (right - left + 1, bottom - top + 1)
        cv2.ellipse(image, (center, axes, 0), (0, 0, 255), -1)
        values = zip(("xmin", "ymin", "xmax", "ymax"), (left, top, right, bottom), strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in values)
        objects += f"<object><difficult>{int(difficult)}</difficult><bndbox>{box}</bndbox></object>"
    cv2.imwrite(str(root / f"JPEGImages/{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")


class PaintedDomain:
    """A domain without files: a bright square on noise; it remembers which frames were asked for."""

    def __init__(self, name: str = "painted", frames: int = 15, readable: bool = True) -> None:
        self.name, self._frames, self._readable = name, frames, readable
        self.asked: set[int] = set()

    def __len__(self) -> int:
        return self._frames

    def frame(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """A square of 40 pixels, two further to the right in every frame."""
        self.asked.add(number)
        if not self._readable:
            return None
        image = np.random.default_rng(number).integers(0, 90, (120, 160, 3), dtype=np.uint8)
        left = 40 + 2 * number
        image[40:80, left : left + 40] = (250, 200, 40)
        return image, np.array([left, 40, 40, 40], dtype=np.float64)


def bounding_box(mask: NDArray[np.bool_]) -> Iterator[int]:
    """x, y, w, h of the true pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    yield from (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
