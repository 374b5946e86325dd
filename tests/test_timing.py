"""The clock of a tracker's stages, on a CPU and with a GPU's events."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest
import torch
from moving_patch import picture, tracker_of, truth

from fdn_triton import timing
from fdn_triton.timing import StageClock


class Passed:
    """A CUDA event at a given millisecond, that the device passes when it is waited for."""

    def __init__(self, **options: object) -> None:
        self.passed, self.waits = False, 0

    def record(self, stream: object) -> None:
        self.at = float(next(Passed.times))

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.passed = True
        self.waits += 1

    def elapsed_time(self, end: Passed) -> float:
        return end.at - self.at

    times: Iterator[int]


def test_the_clock_of_a_gpu_waits_only_where_it_is_to(monkeypatch: pytest.MonkeyPatch) -> None:
    Passed.times = iter([0, 2000, 2000, 5000])
    monkeypatch.setattr(torch.cuda, "Event", Passed)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = StageClock(torch.device("cuda"))
    for name in ("a", "b"):
        with clock.stage(name):
            pass
    assert clock.lap(wait=False) == {}
    first, second = clock._events[0][3], clock._events[1][3]
    first.passed = True
    assert clock.lap(wait=False) == {"a": 2.0} and second.waits == 0
    assert clock.lap() == {"b": 3.0} and second.waits == 1


def test_the_clock_adds_up_the_stages_and_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 10.0, 12.0, 20.0, 24.0, 30.0, 38.0])
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: next(now)))
    clock = StageClock(torch.device("cpu"))
    assert clock.lap() == {}
    for name in ("a", "b", "a"):
        with clock.stage(name):
            pass
    assert clock.lap() == {"a": 5.0, "b": 2.0}
    assert clock.lap() == {}
    with clock.stage("b"):
        pass
    assert clock.lap() == {"b": 8.0}


def test_the_tracker_times_its_stages() -> None:
    tracker = tracker_of(score_threshold=-100.0)  # a failed frame collects nothing
    tracker.init(picture(0), truth(0))
    assert set(tracker.clock.lap()) == {"features", "collect", "update"}
    tracker.update(picture(1))
    seconds = tracker.clock.lap()
    assert set(seconds) == {"features", "score", "collect", "update"}
    assert min(seconds.values()) >= 0
    assert tracker.clock.lap() == {}


def test_event_pairs_do_not_pile_up_without_lap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to read the clock: on a GPU, events turn into seconds once there are many, and are used again."""

    class Event:
        made = 0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            Event.made += 1

        def record(self, stream: object) -> None:
            assert stream == "the device's stream"

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, other: object) -> float:
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the device's stream")
    clock = StageClock(torch.device("cuda", 1))
    for _ in range(200):
        with clock.stage("score"):
            pass
    assert len(clock._events) <= 64 and Event.made <= 2 * 65
    assert clock.lap() == {"score": pytest.approx(0.4)}
    assert clock.lap() == {}
