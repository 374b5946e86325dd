"""Frames from image files, videos and cameras, and decoding ahead in threads.

A frame that cannot be read does not end a sequence of images: it comes without an image and with the reason,
so that frame *i* always belongs to row *i* of the ground truth.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import cv2
import numpy as np

from .errors import InputError


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a sequence."""

    number: int
    """1 for the first frame of the sequence as tracked."""
    image: np.ndarray | None
    """uint8 [H, W, 3], RGB, contiguous; None where it could not be read."""
    problem: str | None = None
    """Where the image is None: why, on one line, with the name of the file."""
    ended: bool = False
    """Where the image is None: the source broke off here, there is nothing behind it to go on with."""


# Image files


def image_frames(paths: Iterable[Path], threads: int = 1) -> Iterator[Frame]:
    """One frame per image file, in the given order; grey, 16-bit and transparent images become 8-bit RGB.

    Args:
        paths: of the files.
        threads: files decoded at the same time. With several, up to twice as many are decoded ahead, from the moment
            that the first frame is asked for until the iterator is closed.

    Raises:
        InputError: ``threads`` is below 1.
    """
    if threads < 1:
        raise InputError(f"threads is {threads}: it must be at least 1")
    numbered = enumerate(paths, 1)
    if threads == 1:
        return (_read_image(*item) for item in numbered)
    return _read_in_threads(numbered, threads)


def _read_in_threads(numbered: Iterator[tuple[int, Path]], threads: int) -> Iterator[Frame]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        waiting = deque(pool.submit(_read_image, *item) for item in islice(numbered, 2 * threads))
        while waiting:
            frame = waiting.popleft().result()
            waiting.extend(pool.submit(_read_image, *item) for item in islice(numbered, 1))
            yield frame
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read_image(number: int, path: Path) -> Frame:
    try:
        # Not cv2.imread: it has no reason to give, and on Windows no Unicode paths.
        image, problem = decode_image(path.read_bytes())
    except OSError as error:
        return Frame(number, None, f"{path} cannot be read: {error.strerror}")
    return Frame(number, image, None if problem is None else f"{path} {problem}")


def decode_image(data: bytes) -> tuple[np.ndarray | None, str | None]:
    """The image in the content of a file, uint8 RGB [H, W, 3], and None; or None and what is wrong with it."""
    if not data:
        return None, "is empty"
    if _is_truncated(data):
        return None, "is truncated"
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # some damaged headers raise, others give None
        image = None
    if image is None:
        return None, "is damaged, not an image, or of an unsupported pixel type"
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end, which decoders may replace by grey without a word."""
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    # To the scan of the image itself: a thumbnail in a segment before it has an end marker of its own. Behind
    # the scan no data looks like a marker, and cameras append videos there, so the first end marker counts.
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        if data[position + 1 : position + 2] == b"\xff":  # a fill byte
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data.find(b"\xff\xd9", position) < 0


# Videos and cameras

_log_lock = threading.Lock()
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")  # zip, gzip, 7z, rar


def open_capture(source: Path | int) -> cv2.VideoCapture | None:
    """The video file or camera opened, or None where that fails."""
    # FFmpeg would open a text file, too, and draw it as the screens of a terminal, and find pictures in an archive.
    if isinstance(source, Path) and _is_text_or_archive(source):
        return None
    with _log_lock:  # the log level belongs to the process; OpenCV prints a page about each back end that fails
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        except cv2.error:
            return None
        finally:
            cv2.utils.logging.setLogLevel(level)
    if capture.isOpened():
        return capture
    capture.release()
    return None


def stated(capture: cv2.VideoCapture, prop: int) -> float | None:
    """A property that is above 0, or None: back ends give 0, -1 or NaN for what they do not know."""
    value = capture.get(prop)
    return value if math.isfinite(value) and value > 0 else None


def video_frames(path: Path, count: int | None, max_frames: int | None) -> Iterator[Frame]:
    """The frames of a video, ``max_frames`` at most.

    A last frame without an image says so where the video ends well before the ``count`` that its file states.
    """
    number = 0
    for image in _captured(path):
        number += 1
        yield Frame(number, image)
        if number == max_frames:
            return
    # Containers may estimate their count: only what no estimate explains is reported.
    if count is not None and count - number > max(2, 0.01 * count):
        yield Frame(number + 1, None, f"{path} ends early: {number} of {count} frames could be read", ended=True)


def camera_frames(index: int) -> Iterator[Frame]:
    """The frames of a camera until it fails, then one without an image that says so."""
    number = 0
    for image in _captured(index):
        number += 1
        yield Frame(number, image)
    yield Frame(number + 1, None, f"camera {index} gives no more frames", ended=True)


def _captured(source: Path | int) -> Iterator[np.ndarray]:
    """RGB images until reading fails; none where the source cannot be opened (any more)."""
    try:
        capture = open_capture(source)
    except OSError:
        return
    if capture is None:
        return
    try:
        while True:
            ok, image = capture.read()
            if not ok:
                return
            yield _to_rgb(image)
    finally:
        capture.release()


def _to_rgb(image: np.ndarray) -> np.ndarray:
    """What a capture gives, uint8 BGR or from some back ends grey or BGRA -> contiguous RGB."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return cv2.cvtColor(image, codes[channels])


