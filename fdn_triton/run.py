"""Running a tracker over the frames of a sequence: one step per frame, and what the steps add up to."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .frame import check_boxes
from .online import Update
from .sequence import Frame
from .tracker import Tracker

STAGES = ("read", "features", "score", "collect", "update")
OnBadFrame = Literal["stop", "skip"]


@dataclass(frozen=True)
class Step:
    """One frame of a run.

    Attributes:
        number: of the frame, from 1.
        image: uint8 [H, W, 3] RGB; None for a frame that could not be read and was skipped.
        boxes_xywh: [T, 4] float64, 0-based pixels: given on the first frame, the last ones on a skipped frame.
        scores: [T] float64, NaN on the first and on skipped frames.
        updates: [T] what was learnt, None where nothing was.
        problem: why the frame was skipped.
        read_s: seconds spent waiting for the frame.
        track_s: seconds spent in the tracker; a GPU may not have done all of an update by then.
        stages_s: seconds per stage of the tracker; on a GPU of what it has done since the last step.
    """

    number: int
    image: NDArray[np.uint8] | None
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]
    updates: tuple[Update | None, ...]
    problem: str | None
    read_s: float
    track_s: float
    stages_s: dict[str, float]


class BadFrame(InputError):
    """A frame behind the first one that cannot be read."""


def run_tracker(
    tracker: Tracker, frames: Iterable[Frame], boxes_xywh: ArrayLike, on_bad_frame: OnBadFrame = "stop"
) -> Iterator[Step]:
    """Track from the first frame to the last, yielding a step after each.

    Args:
        tracker: any state it has is forgotten.
        frames: in order.
        boxes_xywh: [4] or [T, 4] on the first frame, 0-based pixels.
        on_bad_frame: what a frame that cannot be read does: "stop" raises, "skip" repeats the last boxes.

    Raises:
        InputError: boxes that do not fit the first frame; an unreadable frame (with "skip" only the first one, else
            :class:`BadFrame` for those behind it); a source that breaks off.
    """
    steps = _run(tracker, frames, boxes_xywh, on_bad_frame, in_turns=False)
    return (step for step in steps if step is not None)


def run_in_turns(
    tracker: Tracker, frames: Iterable[Frame], boxes_xywh: ArrayLike, on_bad_frame: OnBadFrame = "stop"
) -> Iterator[Step | None]:
    """As :func:`run_tracker`, in lockstep with the trackers :meth:`~fdn_triton.tracker.Tracker.beside` this one.

    Yields:
        None when the tracker has its next frame: it is the others' turn to take theirs. Then the step.
    """
    return _run(tracker, frames, boxes_xywh, on_bad_frame, in_turns=True)


def _run(
    tracker: Tracker, frames: Iterable[Frame], boxes_xywh: ArrayLike, on_bad_frame: OnBadFrame, in_turns: bool
) -> Iterator[Step | None]:
    iterator = iter(frames)
    boxes = np.empty((0, 4))
    while True:
        started = time.perf_counter()
        frame = next(iterator, None)
        if frame is None:
            return
        read_s = time.perf_counter() - started
        first = len(boxes) == 0
        updates: tuple[Update | None, ...] = (None,) * len(boxes)
        scores = np.full(len(boxes), np.nan)
        stages_s: dict[str, float] = {}
        started = time.perf_counter()
        if frame.image is None:
            if frame.ended:
                raise InputError(f"{frame.problem}: what was tracked is kept, repair the source for the rest")
            if first or on_bad_frame == "stop":
                where = f"frame {frame.number}: {frame.problem}"
                raise InputError(f"{where}: the first frame is needed") if first else BadFrame(f"{where}: repair it")
        elif first:
            boxes = check_boxes(boxes_xywh, frame.image.shape[1], frame.image.shape[0])
            scores = np.full(len(boxes), np.nan)
            updates = tracker.init(frame.image, boxes)
            stages_s = tracker.clock.lap()
        else:
            if in_turns:
                tracker.begin_update(frame.image)
                turned = time.perf_counter()
                yield None
                started += time.perf_counter() - turned  # the others' turns
                result = tracker.finish_update()
            else:
                result = tracker.update(frame.image)
            boxes, scores, updates = result.boxes_xywh, result.scores, result.updates
            stages_s = tracker.clock.lap(wait=False)
        track_s = time.perf_counter() - started
        yield Step(frame.number, frame.image, boxes, scores, updates, frame.problem, read_s, track_s, stages_s)


def decode_threads(device: torch.device) -> int:
    """How many threads decode image files for a tracker on this device: one for a CPU, whose cores track."""
    return 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)


@dataclass
class RunStatistics:
    """Speed and updates of a run. Times are of the frames after the first that were not skipped.

    Attributes:
        boxes_xywh: per frame [T, 4].
        first_frame_s: seconds to learn the first frame, reading left out.
    """

    boxes_xywh: list[NDArray[np.float64]] = field(default_factory=list)
    first_frame_s: float | None = None
    _stages_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _track_s: list[float] = field(default_factory=list)
    _updates: list[Update] = field(default_factory=list)
    _tracking_since: float = 0.0
    _last_frame_at: float = 0.0

    def add(self, step: Step) -> None:
        """Count one step; call it when all that is done with the step's frame is done."""
        self.boxes_xywh.append(step.boxes_xywh)
        self._last_frame_at = time.perf_counter()
        if len(self.boxes_xywh) == 1:
            self.first_frame_s = step.track_s
            self._tracking_since = self._last_frame_at
            return
        if step.image is None:
            return
        self._track_s.append(step.track_s)
        for stage in STAGES:
            self._stages_s[stage].append(step.read_s if stage == "read" else step.stages_s.get(stage, 0.0))
        self._updates += [update for update in step.updates if update is not None]

    @property
    def frames(self) -> int:
        """Frames counted, the first one among them."""
        return len(self.boxes_xywh)

    def tracks(self) -> NDArray[np.float64]:
        """[T, N, 4] boxes of each target, 0-based pixels."""
        return np.stack(self.boxes_xywh, axis=1)

    def fps(self) -> dict[str, float | None]:
        """Frames per second: of the whole loop, and of the tracker alone; None before the second frame."""
        wall_s, track_s = self._last_frame_at - self._tracking_since, sum(self._track_s)
        n = len(self._track_s)
        return {"end_to_end": n / wall_s if n else None, "tracking": n / track_s if n else None}

    def stages_ms(self) -> dict[str, dict[str, float | None]]:
        """Milliseconds a frame of each stage: median and mean."""
        return {
            stage: {
                "median": 1000 * statistics.median(seconds) if (seconds := self._stages_s[stage]) else None,
                "mean": 1000 * statistics.fmean(seconds) if seconds else None,
            }
            for stage in STAGES
        }

    def updates(self) -> dict[str, Any]:
        """Updates after the first frame by kind, and their iterations."""
        return {
            "short": sum(update.kind == "short" for update in self._updates),
            "long": sum(update.kind == "long" for update in self._updates),
            "iterations": sum(update.iterations for update in self._updates),
        }
