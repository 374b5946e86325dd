"""Labelled images in memory: a folder or a zip archive with one folder per class.

The class is the topmost folder in which images differ; folders below it do not count (tiny-imagenet's
``train/<class>/images/*.JPEG``). Every image is scaled so that its short side has the wanted length, and cropped
around its centre.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..frame_source import decode_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})
_HELD_BACK_OF = 25  # one image of so many
_WANTED = "give a folder or zip of CLASS/IMAGE.jpg with two classes or more"


@dataclass(frozen=True)
class LabelledImages:
    """Images of equal size and their classes.

    Attributes:
        pixels: [N, 3, side, side] uint8, RGB.
        labels: [N] int64.
        classes: names of the classes.
        unreadable: files that are no images or damaged, left out.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    unreadable: tuple[str, ...]

    def split(self) -> tuple[LabelledImages, LabelledImages]:
        """The images to train on and those held back, every 25th of them in the order of the classes."""
        order = torch.argsort(self.labels, stable=True)
        held_back = torch.zeros(len(self.labels), dtype=torch.bool)
        held_back[order[_HELD_BACK_OF - 1 :: _HELD_BACK_OF]] = True
        train, rest = (
            LabelledImages(self.pixels[chosen], self.labels[chosen], self.classes, ())
            for chosen in (~held_back, held_back)
        )
        return train, rest


def read_labelled_images(
    path: Path, side: int, report: Callable[[int, int], object] = lambda done, of: None
) -> LabelledImages:
    """Read a folder or zip archive of class folders.

    Args:
        path: of the folder or archive.
        side: pixels, of the images in memory.
        report: called with how many files are read, and of how many, as it goes.

    Raises:
        InputError: there is no such place, or fewer than two classes with an image in it, or too few images to hold
            some back.
    """
    names, read = _zip_reader(path) if zipfile.is_zipfile(path) else _folder_reader(path)
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    depth = (
        len(PurePosixPath(os.path.commonpath(["root/" + "/".join(part) for part in parts])).parts) - 1 if parts else 0
    )
    classes = sorted({part[depth] for part in parts if len(part) > depth})
    if len(classes) < 2:
        raise InputError(f"{str(path)!r} has fewer than two folders with images: {_WANTED}")
    number = {name: i for i, name in enumerate(classes)}
    pixels = torch.empty((len(names), 3, side, side), dtype=torch.uint8)
    labels: list[int] = []
    unreadable: list[str] = []
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        image = decode_image(read(name))[0] if len(part) > depth else None
        if image is None:
            unreadable.append(name)
        else:
            pixels[len(labels)] = torch.from_numpy(_square(image, side)).permute(2, 0, 1)
            labels.append(number[part[depth]])
        report(i + 1, len(names))
    if len(set(labels)) < 2:
        raise InputError(f"{str(path)!r}: no images of two classes can be read, of {len(names)}: {_WANTED}")
    if len(labels) < 2 * _HELD_BACK_OF:
        raise InputError(
            f"{str(path)!r} has {len(labels)} readable images ({len(unreadable)} cannot be read): give at least "
            f"{2 * _HELD_BACK_OF}"
        )
    return LabelledImages(pixels[: len(labels)], torch.tensor(labels), tuple(classes), tuple(unreadable))


def read_image(path: Path) -> NDArray[np.uint8] | None:
    """RGB [H, W, 3] of an image file; None where it cannot be read."""
    try:
        return decode_image(path.read_bytes())[0]
    except OSError:
        return None


def _square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    scale = side / min(height, width)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)  # type: ignore[assignment]
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _zip_reader(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}): get the archive again") from None
    names = sorted(name for name in archive.namelist() if _is_image(name))

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError):  # RuntimeError: encrypted
            return b""

    return names, read


def _folder_reader(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is neither a folder nor a zip archive: {_WANTED}")

    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError:
            return b""

    return sorted(_relative_images(path)), read


def _relative_images(path: Path) -> Iterator[str]:
    for folder, _, files in os.walk(path, followlinks=True):
        inside = Path(folder).relative_to(path)
        yield from ((inside / name).as_posix() for name in files if _is_image(name))


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.parts[0] != "__MACOSX"
