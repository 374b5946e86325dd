"""The README's tables of GPU measurements: what they show of a result, its losses included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KNOWN = {"device": "NVIDIA X", "date": "2026-01-02", "torch": "2.11", "triton": "3.6"}


@pytest.fixture(autouse=True)
def in_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of ``perf/`` can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "perf"))


def tracked(provider: str, targets: int, fps: float | None, **more: object) -> dict[str, object]:
    stages = dict.fromkeys(("features", "score", "update"), 0.5)
    measured = {"stages_ms": stages, "iterations": 0.25, "followed": 1.0} if fps else {}
    return {"provider": provider, "targets": targets, "fps": fps, **measured, **more}


def test_tracking(tmp_path: Path) -> None:
    from gpu_tables import gpu_tracking_table

    assert gpu_tracking_table(tmp_path) == "Not recorded here yet."
    rows = [
        tracked("fdn_triton", 1, 600.0, floors_ms=dict.fromkeys(("features", "score", "update"), 0.1)),
        tracked("fdn_triton", 8, 300.0),
        tracked("fdn_triton", 64, None, problem="out of memory"),
        tracked("eager PyTorch", 1, 150.0),
    ]
    (tmp_path / "gpu-tracking-x.json").write_text(json.dumps({**KNOWN, "rows": rows}))
    table = gpu_tracking_table(tmp_path)
    assert "NVIDIA X, 2026-01-02" in table and "| fdn_triton | 1 | 600.0 | 0.25 | 1.00 | 0.50 (5.0) |" in table
    assert "| fdn_triton | 64 | failed: out of memory |" in table
    assert "- 1 target: 600 frames/s, wanted 300: met" in table
    assert "- 8 targets: 4 times the targets' frames/s of one, wanted 5: MISSED" in table
    assert "- one target: 4 times as fast as eager PyTorch" in table
    widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert len(widths) == 1, "every row has a cell for every column"


def test_operations(tmp_path: Path) -> None:
    from gpu_tables import gpu_operations_table

    def row(provider: str, us: float | None, **more: object) -> dict[str, object]:
        where = {"op": "max_roi_align", "shape": "4x4", "dtype": "fp16", "provider": provider}
        times = {"times": {"device": {"median": us}, "method": "graph"}, "floor": [2.0, "bytes"]} if us else {}
        return {**where, **times, **more}

    rows = [
        row("fdn_triton", 4.0),
        row("torchvision", 10.0),
        row("grid_sample", 2.0),
        row("broken", None, problem="wrong: off by 1"),
        row("missing", None, problem="not installed", skipped=True),
        {"op": "lrn_max_pool", "provider": "all", "problem": "out of time", "skipped": True},
        row("fdn_triton", None, problem="wrong: a | b") | {"dtype": "fp32"},
        row("eager", 9.0) | {"dtype": "fp32"},
        row("compiled", 8.0, times={"device": {"median": 8.0}, "method": "events"}),
    ]
    (tmp_path / "gpu-x.json").write_text(json.dumps({**KNOWN, "rows": rows}))
    (tmp_path / "gpu-tracking-x.json").write_text("not one of these")
    line, failed = (text for text in gpu_operations_table(tmp_path).splitlines() if "`" in text)
    against = "torchvision: 2.50, grid_sample: 0.50, broken: failed: wrong: off by 1, compiled: 2.00 e"
    assert line == f"| `max_roi_align` | 4x4 | fp16 | 4.0 | 2.0 | {against} |"
    assert failed == "| `max_roi_align` | 4x4 | fp32 | failed: wrong: a / b |  |  |"


def test_a_result_without_floors_and_facts(tmp_path: Path) -> None:
    from gpu_tables import gpu_operations_table, gpu_tracking_table

    times = {"device": {"median": 4.0}, "method": "clock"}
    rows = [{"op": "lrn_max_pool", "provider": "fdn_triton", "times": times}]
    (tmp_path / "gpu-x.json").write_text(json.dumps({"rows": rows}))
    assert "| `lrn_max_pool` |  |  | 4.0 c |  |  |" in gpu_operations_table(tmp_path)
    (tmp_path / "gpu-tracking-x.json").write_text(json.dumps({"device": "cuda", "rows": []}))
    assert gpu_tracking_table(tmp_path).startswith("cuda:")
