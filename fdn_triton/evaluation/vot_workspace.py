"""A workspace of vot-toolkit in a local folder: sequences, results, and their scores, without the network.

The toolkit (extra ``vot``) runs in a process of its own. Its layout: ``config.yaml`` with the experiment,
``trackers.ini``, ``sequences/list.txt``, ``sequences/<name>/{sequence, groundtruth.txt, color/%08d.jpg}``,
``results/<tracker>/baseline/<name>/<name>_001.txt``.
"""

from __future__ import annotations

import filecmp
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..results import unwritable
from ..sequence import IMAGE_EXTENSIONS
from .vot_region import read_regions
from .vot_supervised import RESTART_FRAMES

TRACKER, EXPERIMENT = "FDN", "baseline"
TOOLKIT_VERSION = "0.7.4"
"""The last one on PyPI that runs the reset-based experiment."""

_CONFIG = """\
registry: [./trackers.ini]
sequences: sequences
stack:
  title: reset-based experiment
  experiments:
    {experiment}:
      type: supervised
      repetitions: {repetitions}
      skip_initialize: {restart}
      analyses:
        - {{type: supervised_average_ar}}
        - {{type: supervised_eao_score, low: {low}, high: {high}}}
        - {{type: supervised_eao_curve}}
        - {{type: supervised_ar}}
"""
_TRACKERS = """\
[{tracker}]
label = {tracker}
protocol = trax
command = {command}
env_PYTHONPATH = {place}
timeout = {timeout}
"""
_TIMEOUT_S = 600  # for one frame; the toolkit's own 30 are few for a first frame on a slow CPU
_ANALYSIS = "fdn"
# The toolkit's command line as it is, but it neither asks the network for a newer version, nor takes what it remembers
# of earlier results for these.
_TOOLKIT = """\
from vot import config
from vot.utilities import cli
config.persistent_cache = False
cli.check_updates = lambda: (False, None)
cli.main()
"""


@dataclass(frozen=True, eq=False)
class VotSequence:
    """A sequence as VOT distributes it.

    Attributes:
        name: of its folder.
        images: one per frame.
        regions: one per frame, [4] or [2k].
    """

    name: str
    images: list[Path]
    regions: list[NDArray[np.float64]]


@dataclass(frozen=True)
class Scores:
    """What the toolkit says.

    Attributes:
        accuracy: mean overlap of a run, without the first ten frames of each start (0 where that leaves none);
            averaged over runs, and over sequences weighted by their lengths.
        robustness: failures in a run, averaged in the same way.
        eao: expected average overlap; None where no run held the target for ``eao_range[0]`` frames.
        eao_curve: expected overlap of fragments of 0, 1, 2, ... frames behind the start.
        sequences: name -> accuracy, failures in a run; means over its runs.
    """

    accuracy: float
    robustness: float
    eao: float | None
    eao_curve: list[float]
    sequences: dict[str, tuple[float, float]]


def find_sequences(root: Path, names: Iterable[str] = ()) -> list[str]:
    """The sequences of a folder: those named, else those of its ``list.txt``, else its folders with a ground truth.

    Raises:
        InputError: there are none.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the one that holds VOT's sequences")
    if names := list(dict.fromkeys(names)):
        return names
    listed = root / "list.txt"
    if listed.is_file():
        names = _lines(listed)
    else:
        names = sorted(path.parent.name for path in root.glob("*/groundtruth.txt"))
    if not names:
        raise InputError(f"no sequence in {root}: there is neither list.txt nor NAME/groundtruth.txt")
    return names


def open_vot_sequence(folder: Path) -> VotSequence:
    """Read ``groundtruth.txt``, and list the images in ``color/`` or beside it.

    Raises:
        InputError: it is missing, not understood, lacks a region, or is not as long as the frames.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist")
    regions = read_regions(folder / "groundtruth.txt")
    place = folder / "color" if (folder / "color").is_dir() else folder
    images = [path for path in place.iterdir() if path.suffix[1:].lower() in IMAGE_EXTENSIONS and path.name[0] != "."]
    images.sort(key=lambda path: (len(path.stem), path.name))  # their names are numbers, mostly of eight digits
    if len(images) != len(regions):
        raise InputError(f"{place} has {len(images)} frames, groundtruth.txt {len(regions)} rows: make them equal")
    if len(images) < 2:
        raise InputError(f"{place} has one frame only: there is nothing to track")
    if len({path.suffix for path in images}) > 1:
        raise InputError(f"{place} has images of several formats: vot-toolkit takes one per sequence")
    return VotSequence(folder.name, images, regions)


