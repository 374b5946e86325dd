"""A clock for the stages of one frame: wall time on a CPU, CUDA events on a GPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MOST_PENDING = 64  # stages whose time nobody has read


class StageClock:
    """Adds up the time of named stages until :meth:`lap` reads and clears it.

    On a GPU a stage is measured between two events in the stream, so that timing does not wait for the device;
    ``lap`` does, once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: deque[tuple[str, float, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._free: list[torch.cuda.Event] = []

    @contextmanager
    def stage(self, name: str, share: float = 1.0) -> Iterator[None]:
        """Count the time of the ``with`` block, or the share of it, towards the stage."""
        if self._cuda:
            if len(self._events) >= _MOST_PENDING:
                self._fold(wait=False)
            start, end = (self._free.pop() if self._free else torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            self._events.append((name, share, start, end))
        else:
            started = time.perf_counter()
            yield
            self._add(name, share * (time.perf_counter() - started))

    def lap(self, wait: bool = True) -> dict[str, float]:
        """Seconds per stage since the last call; without waiting, of those stages that a GPU has done."""
        self._fold(wait=wait)
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _fold(self, wait: bool) -> None:
        """Turn events into seconds: those that the device has passed, or all."""
        if wait and self._events:
            self._events[-1][3].synchronize()
        while self._events and self._events[0][3].query():
            name, share, start, end = self._events.popleft()
            self._add(name, share * start.elapsed_time(end) / 1000)
            self._free += start, end

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
