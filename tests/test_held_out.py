"""Choosing numbers on videos that nothing is reported on: a tiny tracker over pieces of the clip."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_otb import QUICK, add_sequence

ROOT = Path(__file__).resolve().parents[1]


def test_variants_are_added_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "perf"))
    import held_out

    videos, out = tmp_path / "videos", tmp_path / "found.json"
    for name, first in (("one", 1), ("two", 30)):
        add_sequence(videos, name, first, 6)
    flags = ["--videos", str(videos), "--out", str(out), "--frames", "5", "--seeds", "2", "--weights", "untrained"]
    quick = json.dumps(QUICK)
    for variants in ([f"quick={quick}"], [f"loose={json.dumps({'preset': 'release', **QUICK, 'top_k': 1})}"]):
        monkeypatch.setattr(sys, "argv", ["held_out.py", *flags, *variants])
        held_out.main()
    found = json.loads(out.read_text())
    assert list(found) == ["quick", "loose"], "what was there is kept"
    assert found["quick"]["preset"] == "paper" and found["loose"]["preset"] == "release"
    assert found["loose"]["changes"] == {**QUICK, "top_k": 1}
    for result in found.values():
        assert [(run["video"], run["seed"]) for run in result["runs"]] == [
            (video, seed) for seed in (0, 1) for video in ("one", "two")
        ]
        for key, mean in result["mean"].items():
            assert mean == pytest.approx(np.mean([run[key] for run in result["runs"]]))
        assert result["frames"] == 5 and result["weights"]["name"] == "untrained"
        assert all(run["frame_cpu_ms"] > 0 and 0 <= run["auc"] <= 1 for run in result["runs"])
        # The first frame counts as found.
        assert all(run["auc"] >= 0.2 for run in result["runs"])
    assert "quick: precision" in capsys.readouterr().out
