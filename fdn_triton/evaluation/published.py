"""Results of trackers as their authors and the benchmarks' toolkits publish them: one text file a sequence.

All have rows ``x, y, w, h`` between commas, tabs or spaces, in the convention of the ground truth, which for OTB counts
pixels from 1. They differ in the separator and in what sequences with several targets are called, see :data:`LAYOUTS`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..results import unwritable
from .attributes import OTB_ATTRIBUTES
from .otb import canonical_name


@dataclass(frozen=True)
class Layout:
    """How a toolkit writes results, ``TRACKER/SEQUENCE.txt`` in its folder.

    Attributes:
        separator: between numbers.
        before_target: what stands before the number of a target: ``Jogging-1``, ``Jogging.1``.
        human4: its name for OTB's Human4.
    """

    separator: str
    before_target: str
    human4: str


LAYOUTS: dict[str, Layout] = {
    "otb": Layout(",", "-", "Human4"),
    "pysot": Layout(",", "-", "Human4-2"),
    "got10k": Layout(",", ".", "Human4"),
    "pytracking": Layout("\t", "_", "Human4_2"),
}
"""By toolkit; pytracking's TRACKER is a folder ``tracker/parameters``."""


def read_results(path: str | Path) -> NDArray[np.float64]:
    """The boxes of a result file of any layout.

    Returns:
        float64 [N, 4] ``x, y, w, h``, 0-based pixels (x and y are 1 less than in the file); NaN and sizes that are not
        above 0 stay as they are.

    Raises:
        InputError: the file cannot be read, is empty, or its rows are not four numbers.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}: check the file and its permissions") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a UTF-8 text file: results are text, a row x,y,w,h a frame") from None
    if not text.strip():
        raise InputError(f"{path} is empty: results are text, a row x,y,w,h a frame")
    try:
        boxes_xywh = np.loadtxt(io.StringIO(text.replace(",", " ")), comments=None, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path} is not a table of boxes: {str(error).partition(';')[0]}") from None
    if boxes_xywh.shape[1] != 4:
        raise InputError(f"{path} has {boxes_xywh.shape[1]} numbers a row: results have four, x,y,w,h")
    boxes_xywh[:, :2] -= 1
    return boxes_xywh


def find_trackers(folder: str | Path) -> dict[str, dict[str, Path]]:
    """The published results in a folder.

    Each folder in it, at any depth, that holds text files is a tracker's: ``MDNet/David.txt``,
    ``dimp/dimp50_000/David.txt``. Without any such folder the folder itself is a tracker's. Files of times,
    ``David_time.txt``, are passed over.

    Returns:
        Tracker -> canonical name of a sequence -> its file, both by name. A tracker is called as its folder, or as the
        way to it (``dimp/dimp50_000``). Of several files of one sequence that with the canonical name is taken. A
        folder beside others that holds no text file is a tracker without sequences.

    Raises:
        InputError: the folder does not exist or holds no results.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: results lie in it as TRACKER/SEQUENCE.txt")
    paths = [path for path in folder.rglob("*.txt") if path.is_file() and not path.stem.endswith("_time")]
    inside = [path for path in paths if path.parent != folder]
    trackers: dict[str, dict[str, Path]] = {}
    for path in sorted(inside or paths, key=lambda path: (path.stem != canonical_name(path.stem), path)):
        name = path.parent.relative_to(folder).as_posix() if inside else folder.resolve().name
        trackers.setdefault(name, {}).setdefault(canonical_name(path.stem), path)
    if not trackers:
        raise InputError(f"there are no results in {folder}: they lie in it as TRACKER/SEQUENCE.txt")
    if inside:
        for path in folder.iterdir():
            if path.is_dir() and path.name[0] != "." and not any(path in file.parents for file in inside):
                trackers[path.name] = {}
    return {name: dict(sorted(trackers[name].items())) for name in sorted(trackers, key=str.casefold)}


def result_path(folder: str | Path, tracker: str, sequence: str, layout: Layout) -> Path:
    """The file of a sequence, given by its canonical name."""
    if sequence == "Human4":
        sequence = layout.human4
    elif sequence in OTB_ATTRIBUTES:
        sequence = sequence.replace("-", layout.before_target)
    return Path(folder) / tracker / f"{sequence}.txt"


def write_results(path: Path, boxes_xywh: NDArray[np.float64], layout: Layout) -> None:
    """Write [N, 4] boxes in 0-based pixels to a file that counts from 1.

    pytracking itself cuts numbers to whole pixels; here they keep four digits, which it reads as well.

    Raises:
        InputError: the file cannot be written.
    """
    rows = (layout.separator.join(f"{number:.4f}" for number in row) for row in boxes_xywh + (1, 1, 0, 0))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{row}\n" for row in rows), encoding="ascii")
    except OSError as error:
        raise unwritable(path, error) from None
