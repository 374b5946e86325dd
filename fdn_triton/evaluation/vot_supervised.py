"""VOT's reset-based ("supervised") experiment on one sequence: the tracker starts again five frames after a failure.

The rules are those of the VOT challenges 2013 to 2019 (Kristan et al., "A Novel Performance Evaluation Methodology
for Single-Target Trackers", PAMI 2016; the experiment ``supervised`` of vot-toolkit): a frame fails when the result
shares no pixel with the ground truth; the four frames behind it are skipped, and on the fifth the tracker is given the
ground truth; a stochastic tracker is run 15 times. How many frames behind a start count for accuracy (burn-in) is a
matter of scoring.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..frame_source import DecodeAhead, Frame, image_frames
from ..results import unwritable, write_json
from ..tracker import Tracker
from .vot_region import bounding_box, overlaps
from .worker import Settings, difference, fingerprint, reason_of

SKIPPED, STARTED, FAILED = "0", "1", "2"
"""VOT's codes for a frame without a result."""

RESTART_FRAMES = 5
"""Frames from a failure to the next start."""


@dataclass(frozen=True)
class Row:
    """One frame's result: VOT's text of it, and the seconds the tracker took (None on a skipped frame)."""

    text: str
    seconds: float | None


def track_with_resets(
    tracker: Tracker, frames: Iterable[Frame], regions: Sequence[NDArray[np.float64]]
) -> Iterator[Row]:
    """Track a sequence, starting again after each failure; a row per frame.

    Args:
        tracker: any state it has is forgotten.
        frames: all of the sequence.
        regions: of each frame, [4] or [2k].

    Raises:
        InputError: a frame that is needed cannot be read, or a region to start from lies outside its frame.
    """
    start_at = 0
    for index, (frame, region) in enumerate(zip(frames, regions, strict=True)):
        if index < start_at:
            yield Row(SKIPPED, None)
            continue
        if frame.image is None:
            raise InputError(f"frame {frame.number}: {frame.problem}: repair it")
        started = time.perf_counter()
        if index == start_at:
            try:
                tracker.init(frame.image, bounding_box(region))
            except InputError as error:
                raise InputError(f"frame {frame.number}: {error}") from None
            yield Row(STARTED, time.perf_counter() - started)
            continue
        box_xywh = tracker.update(frame.image).boxes_xywh[0]
        seconds = time.perf_counter() - started
        if overlaps(box_xywh, region, (frame.image.shape[1], frame.image.shape[0])):
            yield Row(",".join(f"{number:.4f}" for number in box_xywh), seconds)
        else:
            start_at = index + RESTART_FRAMES
            yield Row(FAILED, seconds)


@dataclass(frozen=True)
class Counts:
    """What came of one run.

    Attributes:
        failures: how often the target was lost.
        updates: frames tracked; those that the tracker started from are left out.
        seconds: that the tracker took for them.
        settings: the :func:`~fdn_triton.evaluation.worker.fingerprint` of the run.
    """

    failures: int
    updates: int
    seconds: float
    settings: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Repetition:
    """One run of the experiment on one sequence.

    Its files are VOT's ``<sequence>_<number>.txt`` (a row per frame) and ``<sequence>_<number>_time.value`` (seconds
    per frame), and then a JSON that says what they belong to: without it, a run that was killed counts as not done.

    Attributes:
        sequence: its name.
        images: its frames.
        regions: of each frame.
        number: from 1.
        seed: of every random draw.
        folder: of the sequence's results.
    """

    sequence: str
    images: Sequence[Path]
    regions: Sequence[NDArray[np.float64]]
    number: int
    seed: int
    folder: Path

    @property
    def frames(self) -> int:
        """How many it takes."""
        return len(self.images)

    def path(self, suffix: str) -> Path:
        """Of one of its files."""
        return self.folder / f"{self.sequence}_{self.number:03d}{suffix}"

    def run(self, settings: Settings, tracker: Tracker) -> Iterator[int]:
        """Track, and write the files.

        Yields:
            The number of frames since the last time.

        Raises:
            InputError: as :func:`track_with_resets`, or a file cannot be written.
        """
        rows: list[Row] = []
        with DecodeAhead(image_frames(self.images)) as frames:
            for row in track_with_resets(tracker, frames, self.regions):
                rows.append(row)
                yield 1
        text = "".join(f"{row.text}\n" for row in rows)
        seconds = "".join("\n" if row.seconds is None else f"{row.seconds:.6f}\n" for row in rows)
        updates = [row.seconds for row in rows if row.text not in (SKIPPED, STARTED) and row.seconds is not None]
        outcome = Counts(
            failures=sum(row.text == FAILED for row in rows),
            updates=len(updates),
            seconds=sum(updates),
            settings=fingerprint(settings.config, tracker.weights, tracker.device.type),
        )
        checksum = hashlib.sha256(text.encode()).hexdigest()
        record = {"run": self._identity(), "text_sha256": checksum, **asdict(outcome)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path(".json").unlink(missing_ok=True)
            self.path(".txt").write_text(text, encoding="ascii")
            self.path("_time.value").write_text(seconds, encoding="ascii")
        except OSError as error:
            raise unwritable(self.path(".txt"), error) from None
        write_json(self.path(".json"), record)

    def failed(self, error: Exception, out: Path) -> str:
        """Why, on one line; nothing is left on disk, and what fails in each repetition is said once."""
        return f"{self.sequence}: {reason_of(error)}"

    def read(self, settings: dict[str, Any] | None = None) -> Counts | None:
        """What an earlier run left; None if nothing.

        Args:
            settings: the :func:`~fdn_triton.evaluation.worker.fingerprint` that it must have; None takes any.

        Raises:
            InputError: it is damaged or of another run; one line says which.
        """
        path = self.path(".json")
        try:
            record = json.loads(path.read_bytes())
            outcome = Counts(**{field.name: record[field.name] for field in fields(Counts)})
            run, checksum = record["run"], record["text_sha256"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"{path} is damaged") from None
        if run != self._identity():
            raise InputError(f"{path} is of other frames, of another ground truth or of another seed")
        if settings is not None and outcome.settings != settings:
            raise InputError(f"{path} was made with other settings: {difference(outcome.settings, settings)}")
        try:
            text = self.path(".txt").read_bytes()
        except OSError:
            text = b""
        if hashlib.sha256(text).hexdigest() != checksum:
            raise InputError(f"{self.path('.txt')} is missing or was changed after it was written")
        return outcome

    def _identity(self) -> dict[str, Any]:
        regions = "\n".join(",".join(map(str, region)) for region in self.regions)
        return {
            "sequence": self.sequence,
            "repetition": self.number,
            "seed": self.seed,
            "frames": len(self.images),
            "regions_sha256": hashlib.sha256(regions.encode()).hexdigest(),
        }
