"""Domains: videos with a box in every frame, read from the folders of the public benchmarks (paper 3.3).

OTB, VOT, GOT-10k and LaSOT folders are understood, one sequence or a folder of many. A target of a sequence is a
domain. Frames without a box, and those that GOT-10k and LaSOT mark as absent or hidden, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..sequence import Sequence, open_sequence
from .images import decoded

_FEWEST_FRAMES = 5
_SMALLEST_SIDE = 4.0  # pixels
_HIDDEN = ("absence.label", "full_occlusion.txt", "out_of_view.txt")  # a 1 where the target is not seen
_LISTS = {"list.txt"}


class Domain(Protocol):
    """A target in a video."""

    @property
    def name(self) -> str:
        """For messages."""

    def __len__(self) -> int:
        """Frames that show it."""

    def frame(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """RGB [H, W, 3] and the box x, y, w, h, 0-based pixels; None where the frame cannot be read."""


@dataclass(frozen=True, eq=False)
class VideoDomain:
    """A domain of image files.

    Attributes:
        name: of the sequence; with ``.k`` behind it for its k-th target.
        images: the frames' files.
        boxes_xywh: [F, 4] float64, 0-based pixels.
    """

    name: str
    images: tuple[Path, ...]
    boxes_xywh: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    def frame(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
        """See :class:`Domain`."""
        try:
            image = decoded(self.images[number].read_bytes())
        except OSError:
            return None
        return None if image is None else (image, self.boxes_xywh[number])


def read_domains(places: Iterable[Path]) -> tuple[list[VideoDomain], list[str]]:
    """The domains of sequence folders, or of folders of such.

    Returns:
        The domains in the order of their folders, and a line for everything that was left out, with the reason.

    Raises:
        InputError: a place does not exist, or there is no domain at all.
    """
    domains: list[VideoDomain] = []
    left_out: list[str] = []
    for place in places:
        for folder in _sequence_folders(place):
            try:
                sequence = open_sequence(folder)
            except InputError as error:
                left_out.append(f"{folder.name}: {error}")
                continue
            found, problems = _targets(sequence, folder)
            domains += found
            left_out += problems
    if not domains:
        places_text = ", ".join(map(str, places))
        raise InputError(
            f"no annotated sequence in {places_text}: give folders in OTB's, VOT's, GOT-10k's or LaSOT's layout"
        )
    return domains, left_out


def _targets(sequence: Sequence, folder: Path) -> tuple[list[VideoDomain], list[str]]:
    if sequence.ground_truth is None or not sequence.images:
        return [], [f"{sequence.name}: no ground truth beside its images"]
    n = min(len(sequence.images), sequence.ground_truth.shape[1])
    seen = _seen(folder, n)
    domains, left_out = [], []
    for i, boxes in enumerate(sequence.ground_truth[:, :n], start=1):
        name = sequence.name if len(sequence.ground_truth) == 1 else f"{sequence.name}.{i}"
        usable = np.isfinite(boxes).all(axis=1) & seen
        usable[usable] &= (boxes[usable, 2:] >= _SMALLEST_SIDE).all(axis=1)
        if usable.sum() < _FEWEST_FRAMES:
            left_out.append(f"{name}: {usable.sum()} frames with a usable box, {_FEWEST_FRAMES} are needed")
            continue
        images = tuple(image for image, use in zip(sequence.images, usable, strict=False) if use)
        domains.append(VideoDomain(name, images, boxes[usable]))
        if dropped := n - int(usable.sum()):
            left_out.append(f"{name}: {dropped} of {n} frames without a usable box")
    return domains, left_out


def _seen(folder: Path, frames: int) -> NDArray[np.bool_]:
    """Frames in which the target is visible; LaSOT's flags are one row, GOT-10k's one a line."""
    seen = np.ones(frames, dtype=bool)
    for name in _HIDDEN:
        path = folder / name
        if path.is_file():
            flags = path.read_text(encoding="utf-8", errors="replace").replace(",", " ").split()[:frames]
            seen[: len(flags)] &= np.array([flag == "0" for flag in flags], dtype=bool)
    return seen


def _sequence_folders(place: Path) -> list[Path]:
    if not place.is_dir():
        raise InputError(f"{str(place)!r} is no folder: give sequences in OTB's, VOT's, GOT-10k's or LaSOT's layout")
    if _is_sequence(place):
        return [place]
    folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = []
    for folder in folders:
        if _is_sequence(folder):
            found.append(folder)
        else:  # LaSOT groups its sequences by class
            found += sorted(path for path in folder.iterdir() if path.is_dir() and _is_sequence(path))
    return found


def _is_sequence(folder: Path) -> bool:
    return any(folder.glob("groundtruth*.txt"))
