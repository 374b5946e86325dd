"""The benchmark of the whole tracker on a GPU, on a CPU and small frames: all of its flow but the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fdn_triton import Tracker, TrackerConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of ``perf/`` can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "perf"))


def test_all_cases_are_measured(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "perf/gpu_tracking.py"), "--quick", "--device", "cpu", "--json", "out/x.json"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out/x.json").read_text())
    rows = {(row["provider"], row["targets"]): row for row in found["rows"]}
    assert set(rows) == {("fdn_triton", 1), ("fdn_triton", 2), ("eager PyTorch", 1), ("MDNet's crops", 1)}
    for (provider, _), row in rows.items():
        assert row["fps"] > 0 and row["stages_ms"]["features"] > 0 and 0 <= row["followed"] <= 1
        assert (row["floors_ms"] is not None) == (provider == "fdn_triton")
    assert rows[("fdn_triton", 1)]["followed"] == rows[("eager PyTorch", 1)]["followed"]
    assert "one target: " in done.stdout and "times as fast as MDNet's crops" in done.stdout


def test_figures_are_held_against_what_is_wanted() -> None:
    from gpu_tracking import CROPS, EAGER, OURS, Row, comparisons

    rows = [Row(OURS, 1, 500.0), Row(OURS, 8, 400.0), Row(OURS, 64, 20.0), Row(EAGER, 1, 50.0), Row(CROPS, 1, 2.0)]
    assert list(comparisons(rows)) == [
        "1 target: 500 frames/s, wanted 300: met",
        "64 targets: 20 frames/s, wanted 30: MISSED",
        "8 targets: 6.4 times the targets' frames/s of one, wanted 5: met",
        "one target: 10 times as fast as eager PyTorch",
        "one target: 250 times as fast as MDNet's crops",
    ]
    assert list(comparisons([Row(OURS, 1, problem="broken"), Row(EAGER, 1, 50.0)])) == []


def test_floors_are_those_of_the_least_work() -> None:
    """The trunk of a 1000x562 frame is 59 GFLOP; eight targets score eight times as much."""
    from floors import Floors
    from gpu_tracking import OURS, Case, floors_of

    rates = Floors(empty_us=0.0, copy=1e30, gather=1e30, matmul={"fp16": 1e12})
    one, eight = (floors_of(Case(OURS, count, 10, 0, "cpu", False), rates, 2.0) for count in (1, 8))
    layers = (281 * 500 * 96 * 3 * 49, 71 * 125 * 256 * 96 * 25, 36 * 63 * 512 * 256 * 9)
    assert one["features"] == pytest.approx(2 * sum(layers) / 1e9, rel=0.02)
    assert eight["score"] == pytest.approx(8 * one["score"]) and eight["features"] == one["features"]
    assert one["update"] == pytest.approx(2 * (4608 * 512 + 512 * 512 + 1024) * (1024 + 3 * 128) * 2 / 1e9, rel=1e-3)


def test_the_eager_version_has_no_kernels_and_no_graphs() -> None:
    from gpu_tracking import without_graphs, without_triton

    from fdn_triton.kernels import lrn_pool

    before = sys.modules["fdn_triton.kernels.lrn_pool"].runs_on_triton
    with without_triton():
        assert not sys.modules["fdn_triton.kernels.lrn_pool"].runs_on_triton(torch.empty(1))
    assert sys.modules["fdn_triton.kernels.lrn_pool"].runs_on_triton is before and lrn_pool is not None
    tracker = Tracker(
        TrackerConfig(short_side=112, max_side=200, least_target_size=None, first_iterations=1), device="cpu"
    )
    tracker._targets._together = tracker._targets._capture = True
    tracker.init(torch.zeros(60, 80, 3, dtype=torch.uint8), [10, 10, 20, 20])
    assert tracker._targets._tuner is not None and tracker._targets._tuner._captured is not None
    without_graphs(tracker)
    assert tracker._targets._tuner._captured is None and not tracker._targets._capture
