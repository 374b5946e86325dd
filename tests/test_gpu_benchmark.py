"""The GPU's benchmark, on a CPU and on tiny shapes: all of its flow but the figures."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def run(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python perf/gpu.py``, elsewhere than in the repository."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "perf/gpu.py"), *flags]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(autouse=True)
def in_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of ``perf/`` can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "perf"))


def test_every_operation_is_checked_and_timed(tmp_path: Path) -> None:
    done = run("--quick", "--device", "cpu", "--json", "out/result.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert found["torch"] == torch.__version__ and found["floors"]["copy"] > 0 and found["floors"]["matmul"]["fp32"] > 0
    rows = found["rows"]
    ours = {row["op"]: row for row in rows if row["provider"] == "fdn_triton"}
    operations = {"max_roi_align", "max_roi_align_backward", "lrn_max_pool", "score_heads", "fine_tuning"}
    operations |= {"resize_subtract_mean"}
    assert set(ours) == operations | {"roi_align_max", "roi_align_ada_max"}
    for row in rows:
        if row.get("skipped"):
            assert row["problem"] == "torchvision is not installed"
            continue
        device = row["times"]["device"]
        assert 0 < device["lower"] <= device["median"] <= device["upper"]
        assert 0 <= row["error"] < 1e-4 and row["work"]["bytes"] > 0 and row["floor"][0] > 0
        line = next(text for text in done.stdout.splitlines() if row["provider"] in text and row["shape"] in text)
        assert f"{device['median']:.2f} c" in done.stdout and row["dtype"] in line
    assert {row["provider"] for row in rows if row["op"] == "score_heads"} >= {"loop of addmm", "baddbmm"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_cannot_run_is_reported(tmp_path: Path) -> None:
    done = run("--device", "cuda", "--op", "lrn_max_pool", "--json", "result.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "no floors: " in done.stdout and "FAILED: " in done.stdout
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert len(rows) == 2 and all(row["op"] == "lrn_max_pool" and row["problem"] for row in rows)


def test_no_time_is_no_failure_of_an_operation(tmp_path: Path) -> None:
    done = run("--quick", "--device", "cpu", "--op", "lrn_max_pool", "--seconds", "0", cwd=tmp_path)
    assert "skipped: out of time" in done.stdout and done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_wrong_results_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    import comparison
    from parts import OURS, QUICK, Provider

    (part,) = comparison.PARTS["lrn_max_pool"](QUICK)
    right = part.providers[OURS].prepare

    def changed(change):
        return Provider(lambda x: lambda: change(right(x)()))

    def broken(x):
        raise ValueError("first line\nsecond line")

    providers = {
        "right": changed(lambda y: y),
        "off": changed(lambda y: y * 1.001),
        "NaN": changed(lambda y: y * torch.nan),
        "cut": changed(lambda y: y[:, :, :, 1:]),
        "broken": Provider(broken),
        "missing": Provider(lambda x: __import__("no_such_module")),
        "compiled": Provider(right, compiled=True),
        "right after all": changed(lambda y: y),
    }
    monkeypatch.setitem(comparison.PARTS, "op", lambda sizes: iter([dataclasses.replace(part, providers=providers)]))
    task = comparison.Task(("op",), False, QUICK, "cpu", None, samples=3)
    rows = {row.provider: row for row in comparison.compare(task)}
    assert list(rows) == [name for name in providers if name != "compiled"]
    assert [name for name, row in rows.items() if row.times] == ["right", "right after all"]
    assert rows["off"].problem.startswith("wrong: off by 0.001, allowed are 0.0001")
    assert "wrong: off by nan" in rows["NaN"].problem
    assert "ValueError: shape" in rows["cut"].problem
    assert rows["broken"].problem == "ValueError: first line"
    assert rows["missing"].skipped and not rows["broken"].skipped
    compiled = comparison.Task(("op",), True, QUICK, "cpu", None, samples=3)
    assert [row.provider for row in comparison.compare(compiled)] == ["compiled"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted where there is a GPU")
def test_a_sweep_finds_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that work, one that does not compile and one that is wrong, on interpreted kernels."""
    import sweep
    from comparison import Task
    from parts import QUICK

    from fdn_triton.kernels import roi_sampling
    from fdn_triton.kernels.gpu import max_roi_align

    own = max_roi_align._select_config
    monkeypatch.setattr(roi_sampling, "runs_on_triton", lambda tensor: True)
    settings = dataclasses.replace(
        sweep.SWEEPS["max_roi_align"], configs=lambda dtype: iter([(8, 32, 1), (16, 8, 2), (3, 8, 1)])
    )
    monkeypatch.setattr(sweep, "SWEEPS", {"rois": settings})
    asked = []
    monkeypatch.setattr(
        max_roi_align, "_max_roi_align_fwd_kernel", Recorder(max_roi_align._max_roi_align_fwd_kernel, asked)
    )
    (found,) = sweep.sweep(Task(("max_roi_align", "score_heads"), False, QUICK, "cpu", None, samples=2))
    assert (found.what, found.dtype, found.tried, found.unusable) == ("rois", "fp32", 3, 1)
    assert found.chosen == tuple(own(8, 4, False)) and found.best in (found.chosen, (8, 32, 1), (16, 8, 2))
    assert 0 < found.best_us <= found.chosen_us
    assert asked[0] == found.chosen and {(8, 32, 1), (16, 8, 2), (3, 8, 1)} <= set(asked)
    assert max_roi_align._select_config is own


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted where there is a GPU")
def test_every_sweep_reaches_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers of heads are two launches, and each has a sweep of its own."""
    import sweep
    from parts import OURS, QUICK

    for name in ("roi_sampling", "lrn_pool", "score_heads"):
        module = importlib.import_module(f"fdn_triton.kernels.{name}")
        monkeypatch.setattr(module, "runs_on_triton", lambda tensor: True)
    for what, settings in sweep.SWEEPS.items():
        part = next(sweep.PARTS[settings.op](QUICK))
        inputs = part.make(torch.Generator().manual_seed(0), torch.device("cpu"))
        with sweep._config_in_place(settings, None) as asked:
            part.providers[OURS].prepare(*inputs)()
        assert len(asked) == 1, what
        assert len(asked[0]) == len(next(iter(settings.configs(part.dtype)))), what


class Recorder:
    """A kernel that notes with which blocks and warps it is launched."""

    def __init__(self, kernel: Any, launches: list[tuple[int, ...]]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            self.launches.append((options["BLOCK_R"], options["BLOCK_C"], options["num_warps"]))
            self.kernel[grid](*arguments, **options)

        return launch


WORK = """
import os, time