def _is_text_or_archive(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(_ARCHIVES):
        return True
    if b"\0" in head or head.startswith(b"YUV4MPEG2"):  # the one video format whose beginning is text
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


# Decoding ahead

_Item = TypeVar("_Item")


class DecodeAhead(Generic[_Item]):
    """Iterates over ``items`` in a thread of its own, some of them ahead of the consumer.

    ::

        with DecodeAhead(sequence.frames()) as frames:
            for frame in frames:
                ...

    Order is kept; an exception of the source is raised in the consumer, behind the items before it. The
    source is iterated and closed in the thread only (closing releases a video or camera).

    Args:
        items: the source, such as :meth:`Sequence.frames`.
        depth: items that wait for the consumer, at most; one more may be in the making.

    Raises:
        InputError: ``depth`` is below 1.
    """

    def __init__(self, items: Iterable[_Item], depth: int = 4) -> None:
        if depth < 1:
            raise InputError(f"depth is {depth}: it must be at least 1")
        # An entry is (item,), an exception, or None for the end.
        self._queue: queue.Queue[tuple[_Item] | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        # The thread does not hold self, so that a forgotten DecodeAhead is collected and ends its thread.
        self._thread = threading.Thread(
            target=_decode, args=(items, self._queue, self._stop), name="decode-ahead", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> DecodeAhead[_Item]:
        return self

    def __next__(self) -> _Item:
        entry = None if self._stop.is_set() else self._queue.get()
        if isinstance(entry, tuple) and not self._stop.is_set():
            return entry[0]
        self.close()
        if isinstance(entry, BaseException):
            raise entry
        raise StopIteration

    def close(self, timeout: float = 5.0) -> None:
        """Ends the thread and drops what it decoded; iterating ends, and later calls do nothing.

        Args:
            timeout: seconds to wait for a read that is under way. A source that hangs for longer, such as a
                camera that was pulled out, is left to its thread, which does not keep the process alive.
        """
        self._end()
        self._thread.join(timeout)

    def _end(self) -> None:
        self._stop.set()
        # Room for a thread that waits to put: it looks at the event before it reads another item.
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def __enter__(self) -> DecodeAhead[_Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_stop"):  # not after a refused depth
            self._end()


def _decode(
    items: Iterable[_Item],
    results: queue.Queue[tuple[_Item] | BaseException | None],
    stop: threading.Event,
) -> None:
    end: BaseException | None = None
    try:
        with contextlib.ExitStack() as stack:
            iterator = iter(items)
            if hasattr(iterator, "close"):
                stack.callback(iterator.close)
            for item in iterator:
                results.put((item,))
                if stop.is_set():
                    break
    except BaseException as error:  # whatever it is, a consumer waits for it
        end = error
    if stop.is_set():
        # Nobody empties a full queue any more; at an empty one a consumer may wait.
        with contextlib.suppress(queue.Full):
            results.put_nowait(None)
    else:
        results.put(end)
