"""What a run leaves behind: boxes as text, a JSON summary, a video with the boxes drawn in.

Rows of boxes reach the disk frame by frame, so that whatever ends the run, what was tracked is kept.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError

_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
_COLORS = ((255, 64, 64), (64, 160, 255), (64, 220, 96), (255, 200, 32), (200, 96, 255), (32, 220, 220))
_TRUTH_COLOR = (255, 255, 255)


class BoxWriter:
    """Writes one ``x,y,w,h`` row a frame and target, at once; one file per target.

    Args:
        path: of the file; of several targets, target k goes to ``stem.k.suffix`` as in OTB.
        targets: T.
        one_based: count pixels from 1 (OTB's convention) instead of 0.

    Raises:
        InputError: a file cannot be written.
    """

    def __init__(self, path: Path, targets: int, one_based: bool) -> None:
        if not path.name:
            raise InputError(f"cannot write {path}: it is a folder: give the path of a file")
        self.paths = [path] if targets == 1 else [numbered(path, k + 1) for k in range(targets)]
        for target_path in self.paths:
            check_writable(target_path)  # all of them, before the first one is emptied
        self._offset = 1.0 if one_based else 0.0
        self._files: list[TextIO] = []
        try:
            for target_path in self.paths:
                self._files.append(target_path.open("w", encoding="ascii"))
        except OSError as error:
            self.close()
            raise unwritable(path, error) from None

    def write(self, boxes_xywh: NDArray[np.float64]) -> None:
        """Append [T, 4] boxes in 0-based pixels.

        Raises:
            InputError: a file cannot be written any more, such as on a full disk.
        """
        for path, file, (x, y, w, h) in zip(self.paths, self._files, boxes_xywh, strict=True):
            try:
                file.write(f"{x + self._offset:.4f},{y + self._offset:.4f},{w:.4f},{h:.4f}\n")
                file.flush()
            except OSError as error:
                raise unwritable(path, error) from None

    def close(self) -> None:
        for file in self._files:
            with suppress(OSError):  # of a row that could not be written: write has said so
                file.close()

    def __enter__(self) -> BoxWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def numbered(path: Path, target: int) -> Path:
    """``dir/name.txt`` -> ``dir/name.2.txt``: the file of one target of several."""
    return path.with_name(f"{path.stem}.{target}{path.suffix}")


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for an output path that cannot be written."""
    reason = error.strerror or error
    return InputError(f"cannot write {path}: {reason}: give a path in a folder where files may be written")


def check_writable(path: Path) -> None:
    """Find out now whether a file can be written at ``path``, before hours of work depend on it.

    Raises:
        InputError: it cannot.
    """
    try:
        existed = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise unwritable(path, error) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON file whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        if path.exists() and not path.is_file():  # /dev/stdout, which must not be replaced by a file
            path.write_text(text, encoding="utf-8")
            return
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                file.write(text)
                file.close()
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise unwritable(path, error) from None


def draw_boxes(
    image: NDArray[np.uint8],
    boxes_xywh: NDArray[np.float64],
    truth_xywh: NDArray[np.float64] | None = None,
    label: str = "",
) -> NDArray[np.uint8]:
    """A copy of the RGB image with results in colours, ground truth in thin white, and a label in the corner."""
    canvas = np.ascontiguousarray(image).copy()
    thickness = max(1, round(min(canvas.shape[:2]) / 200))
    if truth_xywh is not None:
        for box in truth_xywh[np.isfinite(truth_xywh).all(axis=1)]:
            _rectangle(canvas, box, _TRUTH_COLOR, 1)
    for k, box in enumerate(boxes_xywh):
        _rectangle(canvas, box, _COLORS[k % len(_COLORS)], thickness)
    if label:
        size = max(0.4, min(canvas.shape[:2]) / 600)
        origin = (8, round(28 * size) + 4)
        for color, width in (((0, 0, 0), thickness + 2), ((255, 255, 255), thickness)):
            cv2.putText(canvas, label, origin, cv2.FONT_HERSHEY_SIMPLEX, size, color, width, cv2.LINE_AA)
    return canvas


def _rectangle(canvas: NDArray[np.uint8], box_xywh: Sequence[float], color: Sequence[int], thickness: int) -> None:
    # OpenCV draws with 32-bit coordinates; nothing is lost by cutting boxes far outside.
    x, y, w, h = box_xywh
    corners = np.clip([x, y, x + w, y + h], -32_000, 32_000).round().astype(int).tolist()
    cv2.rectangle(canvas, tuple(corners[:2]), tuple(corners[2:]), tuple(color), thickness)


class OverlayVideo:
    """A video file of the frames given to :meth:`write`; the first one fixes its size, others are scaled to it.

    Args:
        path: its suffix chooses the container: .mp4, .m4v, .mov, .avi or .mkv.
        fps: of the video.

    Raises:
        InputError: unknown suffix, or the path cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise InputError(f"cannot tell the video format of {path}: end its name in one of {', '.join(_CODECS)}")
        check_writable(path)
        self.path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append an RGB frame.

        Raises:
            InputError: this build of OpenCV cannot encode the format.
        """
        if self._writer is None:
            self._size = (image.shape[1], image.shape[0])
            code = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), code, self._fps, self._size)
            if not self._writer.isOpened():
                raise InputError(f"OpenCV cannot encode {self.path}: try a name ending in .avi")
        frame = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if (image.shape[1], image.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(frame)

    def close(self) -> None:
        """Finish the file; without it a video cannot be played."""
        if self._writer is not None:
            self._writer.release()

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
