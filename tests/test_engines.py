"""Where units run: the same results in one process, in several and on Ray, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from small_otb import add_sequence, quick_config

from fdn_triton.errors import InputError
from fdn_triton.evaluation import engines
from fdn_triton.evaluation.engines import Where, WorkerDied, run_all, settle_device
from fdn_triton.evaluation.otb import open_dataset
from fdn_triton.evaluation.profiles import PROFILES
from fdn_triton.evaluation.work import Unit, plan, read_run
from fdn_triton.evaluation.worker import Outcome, Settings

LONG = 30
"""Frames of the first sequence, whose run is caught in the act: after the first of them."""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Unit]:
    root = tmp_path_factory.mktemp("root")
    for name, frames in (("a", LONG), ("b", 4), ("c", 5)):
        add_sequence(root, name, 1, frames)
    tasks, _ = plan(open_dataset(root), "ope", [0, 1], PROFILES["otb"])
    return sorted((unit for task in tasks for unit in task.units), key=lambda unit: -unit.frames)


def settings_in(out: Path) -> Settings:
    return Settings(quick_config(), "paper", "untrained", "cpu", out)


def texts(units: Sequence[Unit], out: Path) -> dict[str, bytes]:
    return {str(unit): unit.path(out, ".txt").read_bytes() for unit in units if read_run(unit, out) is not None}


@pytest.fixture(scope="module")
def in_one_process(units: list[Unit], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("one")
    outcomes = [event for _, event in run_all(units, settings_in(out), Where()) if isinstance(event, Outcome)]
    assert outcomes == [Outcome(None)] * 6
    return texts(units, out)


def check(events: list[tuple[Unit, int | Outcome]], units: Sequence[Unit]) -> None:
    """Every unit has one outcome, behind all of its frames, which are each counted once."""
    frames: Counter[Unit] = Counter()
    outcomes: dict[Unit, Outcome] = {}
    for unit, event in events:
        assert unit not in outcomes, f"{unit} went on after its end"
        if isinstance(event, Outcome):
            outcomes[unit] = event
        else:
            frames[unit] += event
    assert set(outcomes) == set(units)
    for unit, outcome in outcomes.items():
        assert (outcome.error is not None) or frames[unit] == unit.frames


# What is done with workers that die, on a pool that dies as it is told


class ScriptedPool:
    """Workers that get on by 2 of 4 frames and then die, as often as told for a sequence."""

    def __init__(self, deaths: dict[str, int]) -> None:
        self.deaths = deaths
        self.alive: dict[int, Iterator[Any]] = {}
        self.most = self.started = 0

    def start(self, number: int) -> int:
        assert number not in {handle // 1000 for handle in self.alive}, "the number is taken"
        self.started += 1
        handle = 1000 * number + self.started
        self.alive[handle] = iter(())
        self.most = max(self.most, len(self.alive))
        return handle

    def give(self, handle: int, unit: Unit) -> None:
        assert next(self.alive[handle], None) is None, "the worker is not idle"
        self.alive[handle] = self.events(unit)

    def events(self, unit: Unit) -> Iterator[Any]:
        yield 2
        if self.deaths.get(unit.entry.name, 0):
            self.deaths[unit.entry.name] -= 1
            yield WorkerDied("by signal 9")
        yield 2
        yield Outcome(None)

    def next_event(self, busy: Sequence[int]) -> tuple[int, Any]:
        handle = busy[self.started % len(busy)]
        return handle, next(self.alive[handle])

    def stop(self, handle: int) -> None:
        del self.alive[handle]


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
@pytest.mark.parametrize("deaths", [{}, {"b": 1}, {"a": 2, "c": 1}, {"a": 1, "b": 1, "c": 1}])
def test_a_unit_whose_worker_died_is_run_again_and_counted_once(
    tmp_path: Path, workers: int, deaths: dict[str, int]
) -> None:
    for name in "abc":
        add_sequence(tmp_path / "root", name, frames=4)
    tasks, _ = plan(open_dataset(tmp_path / "root"), "ope", [0], PROFILES["otb"])
    units = [task.units[0] for task in tasks]
    pool = ScriptedPool(dict(deaths))
    events = list(engines._distribute(pool, units, settings_in(tmp_path), workers))
    check(events, units)
    assert all(event.error is None for _, event in events if isinstance(event, Outcome))
    assert not pool.alive, "workers are left behind"
    assert pool.most == min(workers, 3) and pool.started >= pool.most + (sum(deaths.values()) if workers == 1 else 0)


def test_a_unit_that_kills_its_workers_is_a_failure_and_the_rest_goes_on(tmp_path: Path) -> None:
    for name in "abc":
        add_sequence(tmp_path / "root", name, frames=4)
    tasks, _ = plan(open_dataset(tmp_path / "root"), "ope", [0], PROFILES["otb"])
    units = [task.units[0] for task in tasks]
    pool = ScriptedPool({"b": 99})
    events = list(engines._distribute(pool, units, settings_in(tmp_path), 2))
    check(events, units)
    errors = {str(unit): event.error for unit, event in events if isinstance(event, Outcome) and event.error}
    assert errors == {"b (ope, seed 0)": "b (ope, seed 0) failed: its worker died 3 times, the last one by signal 9"}
    with pytest.raises(InputError, match="died 3 times"):
        read_run(units[1], tmp_path)
    assert not pool.alive and pool.deaths["b"] == 96


def test_workers_are_stopped_when_the_caller_goes(tmp_path: Path, units: list[Unit]) -> None:
    pool = ScriptedPool({})
    events = engines._distribute(pool, units, settings_in(tmp_path), 2)
    next(events)
    assert len(pool.alive) == 2
    events.close()
    assert not pool.alive


# Processes


def children(title: str = "") -> list[int]:
    """Processes that descend from this one, by /proc; ``title`` is in their command lines."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if title in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, UnicodeDecodeError):
            continue

    def ours(pid: int) -> bool:
        pid = parents.get(pid, 0)
        return pid == os.getpid() or (pid > 1 and ours(pid))

    return [pid for pid in found if ours(pid)]


