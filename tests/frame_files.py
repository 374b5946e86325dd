"""Files of frames for the tests of sequences: marked or textured images, written, opened and read back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fdn_triton.sequence import Frame, Sequence, open_sequence


def plain(value: int, height: int = 8, width: int = 12) -> np.ndarray:
    """One colour that tells R from B and frames from each other."""
    return np.full((height, width, 3), (value, 40, 200), np.uint8)


def textured(height: int = 120, width: int = 160) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(extension: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(extension, rgb[..., ::-1])[1].tobytes()


def write_images(folder: Path, names: list[str]) -> None:
    """The i-th name, from 1, gets :func:`plain` of i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names, 1):
        (folder / name).write_bytes(encoded(".png", plain(i)))


def values(sequence: Sequence) -> list[int]:
    """The frames' marks, with the numbering checked."""
    frames = list(sequence.frames())
    assert [frame.number for frame in frames] == list(range(1, len(frames) + 1))
    marks = []
    for frame in frames:
        assert frame.problem is None and frame.image is not None
        assert (frame.image[0, 0, 1], frame.image[0, 0, 2]) == (40, 200)
        marks.append(int(frame.image[0, 0, 0]))
    return marks


def only_frame(path: Path) -> Frame:
    sequence = open_sequence(path)
    assert sequence.length == 1
    (frame,) = sequence.frames()
    return frame


def image_of(path: Path) -> np.ndarray:
    frame = only_frame(path)
    assert frame.problem is None and frame.image is not None
    assert frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous
    return frame.image