def dies(n):
    yield from range(n)
    os._exit(7)

def hangs(n):
    yield from range(n)
    time.sleep(600)

def fails(n):
    yield from range(n)
    raise KeyError("x")

def ends(n):
    yield from range(n)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [("dies", "exit code 7"), ("hangs", "stopped after 3 s"), ("fails", "KeyError: 'x'"), ("ends", None)],
)
def test_an_operation_in_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str | None
) -> None:
    """Whatever becomes of it, what it said before is kept."""
    from own_process import in_own_process

    (tmp_path / "benchmark_stand_in.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    work = getattr(importlib.import_module("benchmark_stand_in"), name)
    said: list[int] = []
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=message) if message else nullcontext():
        for value in in_own_process(work, 3, seconds=3 if name == "hangs" else 100):
            said.append(value)
    assert time.monotonic() - begin < 100
    if name == "hangs":
        said = said or [0, 1, 2]  # a busy machine may not have started it in its 3 s
    assert said == [0, 1, 2]


def test_times_and_floors() -> None:
    from floors import Floors, Work
    from measure import Spread, measure, sets_needed

    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    calls = []
    cpu = torch.device("cpu")
    assert sets_needed(10**9, cpu) == 2
    times = measure([lambda: calls.append(0), lambda: calls.append(1)], cpu, samples=4)
    assert calls == [0, 1, 0, 1, 0, 1] and times.method == "clock"

    floors = Floors(empty_us=2.0, copy=1e12, gather=4e12, matmul={"fp16": 8e14, "fp32": 5e13})
    assert floors.of(Work(bytes=1e6), "fp16") == (2.0, "empty kernel")
    assert floors.of(Work(bytes=1e7, gathered=3e7), "fp16") == (10.0, "copy")
    assert floors.of(Work(bytes=1e6, gathered=4e7), "fp16") == (10.0, "gather")
    assert floors.of(Work(flops=8e9), "fp16") == (10.0, "matmul") and floors.of(Work(flops=8e9), "fp32")[0] == 160.0


class Device:
    """A stand-in for a GPU: its clock advances by what runs on it, and a graph holds what is called while captured."""

    def __init__(self, capturable: bool) -> None:
        self.capturable = capturable
        self.now_ms = 0.0
        self.eager = 0
        self.captured: list[float] | None = None

    def work(self, us: float) -> None:
        if self.captured is not None:
            self.captured.append(us)
        else:
            self.now_ms += us / 1000
            self.eager += 1

    @contextmanager
    def graph(self, graph: Graph, stream: object) -> Iterator[None]:
        assert stream == "side stream"
        if not self.capturable:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured = graph.work_us
        yield
        self.captured = None

    def event(self, enable_timing: bool) -> SimpleNamespace:
        event = SimpleNamespace()
        event.record = lambda: setattr(event, "at", self.now_ms)
        event.elapsed_time = lambda later: later.at - event.at
        return event


class Graph:
    def __init__(self, device: Device) -> None:
        self.device, self.work_us = device, []

    def replay(self) -> None:
        self.device.now_ms += sum(self.work_us) / 1000


@pytest.mark.parametrize("capturable", [True, False])
def test_device_time_is_of_one_call(monkeypatch: pytest.MonkeyPatch, capturable: bool) -> None:
    import measure

    device, graphs = Device(capturable), []

    def new_graph() -> Graph:
        graphs.append(Graph(device))
        return graphs[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new_graph)
    monkeypatch.setattr(torch.cuda, "graph", device.graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "side stream")
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *which: None)
    calls = [lambda: device.work(4.0), lambda: device.work(6.0)]
    times = measure.measure(calls, torch.device("cuda"), samples=5)
    assert times.device.median == pytest.approx(5.0) and times.device.lower == pytest.approx(times.device.upper)
    assert times.method == ("graph" if capturable else "events")
    if capturable:
        assert [len(graph.work_us) for graph in graphs] == [2, 200]  # a millisecond of them
        assert device.eager == 2 + 5  # to compile, and for the wall clock
    as_launched = measure.measure(calls, torch.device("cuda"), samples=5, capture=False)
    assert as_launched.device.median == pytest.approx(5.0) and as_launched.method == "events"


def test_the_cells_that_samples_read_are_counted() -> None:
    """Six samples an axis, a cell apart and between two cells each: seven cells; in a small box fewer."""
    from benchmarks import _cells_read

    boxes = torch.tensor([[0, 16.0, 16.0, 112.0, 112.0], [0, 16.0, 16.0, 16.0, 16.0], [0, 0.0, 16.0, 0.0, 112.0]])
    assert _cells_read(boxes[:1], 38, 50) == 7 * 7
    assert _cells_read(boxes[1:2], 38, 50) == 2 * 2
    assert _cells_read(boxes, 38, 50) == 49 + 4 + 14