def write_workspace(
    folder: Path, sequences: Sequence[VotSequence], repetitions: int, eao_range: tuple[int, int]
) -> None:
    """Write all but the results and ``trackers.ini``; images are linked, or copied where links cannot be.

    Args:
        folder: a new one, or an older workspace of the same frames.
        sequences: those to be scored.
        repetitions: of the experiment.
        eao_range: first and last length over which the EAO curve is averaged.

    Raises:
        InputError: it cannot be written, or holds other frames.
    """
    config = _CONFIG.format(
        experiment=EXPERIMENT,
        repetitions=repetitions,
        restart=RESTART_FRAMES,
        low=eao_range[0],
        high=eao_range[1],
    )
    try:
        for sequence in sequences:
            _write_sequence(folder / "sequences" / sequence.name, sequence)
        names = "".join(f"{sequence.name}\n" for sequence in sequences)
        (folder / "sequences" / "list.txt").write_text(names, encoding="utf-8")
        (folder / "config.yaml").write_text(config, encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from None


def write_trackers_ini(path: Path, command: str) -> None:
    """Write the toolkit's entry for this tracker.

    Args:
        path: of the file.
        command: a shell's line that starts the TraX server; the folder that this package lies in is on its path.

    Raises:
        InputError: it cannot be written.
    """
    place = f"{Path(__file__).resolve().parents[2]}{os.pathsep}$PYTHONPATH"
    text = _TRACKERS.format(
        tracker=TRACKER,
        command=command.replace("%", "%%"),  # a lone % is configparser's
        place=place.replace("%", "%%"),
        timeout=_TIMEOUT_S,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from None


def results_folder(folder: Path, name: str) -> Path:
    """Where a workspace has the results of a sequence."""
    return folder / "results" / TRACKER / EXPERIMENT / name


def check_toolkit() -> None:
    """Find out whether the toolkit is installed.

    Raises:
        InputError: it is not, or in a version that does not know the experiment.
    """
    try:
        found: str | None = version("vot-toolkit")
    except PackageNotFoundError:
        found = None
    if found != TOOLKIT_VERSION:
        what = "is not installed" if found is None else f"is installed in version {found}, not {TOOLKIT_VERSION}"
        raise InputError(f"vot-toolkit {what}: pip install 'fdn-triton[vot]'")


def score(folder: Path) -> Scores:
    """Let the toolkit analyse the results in a workspace.

    Raises:
        InputError: it fails; its last line is quoted.
    """
    written = folder / "analysis" / f"{_ANALYSIS}.json"
    written.unlink(missing_ok=True)
    flags = ["analysis", "--workspace", str(folder.resolve()), "--name", _ANALYSIS, TRACKER]
    child = subprocess.run(
        [sys.executable, "-c", _TOOLKIT, *flags], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if child.returncode != 0 or not written.exists():
        lines = re.sub(r"\x1b\[\d*m", "", child.stderr).split("\n")  # its messages are coloured
        said = [line.strip() for line in lines if line.strip()] or [f"exit code {child.returncode}"]
        raise InputError(f"vot-toolkit cannot score {folder}: {said[-1]}")
    average, eao, curve, each = json.loads(written.read_bytes())["results"][EXPERIMENT]["results"]
    names = _lines(folder / "sequences" / "list.txt")
    return Scores(
        accuracy=average[0][0],
        robustness=average[0][1],
        eao=None if math.isnan(eao[0][0]) else eao[0][0],
        eao_curve=curve[0][0],
        sequences={name: (values[0], values[1]) for name, values in zip(names, each, strict=True)},
    )


def eao_range(lengths: Iterable[int]) -> tuple[int, int]:
    """First and last length over which to average the EAO curve, fit to the lengths of the sequences.

    As in the VOT2015 challenge: of a kernel density of the lengths, the interval around the mode that holds half of
    the mass, equally dense at both ends. The kernel's width is Silverman's; VOT's own ranges (108 to 371 for its
    sequences of 2015 and 2016) come from another estimate of it, so comparing with published EAO needs theirs.

    Args:
        lengths: frames of each sequence, at least 2.
    """
    longest = np.array(list(lengths), dtype=np.float64) - 1  # frames behind the start: the curve's abscissa
    spread = min(longest.std(), float(np.subtract(*np.percentile(longest, [75, 25]))) / 1.34)
    width = max(1.0, 0.9 * spread * len(longest) ** -0.2)
    places = np.arange(1, longest.max() + 1)
    density = np.exp(-(((places[:, None] - longest) / width) ** 2) / 2).sum(axis=1)
    low = high = int(density.argmax())
    while density[low : high + 1].sum() < density.sum() / 2:
        if high + 1 == len(density) or (low > 0 and density[low - 1] >= density[high + 1]):
            low -= 1
        else:
            high += 1
    return int(places[low]), int(places[high])


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _write_sequence(folder: Path, sequence: VotSequence) -> None:
    suffix = sequence.images[0].suffix
    color = folder / "color"
    color.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(sequence.images, 1):
        place = color / f"{number:08d}{suffix}"
        if not place.exists():
            try:
                place.symlink_to(image.resolve())
            except OSError:  # Windows lets only some users
                shutil.copy2(image, place)
        elif not filecmp.cmp(image, place):
            raise InputError(f"{place} is there and not {image}: give an empty folder")
    if len(list(color.iterdir())) != len(sequence.images):
        raise InputError(f"{color} holds other frames than {sequence.images[0].parent}: give an empty folder")
    rows = "".join(",".join(map(str, region)) + "\n" for region in sequence.regions)
    (folder / "groundtruth.txt").write_text(rows, encoding="ascii")
    about = f"name={sequence.name}\nfps=30\nformat=default\nchannels.color=color/%08d{suffix}\n"
    (folder / "sequence").write_text(about, encoding="utf-8")
