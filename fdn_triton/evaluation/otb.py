"""The sequences of the Online Tracking Benchmark: which belong to which list, how they are named, where they lie.

A *canonical name* is the one of the benchmark's web page, with ``-1`` or ``-2`` behind it where a sequence has several
targets: ``David``, ``Jogging-1``. ``Human4`` is the second of its two targets; the first was never annotated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..frame_source import image_frames
from ..ground_truth import read_otb_boxes, stack_targets
from ..sequence import IMAGE_EXTENSIONS, OTB_FRAME_RANGES
from ..sequence import Sequence as Video
from .attributes import OTB_ATTRIBUTES

_OTB50 = """
    Basketball Biker Bird1 BlurBody BlurCar2 BlurFace BlurOwl Bolt Box Car1 Car4 CarDark CarScale ClifBar Couple Crowds
    David Deer Diving DragonBaby Dudek Football Freeman4 Girl Human3 Human4 Human6 Human9 Ironman Jump Jumping Liquor
    Matrix MotorRolling Panda RedTeam Shaking Singer2 Skating1 Skating2-1 Skating2-2 Skiing Soccer Surfer Sylvester
    Tiger2 Trellis Walking Walking2 Woman
"""
_OTB2013 = """
    Basketball Bolt Boy Car4 CarDark CarScale Coke Couple Crossing David David2 David3 Deer Dog1 Doll Dudek FaceOcc1
    FaceOcc2 Fish FleetFace Football Football1 Freeman1 Freeman3 Freeman4 Girl Ironman Jogging-1 Jogging-2 Jumping
    Lemming Liquor Matrix Mhyang MotorRolling MountainBike Shaking Singer1 Singer2 Skating1 Skiing Soccer Subway Suv
    Sylvester Tiger1 Tiger2 Trellis Walking Walking2 Woman
"""

OTB_LISTS: dict[str, tuple[str, ...]] = {
    "otb2013": tuple(_OTB2013.split()),
    "otb50": tuple(_OTB50.split()),
    "otb100": tuple(OTB_ATTRIBUTES),
}
"""The canonical names of OTB-2013 (51 targets of 50 videos), OTB-50 (the harder half of OTB-100) and OTB-100."""

_ANNOTATION = re.compile(r"groundtruth_rect(?:\.([0-9]+))?\.txt", re.IGNORECASE)
_EMPTY_BYTES = 6  # a box takes more: "1 1 1 1"
_LAYOUT = "a benchmark is a folder with one folder a sequence, which holds img/ and groundtruth_rect.txt"


@dataclass(frozen=True)
class Entry:
    """One target of a sequence in a benchmark's folder; what is in there is read by its methods only.

    Attributes:
        name: canonical.
        folder: holds ``img/`` and the annotation.
        target: k of ``groundtruth_rect.k.txt``; None for ``groundtruth_rect.txt``.
    """

    name: str
    folder: Path
    target: int | None

    def open(self) -> Video:
        """The annotated frames, with the ground truth [1, N, 4] of this target.

        Raises:
            InputError: the folder or its annotation is missing or cannot be read, or there are not as many images as
                annotated frames.
        """
        images, annotation = self.image_paths(), self._annotation()
        truth = read_otb_boxes(annotation)
        if len(images) != len(truth):
            raise InputError(
                f"{self.folder} has {len(images)} images, {annotation.name} {len(truth)} rows: get the sequence again"
            )
        return Video(
            name=self.name,
            length=len(images),
            ground_truth=stack_targets([truth]),
            one_based=True,
            notes=(),
            fps=None,
            source=lambda: image_frames(images),
        )

    def image_paths(self) -> list[Path]:
        """The images of the annotated frames, in order.

        Of the sequences in :data:`~fdn_triton.sequence.OTB_FRAME_RANGES` a full download has more images than that.

        Raises:
            InputError: the folder is missing or cannot be read.
        """
        images = sorted(
            (path for path in _files(self.folder / "img") if path.suffix[1:].lower() in IMAGE_EXTENSIONS),
            key=lambda path: (len(path.stem), path.stem),  # 2.jpg before 10.jpg
        )
        first, last = OTB_FRAME_RANGES.get(self.name.casefold(), (1, 0))  # no part, which has no rows
        rows = len(read_otb_boxes(self._annotation()))
        return images[first - 1 : last] if len(images) > rows == last - first + 1 else images

    def _annotation(self) -> Path:
        for number, path in _annotations(self.folder):
            if number == self.target:
                return path
        what = "groundtruth_rect.txt" if self.target is None else f"groundtruth_rect.{self.target}.txt"
        raise InputError(f"there is no {what} with boxes in {self.folder}: get the sequence again")


def canonical_name(name: str) -> str:
    """``jogging_1``, ``Jogging.1`` or ``Jogging_groundtruth_rect.1`` -> ``Jogging-1``; other than OTB's names stay."""
    return _CANONICAL.get(_key(name), name)


