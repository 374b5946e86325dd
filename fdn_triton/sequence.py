"""Sequences: benchmark folders, plain images, video files and cameras, with their ground truth.

:func:`open_sequence` and :func:`open_camera` check what can be checked without decoding everything, so that a
mistake shows before tracking begins; :meth:`Sequence.frames` then yields every frame in order.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from .errors import InputError
from .frame_source import DecodeAhead, Frame, camera_frames, image_frames, open_capture, stated, video_frames
from .ground_truth import read_otb_boxes, read_vot_boxes, stack_targets

__all__ = [
    "IMAGE_EXTENSIONS",
    "OTB_FRAME_RANGES",
    "DecodeAhead",
    "Frame",
    "Sequence",
    "open_camera",
    "open_sequence",
]

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "ppm", "pgm", "pbm", "jp2")
"""What counts as an image, in upper or lower case; other files beside the images are ignored."""

OTB_FRAME_RANGES = {
    "david": (300, 770),
    "diving": (1, 215),
    "football1": (1, 74),
    "freeman3": (1, 460),
    "freeman4": (1, 283),
    "tiger1": (6, 354),
}
"""First and last image of the OTB sequences that are annotated in part only."""

_IMAGE_FOLDERS = ("img", "color")
_USABLE = "give a folder of images, an OTB or VOT folder, a quoted glob pattern, an image or a video file"


@dataclass(frozen=True, eq=False)
class Sequence:
    """A source of frames and what is known about it."""

    name: str
    length: int | None
    """Frames; None for a camera or where unknown. Exact for images; for a video the count that its file
    states, which some containers only estimate."""
    ground_truth: np.ndarray | None
    """float64 [T, N, 4] ``x, y, w, h`` of T targets, 0-based pixels; row 0 belongs to frame 1. NaN where a
    target has no box. N may differ from ``length`` (then there is a note). None without annotation."""
    one_based: bool
    """Whether result files of this sequence count pixels from 1, as its annotation does (OTB)."""
    notes: tuple[str, ...]
    """Remarks for the user, one line each."""
    fps: float | None
    """Frames a second, of a video or camera that states it."""
    source: Callable[[], Iterator[Frame]] = field(repr=False)
    """Opens the frames anew."""
    images: tuple[Path, ...] = field(default=(), repr=False)
    """Files of the frames; none for a video or a camera."""

    def frames(self, threads: int = 1) -> Iterator[Frame]:
        """All frames in order, from the first one on each call.

        Each is decoded when it is asked for, or, where there are several threads and the frames are image files, ahead:
        see :func:`image_frames`. A video that ends well before the count it states, and a camera that stops, yield a
        last frame without an image that says so.
        """
        return image_frames(self.images, threads) if self.images and threads > 1 else self.source()


def open_sequence(path: str | Path, max_frames: int | None = None) -> Sequence:
    """Opens images, with or without ground truth, or a video file.

    ``path`` is one of

    * an OTB folder: ``img/`` and ``groundtruth_rect*.txt``, each such file a target, in natural order. Of the
      sequences in :data:`OTB_FRAME_RANGES` only that range is used where there are more images than rows;
    * a VOT, LaSOT or GOT-10k folder: ``groundtruth.txt`` and images in ``color/``, in ``img/`` or beside it;
    * a folder of images, or of a subfolder ``img`` or ``color`` that holds them;
    * a glob pattern (``*``, ``?``, ``[``; ``**`` for any depth): the images among the files it matches;
    * an image file or a video file.

    Images are used in natural order (``img2`` before ``img10``).

    Args:
        path: as above; ``~`` is not expanded.
        max_frames: use only the first so many frames and rows of the ground truth; None uses all.

    Raises:
        InputError: there is nothing to track at ``path``, it cannot be read, its ground truth is not
            understood, or ``max_frames`` is below 1. (A single image that cannot be read is a
            :attr:`Frame.problem`.)
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames is {max_frames}: it must be at least 1")
    if not str(path).strip():
        raise InputError(f"the path of the sequence is empty: {_USABLE}")
    try:
        # A folder that really has a bracket in its name comes before the pattern.
        if glob.has_magic(str(path)) and not os.path.lexists(path):
            return _open_glob(str(path), max_frames)
        # os.stat, for Path.is_dir may take a missing permission for a missing folder.
        if stat.S_ISDIR(os.stat(path).st_mode):
            return _open_folder(Path(path), max_frames)
        if _is_image_name(Path(path).name):
            return _image_sequence(Path(path).stem, [Path(path)], max_frames)
        return _open_video(Path(path), max_frames)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: {_USABLE}") from error
    except OSError as error:
        raise InputError(
            f"{error.filename or path} cannot be read: {error.strerror}: check the path and its permissions"
        ) from error


def open_camera(index: int) -> Sequence:
    """Opens a camera by its number, 0 for the first one.

    It is opened for a check and again by :meth:`Sequence.frames`, so that it is not held in between.

    Raises:
        InputError: there is no such camera, or it is in use.
    """
    capture = open_capture(index) if index >= 0 else None
    if capture is None:
        raise InputError(
            f"camera {index} cannot be opened: connect it, close other programs that use it, or try another "
            "number (0 is the first camera)"
        )
    fps = stated(capture, cv2.CAP_PROP_FPS)
    capture.release()
    return Sequence(
        name=f"camera{index}",
        length=None,
        ground_truth=None,
        one_based=False,
        notes=(),
        fps=fps,
        source=lambda: camera_frames(index),
    )


def _open_folder(folder: Path, max_frames: int | None) -> Sequence:
    images: list[Path] = []
    for place in (*(folder / name for name in _IMAGE_FOLDERS), folder):
        if place.is_dir() and (images := _images_in(place)):
            break
    if not images:
        raise InputError(f"no images (.{', .'.join(IMAGE_EXTENSIONS)}) in {folder}: {_USABLE}")
    name = _folder_name(folder)

    otb_name = re.compile(r"groundtruth_rect.*\.txt", re.IGNORECASE)
    otb_files = sorted((file for file in folder.iterdir() if otb_name.fullmatch(file.name)), key=_natural_order)
    if otb_files:
        annotation = {file: read_otb_boxes(file) for file in otb_files}
        images, notes = _annotated_range(name, images, max(len(boxes) for boxes in annotation.values()))
        return _image_sequence(name, images, max_frames, annotation, one_based=True, notes=notes)
    vot_file = folder / "groundtruth.txt"
    if vot_file.exists():
        return _image_sequence(name, images, max_frames, {vot_file: read_vot_boxes(vot_file)})
    return _image_sequence(name, images, max_frames)


def _open_glob(pattern: str, max_frames: int | None) -> Sequence:
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
    images = sorted((path for path in matches if _is_image(path)), key=_natural_order)
    if not images:
        found = f"matches no image, only {len(matches)} other paths" if matches else "matches nothing"
        raise InputError(f"{pattern} {found}: check the pattern, it should look like 'frames/*.jpg'")
    return _image_sequence(_folder_name(images[0].parent), images, max_frames)


def _open_video(path: Path, max_frames: int | None) -> Sequence:
    capture = open_capture(path)
    if capture is None:
        raise InputError(f"{path} is not a video that OpenCV can open, nor an image by its name: {_USABLE}")
    try:
        if not capture.read()[0]:
            raise InputError(f"no frame of {path} can be decoded: convert it to H.264 in MP4, or to images")
        count, fps = stated(capture, cv2.CAP_PROP_FRAME_COUNT), stated(capture, cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    frames = None if count is None else int(count)
    return Sequence(
        name=path.stem,
        length=frames if frames is None or max_frames is None else min(frames, max_frames),
        ground_truth=None,
        one_based=False,
        notes=(),
        fps=fps,
        source=lambda: video_frames(path, frames, max_frames),
    )


def _image_sequence(
    name: str,
    images: list[Path],
    max_frames: int | None,
    annotation: dict[Path, np.ndarray] | None = None,
    one_based: bool = False,
    notes: tuple[str, ...] = (),
) -> Sequence:
    """A sequence of image files; ``annotation`` has a file and its boxes [N_t, 4] per target."""
    images = images[:max_frames]
    targets = []
    for file, boxes_xywh in (annotation or {}).items():
        targets.append(boxes_xywh[:max_frames])
        rows, frames = len(targets[-1]), len(images)
        if rows < frames:
            notes += (f"{file.name} has fewer rows ({rows}) than frames ({frames}): scored over the rows there are",)
        elif rows > frames:
            notes += (f"{file.name} has more rows ({rows}) than frames ({frames}): the last rows are not used",)
    return Sequence(
        name=name,
        length=len(images),
        ground_truth=stack_targets(targets) if targets else None,
        one_based=one_based,
        notes=notes,
        fps=None,
        source=lambda: image_frames(images),
        images=tuple(images),
    )


def _annotated_range(name: str, images: list[Path], rows: int) -> tuple[list[Path], tuple[str, ...]]:
    """The images that OTB annotates, and a note where they are not all."""
    if name.casefold() not in OTB_FRAME_RANGES or len(images) <= rows:
        return images, ()
    first, last = OTB_FRAME_RANGES[name.casefold()]
    if all(re.fullmatch("[0-9]+", path.stem) for path in images):
        chosen = [path for path in images if first <= int(path.stem) <= last]
    else:
        chosen = images[first - 1 : last]
    # A copy with other frame numbers lacks a part of the range; cutting it would misalign the rows.
    if len(chosen) != last - first + 1:
        return images, ()
    return chosen, (f"frames {first}-{last} of {len(images)} images used: the part of {name} that OTB annotates",)


def _images_in(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if _is_image(path)), key=_natural_order)


def _is_image(path: Path) -> bool:
    # A link that leads nowhere counts: as a frame that cannot be read it does not shift the frames behind it.
    return _is_image_name(path.name) and not path.is_dir()


def _is_image_name(name: str) -> bool:
    # Hidden files are not frames: macOS puts a "._0001.jpg" beside each file on foreign disks.
    return not name.startswith(".") and Path(name).suffix[1:].lower() in IMAGE_EXTENSIONS


def _natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """Sort key: digits compare as numbers and letters without case, folder by folder."""
    parts = (re.split("([0-9]+)", part.casefold()) for part in path.parts)
    return [[int(word) if i % 2 else word for i, word in enumerate(part)] for part in parts], str(path)


def _folder_name(folder: Path) -> str:
    folder = Path(os.path.abspath(folder))  # "." and ".." have no name of their own
    return folder.parent.name if folder.name in _IMAGE_FOLDERS and folder.parent.name else folder.name
