"""The unit of an evaluation's work, one run of the tracker, and what it leaves on disk.

A unit is one start on one target with one seed. Its files under ``OUT/results/seed<K>/<part>/`` are ``<sequence>.txt``,
OTB's text rows, and then ``<sequence>.json`` with what belongs to them. Each appears whole or not at all, and the
rows count only with the JSON that names their checksum: a run that is killed leaves the unit done or undone. A unit
that fails leaves a JSON with the reason.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import report
from ..errors import InputError
from ..frame_source import DecodeAhead, image_frames
from ..results import unwritable
from ..run import RunStatistics, decode_threads, run_in_turns, run_tracker
from ..tracker import Tracker
from .otb import Entry
from .profiles import Profile
from .protocols import Part, ProtocolName, parts
from .published import read_results
from .worker import Settings, difference, fingerprint, reason_of

_PROGRESS_S = 0.5


@dataclass(frozen=True)
class Unit:
    """One run of the tracker.

    Attributes:
        entry: sequence and target.
        part: where it starts and with which box.
        frames: how many it takes from there.
        seed: of every random draw.
    """

    entry: Entry
    part: Part
    frames: int
    seed: int

    def __str__(self) -> str:
        return f"{self.entry.name} ({self.part.name}, seed {self.seed})"

    def path(self, out: Path, suffix: str) -> Path:
        """Its file in the folder of an evaluation."""
        return out / "results" / f"seed{self.seed}" / self.part.name / f"{self.sequence}{suffix}"

    @property
    def sequence(self) -> str:
        """Canonical name."""
        return self.entry.name

    def run(self, settings: Settings, tracker: Tracker) -> Iterator[int]:
        """Track, and write the files.

        Yields:
            The number of frames since the last time, after the first frame, then about twice a second and at the end;
            in lockstep before each update, when the tracker has its frame.

        Raises:
            InputError: the images are not those of the plan or cannot be read, the box lies outside, or a file cannot
                be written.
        """
        in_turns, statistics = settings.lockstep > 1, RunStatistics()
        first = self.part.first_frame
        images = self.entry.image_paths()[first : first + self.frames]
        if len(images) != self.frames:
            raise InputError(f"{self.entry.folder} has {first + len(images)} images, no longer {first + self.frames}")
        reported, reported_at = 0, -math.inf
        decoded = image_frames(images, max(1, decode_threads(tracker.device) // settings.lockstep))
        run = run_in_turns if in_turns else run_tracker
        with DecodeAhead(decoded) as frames:
            for step in run(tracker, frames, self.part.box_xywh):
                if step is not None:
                    statistics.add(step)
                if step is None if in_turns else time.monotonic() - reported_at > _PROGRESS_S:
                    yield statistics.frames - reported
                    reported, reported_at = statistics.frames, time.monotonic()
        rows = "".join(f"{x + 1:.4f},{y + 1:.4f},{w:.4f},{h:.4f}\n" for x, y, w, h in statistics.tracks()[0])
        record = {
            "unit": self.identity(),
            "settings": fingerprint(settings.config, tracker.weights, tracker.device.type),
            "boxes_sha256": hashlib.sha256(rows.encode()).hexdigest(),
            **report.summarise(tracker, statistics, self.sequence, settings.preset, None),
            **({"lockstep": settings.lockstep} if in_turns else {}),
        }
        _write(self.path(settings.out, ".txt"), rows)
        _write(self.path(settings.out, ".json"), json.dumps(record, indent=2))
        yield statistics.frames - reported

    def failed(self, error: Exception, out: Path) -> str:
        """Leave the reason on disk, in place of what an earlier run may have left, and say it on one line."""
        reason = reason_of(error)
        record = {"unit": self.identity(), "error": reason, "traceback": traceback.format_exception(error)}
        try:
            _write(self.path(out, ".json"), json.dumps(record, indent=2))
            self.path(out, ".txt").unlink(missing_ok=True)
        except (InputError, OSError):  # the folder cannot be written, which may be the very reason
            pass
        return f"{self} failed: {reason}"

    def identity(self) -> dict[str, Any]:
        """What tells it from other units, as JSON gives it back."""
        return {
            "sequence": self.sequence,
            "part": self.part.name,
            "first_frame": self.part.first_frame,
            "box_xywh": list(self.part.box_xywh),
            "frames": self.frames,
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class Task:
    """One target of one sequence under a protocol.

    Attributes:
        entry: sequence and target.
        first_frame: the first one that is used, 0-based.
        truth_xywh: [N, 4] of the frames that are used, 0-based pixels, NaN where there is no valid box.
        annotated: frames that the sequence has in all.
        units: all runs.
    """

    entry: Entry
    first_frame: int
    truth_xywh: NDArray[np.float64]
    annotated: int
    units: list[Unit]


@dataclass(frozen=True, eq=False)
class Run:
    """A unit's result as it lies on disk.

    Attributes:
        boxes_xywh: [N, 4], 0-based pixels.
        fps: frames per second of the whole loop; None for a single frame.
        stages_ms: mean milliseconds a frame of each stage; empty for a single frame.
        updates: short, long, iterations.
        settings: the :func:`fingerprint` it was made with.
        about: preset, weights, device, versions, for the reader.
    """

    boxes_xywh: NDArray[np.float64]
    fps: float | None
    stages_ms: dict[str, float]
    updates: dict[str, int]
    settings: dict[str, Any]
    about: dict[str, str]


def plan(
    entries: Iterable[Entry],
    protocol: ProtocolName,
    seeds: Sequence[int],
    profile: Profile,
    max_frames: int | None = None,
) -> tuple[list[Task], list[str]]:
    """The tasks of an evaluation, and a line for each sequence that cannot be used."""
    tasks, problems = [], []
    for entry in entries:
        first = profile.omitted.get(entry.name, 0)
        try:
            truth = entry.open().ground_truth
            assert truth is not None  # Entry.open refuses a sequence without
            used = truth[0, first:][:max_frames]
            starts = [replace(part, first_frame=first + part.first_frame) for part in parts(protocol, used)]
        except InputError as error:
            problems.append(f"{entry.name}: {error}")
            continue
        end = first + len(used)
        units = [Unit(entry, part, end - part.first_frame, seed) for seed in seeds for part in starts]
        tasks.append(Task(entry, first, used, len(truth[0]), units))
    return tasks, problems


def read_run(unit: Unit, out: Path, settings: dict[str, Any] | None = None) -> Run | None:
    """What an earlier run left of the unit; None if nothing.

    Args:
        unit: which.
        out: folder of the evaluation.
        settings: the :func:`fingerprint` that it must have; None takes any.

    Raises:
        InputError: it failed, is damaged, or is of another run; one line says which.
    """
    path, text = unit.path(out, ".json"), unit.path(out, ".txt")
    try:
        record = json.loads(path.read_bytes())
        found_unit, error = record["unit"], record.get("error")
        run = None if error else _run(record)
        whole = error or hashlib.sha256(text.read_bytes()).hexdigest() == record["boxes_sha256"]
    except FileNotFoundError as missing:
        if missing.filename == str(path):
            return None
        raise InputError(f"{text} is missing beside {path.name}") from None
    except OSError as unreadable:
        raise InputError(f"{unreadable.filename} cannot be read: {unreadable.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path} is damaged") from None
    if found_unit != unit.identity():
        raise InputError(f"{path} is of a run over other frames or from another box")
    if run is None:
        raise InputError(f"{unit} failed: {error}")
    if settings is not None and run.settings != settings:
        raise InputError(f"{path} was made with other settings: {difference(run.settings, settings)}")
    if not whole:
        raise InputError(f"{text} was changed after it was written")
    return replace(run, boxes_xywh=read_results(text))


def _run(record: dict[str, Any]) -> Run:
    """The record as a run without its boxes; KeyError and others where it is not whole."""
    versions = {name: str(version) for name, version in record["versions"].items()}
    settings = {**record["settings"]}
    return Run(
        boxes_xywh=np.empty((0, 4)),
        fps=None if record["fps"]["end_to_end"] is None else float(record["fps"]["end_to_end"]),
        stages_ms={stage: float(ms["mean"]) for stage, ms in record["stages_ms"].items() if ms["mean"] is not None},
        updates={kind: int(count) for kind, count in record["updates"].items()},
        settings=settings,
        about={
            "preset": str(record["preset"]),
            "weights": f"{record['weights']['name']} (sha256 {record['weights']['sha256'][:12]})",
            "device": str(record["device"]),
            "cpu": f"{record['cpu']['name']}, {record['cpu']['threads']} of {record['cpu']['cores']} cores",
            "date": str(record["date"]),
            **versions,
            **({"lockstep": f"{record['lockstep']} runs share the time"} if "lockstep" in record else {}),
        },
    )


def _write(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