def open_dataset(root: str | Path, names: Iterable[str] | None = None) -> list[Entry]:
    """The sequences in a benchmark's folder.

    ``Jogging`` and ``Skating2`` have two targets, in one folder with ``groundtruth_rect.1.txt`` and
    ``groundtruth_rect.2.txt`` or in two, ``Jogging-1`` and ``Jogging-2``.

    Args:
        root: the folder.
        names: of sequences, in any spelling that :func:`canonical_name` knows; ``Jogging`` stands for both targets.
            None for all that are there.

    Returns:
        In the order of ``names``, each once; else by name. What is missing is an entry, too: its :meth:`Entry.open`
        says so.

    Raises:
        InputError: the folder does not exist, cannot be read, or holds no sequence.
    """
    root = Path(root)
    found = {_key(entry.name): entry for folder in _folders(root) for entry in _entries(folder)}
    if not found:
        raise InputError(f"there are no sequences in {root}: {_LAYOUT}")
    if names is None:
        return sorted(found.values(), key=lambda entry: entry.name.casefold())
    chosen: list[Entry] = []
    for name in map(canonical_name, names):
        numbered = re.compile(f"{re.escape(name)}-[0-9]+", re.IGNORECASE)
        targets = [entry for entry in found.values() if numbered.fullmatch(entry.name)]
        chosen += [found[_key(name)]] if _key(name) in found else targets or [Entry(name, root / name, None)]
    return list(dict.fromkeys(chosen))


def chosen_names(list_: str | None, names: Sequence[str]) -> Sequence[str] | None:
    """The sequences that a command's ``--list`` and ``--sequences`` ask for; None: all there are.

    Args:
        list_: a key of :data:`OTB_LISTS`, a text file with a name a line, or None.
        names: given one by one.

    Raises:
        InputError: both are given, or the list cannot be read or is empty.
    """
    if list_ is None:
        return names or None
    if names:
        raise InputError("--sequences and --list are both given: the names can come from one of them")
    if list_ in OTB_LISTS:
        return OTB_LISTS[list_]
    try:
        lines = Path(list_).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        known = ", ".join(OTB_LISTS)
        raise InputError(f"--list {list_}: {reason}: give {known}, or a file with a name a line") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"--list {list_} has no names: write one a line")
    return found


def _key(name: str) -> str:
    """What all spellings of a name have in common."""
    return re.sub("groundtruth|rect|[^a-z0-9]", "", name.casefold())


_CANONICAL = {_key(name): name for name in OTB_LISTS["otb100"]} | {"human42": "Human4"}


def _entries(folder: Path) -> list[Entry]:
    """The targets of a sequence's folder; of one without annotation a single one that cannot be opened."""
    annotations = _annotations(folder)
    name = canonical_name(folder.name)
    own = re.search("-([0-9]+)$", name)
    # A folder with several targets may have been copied for each of them.
    if own and len(annotations) > 1 and int(own[1]) in dict(annotations):
        return [Entry(name, folder, int(own[1]))]
    if len(annotations) > 1:
        return [Entry(canonical_name(f"{name}-{k}" if k else name), folder, k) for k, _ in annotations]
    target = annotations[0][0] if annotations else None
    if target and (numbered := canonical_name(f"{name}-{target}")) in OTB_ATTRIBUTES:
        name = numbered
    return [Entry(name, folder, target)]


def _annotations(folder: Path) -> list[tuple[int | None, Path]]:
    """The annotation files and their numbers; without empty ones, such as the first of OTB's Human4."""
    found = [
        (int(match[1]) if match[1] else None, path)
        for path in _files(folder)
        if (match := _ANNOTATION.fullmatch(path.name)) and path.is_file() and path.stat().st_size > _EMPTY_BYTES
    ]
    return sorted(found, key=lambda target: target[0] or 0)


def _folders(root: Path) -> list[Path]:
    """The folders of sequences in a benchmark's folder."""
    return [path for path in _files(root) if (path / "img").is_dir() or (path.is_dir() and _annotations(path))]


def _files(folder: Path) -> list[Path]:
    """What is in a folder, without hidden files, by name."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise InputError(f"{folder} does not exist: {_LAYOUT}") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}: {_LAYOUT}") from None
