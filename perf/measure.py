"""How long a call takes: on a GPU by CUDA graph replay, on a CPU by the clock.

A call that is repeated on one input measures the cache. So the callers hand over one call for each of several input
sets, as many as it takes to pass the cache (``sets_needed``), and the calls take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

Call = Callable[[], Any]

SAMPLES = 30
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
MARKS = {"graph": "", "events": " e", "clock": " c"}
"""What tables write behind a time, by its method."""
_WARM_UP = 3  # samples that are thrown away
_SAMPLE_MS = 1.0  # work in one sample: enough that the queue of the next replay stays ahead of the device
_CALLS_PER_GRAPH = 2000
_MAX_SETS = 64


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of samples, microseconds."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, samples_us: Sequence[float]) -> Spread:
        """Of two samples or more."""
        lower, median, upper = statistics.quantiles(samples_us, n=4, method="inclusive")
        return cls(median, lower, upper)


@dataclass(frozen=True)
class Times:
    """What one call takes.

    Attributes:
        device: the device's own time; on a CPU the same as wall.
        wall: from the call on an idle device until its result is there.
        method: "graph" (CUDA graph replay), "events" (CUDA events around eager calls: launch gaps are included) or
            "clock".
    """

    device: Spread
    wall: Spread
    method: str


def sets_needed(input_bytes: int, device: torch.device) -> int:
    """Input sets of this size that together are twice the GPU's L2 cache, at most 64; 2 on a CPU."""
    if device.type != "cuda":
        return 2
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(_MAX_SETS, max(1, -(-2 * cache // input_bytes)))


def measure(calls: Sequence[Call], device: torch.device, samples: int = SAMPLES, capture: bool = True) -> Times:
    """Median and quartiles of one call's time.

    Args:
        calls: the same operation on different inputs; on a GPU all its work must be on the current stream, which must
            not be the default one: that one cannot be captured.
        device: where the calls work.
        samples: how often it is measured.
        capture: False for calls that are to be timed as they are launched, or that replay a graph of their own.
    """
    for call in calls:  # compiles what is compiled on first use
        call()
    if device.type != "cuda":
        wall = Spread.of(_wall_samples(calls, device, samples))
        return Times(wall, wall, "clock")
    method, run, n_calls = "events", _in_turn(calls), len(calls)
    if capture:
        try:
            run, n_calls = _captured(calls, repeats=1)
            per_call_us = min(_event_samples(run, n_calls, samples=3))
            repeats = min(_CALLS_PER_GRAPH, int(1000 * _SAMPLE_MS / max(per_call_us, 0.1))) // len(calls)
            if repeats > 1:
                run, n_calls = _captured(calls, repeats)
            method = "graph"
        except RuntimeError:  # something in it cannot be captured
            torch.cuda.synchronize(device)
            run, n_calls = _in_turn(calls), len(calls)
    on_device = _event_samples(run, n_calls, samples + _WARM_UP)[_WARM_UP:]
    return Times(Spread.of(on_device), Spread.of(_wall_samples(calls, device, samples)), method)


def _in_turn(calls: Sequence[Call]) -> Call:
    def run() -> None:
        for call in calls:
            call()

    return run


def waited_for(operation: Callable[..., object], device: torch.device | str) -> Callable[..., None]:
    """The operation, and then the wait until the device has done it."""

    def run(*inputs: object) -> None:
        operation(*inputs)
        _wait(torch.device(device))

    return run


def _captured(calls: Sequence[Call], repeats: int) -> tuple[Call, int]:
    """The replay of a graph of all calls, ``repeats`` times over, and how many calls that is."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(repeats):
            for call in calls:
                call()
    return graph.replay, repeats * len(calls)


def _event_samples(run: Call, n_calls: int, samples: int) -> list[float]:
    """Microseconds per call; the runs are queued one behind the other, so that the device never waits for Python."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(samples + 1)]
    run()
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return [1000 * before.elapsed_time(after) / n_calls for before, after in pairwise(events)]


def _wall_samples(calls: Sequence[Call], device: torch.device, samples: int) -> list[float]:
    """Microseconds from the call to the end of its work."""
    found = []
    for i in range(samples):
        call = calls[i % len(calls)]
        _wait(device)
        begin = time.perf_counter()
        call()
        _wait(device)
        found.append(1e6 * (time.perf_counter() - begin))
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
