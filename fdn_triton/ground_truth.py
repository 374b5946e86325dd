"""Annotation files: one box per line, in the text formats of the public benchmarks.

Inside the package a box is ``x, y, w, h`` in 0-based pixels; OTB files count pixels from 1 and are converted
here. A frame without a usable box is a row of NaN, so that row *i* always belongs to frame *i*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .errors import InputError

# A comma and the blanks around it are one separator: two commas in a row leave an empty number, an error.
_SEPARATOR = re.compile(r"\s*,\s*|\s+")

_NO_BOX = (np.nan,) * 4


def read_otb_boxes(path: str | Path) -> np.ndarray:
    """The boxes of an OTB file: rows of four numbers ``x, y, w, h``, 1-based, between commas, tabs or spaces.

    Args:
        path: the text file, UTF-8. A byte order mark, CRLF and blank lines at the end are fine. A blank line
            with rows behind it is an error: it may be a frame without a box or a slip that shifts all rows
            behind it.

    Returns:
        float64 [N, 4] ``x, y, w, h``, 0-based pixels (x and y are 1 less than in the file); NaN in rows that
        hold a number that is not finite, or a width or height that is not above 0.

    Raises:
        InputError: the file cannot be read, is empty, or a line is not four numbers (the line is named).
    """
    path = Path(path)
    boxes_xywh = np.array([_otb_row(path, number, line) for number, line in _lines(path)], dtype=np.float64)
    boxes_xywh[:, :2] -= 1
    return _without_empty(boxes_xywh)


def read_vot_boxes(path: str | Path) -> np.ndarray:
    """The boxes of a ``groundtruth.txt`` as VOT, LaSOT and GOT-10k have it: boxes or polygons, 0-based.

    Four numbers are ``x, y, w, h``; six or a greater even number are the corners ``x1, y1, x2, y2, ...`` of a
    polygon, whose axis-aligned bounding box is taken; one number alone is VOT's code for a frame without a
    region.

    Args:
        path: the text file, see :func:`read_otb_boxes`.

    Returns:
        float64 [N, 4] ``x, y, w, h``, 0-based pixels; NaN as in :func:`read_otb_boxes`.

    Raises:
        InputError: the file cannot be read, is empty, or a line is none of the above (the line is named);
            masks (rows that begin with ``m``) are not supported.
    """
    path = Path(path)
    boxes_xywh = np.array([_vot_row(path, number, line) for number, line in _lines(path)], dtype=np.float64)
    return _without_empty(boxes_xywh)


def stack_targets(boxes_xywh: Iterable[np.ndarray]) -> np.ndarray:
    """The boxes of T >= 1 targets, each [N_t, 4] -> float64 [T, max N_t, 4], NaN behind the shorter ones."""
    targets = list(boxes_xywh)
    stacked = np.full((len(targets), max(len(boxes) for boxes in targets), 4), np.nan)
    for row, boxes in zip(stacked, targets, strict=True):
        row[: len(boxes)] = boxes
    return stacked


def _lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a file, from 1, without the blank ones at its end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}: check the file and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file: save the boxes as plain text, a row per frame") from error
    lines = text.rstrip().split("\n")
    if lines == [""]:
        raise InputError(f"{path} is empty: write one row x,y,w,h per frame, or remove the file")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}, line {number}: blank line: delete it, or write NaN,NaN,NaN,NaN for no box")
    return list(enumerate(lines, 1))


def _numbers(path: Path, number: int, line: str) -> list[float]:
    values = []
    for word in _SEPARATOR.split(line.strip().removesuffix(",").rstrip()):
        try:
            values.append(float(word))
        except ValueError:
            what = f"{word!r} is not a number" if word else "a number is missing between two separators"
            raise InputError(f"{path}, line {number}: {what}: write numbers separated by comma, tab or space") from None
    return values


def _otb_row(path: Path, number: int, line: str) -> tuple[float, ...]:
    values = _numbers(path, number, line)
    if len(values) != 4:
        raise InputError(f"{path}, line {number}: {_counted(len(values), 'number')}: write four, x,y,w,h")
    return tuple(values)


def _vot_row(path: Path, number: int, line: str) -> tuple[float, ...]:
    if line.lstrip().startswith("m"):
        raise InputError(
            f"{path}, line {number}: the target is given as a mask, which is not supported: convert the "
            "annotation to boxes x,y,w,h or to polygons x1,y1,x2,y2,..."
        )
    values = _numbers(path, number, line)
    if len(values) == 4:
        return tuple(values)
    if len(values) == 1:
        return _NO_BOX
    if len(values) % 2 or len(values) < 6:
        raise InputError(
            f"{path}, line {number}: {_counted(len(values), 'number')}: write four, x,y,w,h, or the corners "
            "of a polygon, x1,y1,x2,y2,... (three or more)"
        )
    x, y = values[0::2], values[1::2]
    if not np.isfinite(values).all():  # min() and max() of a list with NaN depend on its order
        return _NO_BOX
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def _without_empty(boxes_xywh: np.ndarray) -> np.ndarray:
    usable = np.isfinite(boxes_xywh).all(axis=1) & (boxes_xywh[:, 2:] > 0).all(axis=1)
    boxes_xywh[~usable] = np.nan
    return boxes_xywh


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
