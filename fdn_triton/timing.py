"""A clock for the stages of one frame: wall time on a CPU, CUDA events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageClock:
    """Adds up the time of named stages until :meth:`lap` reads and clears it.

    On a GPU a stage is measured between two events in the stream, so that timing does not wait for the device;
    ``lap`` does, once.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the ``with`` block towards the stage."""
        if self._cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((name, start, end))
        else:
            started = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - started)

    def lap(self) -> dict[str, float]:
        """Seconds per stage since the last call."""
        if self._events:
            self._events[-1][2].synchronize()
            for name, start, end in self._events:
                self._add(name, start.elapsed_time(end) / 1000)
            self._events = []
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