def run_and_kill(
    events: Iterator[tuple[Unit, int | Outcome]], processes: Callable[[], list[int]]
) -> list[tuple[Unit, int | Outcome]]:
    """All events; at the first frames of the longest unit one of the worker processes is killed."""
    seen, killed = [], 0
    for unit, event in events:
        seen.append((unit, event))
        if not killed and isinstance(event, int) and 0 < event < LONG and unit.frames == LONG:
            killed = processes()[0]
            os.kill(killed, signal.SIGKILL)
    assert killed, "no run was caught in the act"
    return seen


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found by /proc")
def test_processes_give_the_same_results_and_one_that_is_killed_is_replaced(
    tmp_path: Path, units: list[Unit], in_one_process: dict[str, bytes]
) -> None:
    events = run_all(units, settings_in(tmp_path), Where(workers=2))
    check(run_and_kill(events, lambda: children("spawn_main")), units)
    assert texts(units, tmp_path) == in_one_process
    assert not children("spawn_main")
    assert not list(tmp_path.rglob("*.tmp"))


def test_processes_share_the_threads(tmp_path: Path) -> None:
    before, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(7)
        assert [engines._ProcessPool(settings_in(tmp_path), workers)._threads for workers in (2, 3, 50)] == [3, 2, 1]
        engines._OwnProcessWorker(settings_in(tmp_path), 3)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(of_opencv)


# Ray


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'fdn-triton[cluster]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers find the package and the tests' helpers where this process does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield
    ray.shutdown()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found by /proc")
def test_ray_gives_the_same_results_and_a_killed_worker_is_replaced(
    ray_cluster: None,
    tmp_path: Path,
    units: list[Unit],
    in_one_process: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # Ray's workers start where the cluster was started, and know paths from here
    events = run_all(units, settings_in(Path("out")), Where(workers=2, engine="ray"))
    check(run_and_kill(events, lambda: children("ray::_OwnProcessWorker")), units)
    assert texts(units, tmp_path / "out") == in_one_process
    deadline = time.monotonic() + 20
    while children("ray::_OwnProcessWorker") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not children("ray::_OwnProcessWorker"), "actors are left behind"


def test_ray_that_is_not_there_is_said(tmp_path: Path, units: list[Unit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"fdn-triton\[cluster\]"):
        next(run_all(units, settings_in(tmp_path), Where(engine="ray")))


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path, units: list[Unit]) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'fdn-triton[cluster]'")
    for address in ("nonsense", "127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(InputError, match=f"no Ray cluster at '{address}'") as error:
            next(run_all(units, settings_in(tmp_path), Where(engine="ray", address=address)))
        assert "\n" not in str(error.value)


def test_the_device_is_settled_where_the_workers_are() -> None:
    ray = Where(engine="ray")
    assert settle_device("cpu", Where()) == settle_device("cpu", ray) == settle_device("auto", ray) == "cpu"
    for name, gpus in (("auto", 0.5), ("cuda", 1)):
        assert settle_device(name, Where(engine="ray", gpus_per_worker=gpus)) == "cuda"
    for name, gpus in (("cuda", 0.0), ("cpu", 1.0), ("cuda:1", 1.0)):
        with pytest.raises(InputError, match="do not agree"):
            settle_device(name, Where(engine="ray", gpus_per_worker=gpus))
    with pytest.raises(InputError, match="unknown device"):
        settle_device("toaster", Where())
