"""The benchmark of several targets beside one, on a tiny tracker."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_otb import quick_config

from fdn_triton.demo import clip_path

ROOT = Path(__file__).resolve().parents[1]


def test_it_measures_the_same_tracks_alone_and_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "perf"))
    import many_targets

    class Quick(many_targets.TrackerConfig):  # type: ignore[misc,name-defined]
        @classmethod
        def from_preset(cls, name: str, **changes: object) -> object:
            assert name == "release"
            return quick_config()

    monkeypatch.setattr(many_targets, "TrackerConfig", Quick)
    flags = ["--seq", str(clip_path()), "--init", "103,70,37,43", "--init", "20,20,50,40", "--init", "200,150,60,50"]
    out = tmp_path / "found.json"
    more = ["--frames", "7", "--preset", "release", "--device", "cpu", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["many_targets.py", *flags, *more])
    many_targets.main()
    found = json.loads(out.read_text())
    assert (found["frames"], found["targets"], found["preset"]) == (7, 3, "release")
    assert found["mean_iou"] > 0.9
    assert found["iterations_per_frame"]["all"] == pytest.approx(3 * found["iterations_per_frame"]["one"], rel=0.3)
    for kind in ("wall", "cpu", "features", "score", "update"):
        assert found["ratio"][kind] == pytest.approx(found["all_ms"][kind] / found["one_ms"][kind])
        assert found["one_ms"][kind] > 0
    stages = sum(found["all_ms"][stage] for stage in ("features", "score", "collect", "update"))
    assert 0.5 * found["all_ms"]["wall"] < stages <= found["all_ms"]["wall"]
    assert f"{found['ratio']['wall']:.2f}" in capsys.readouterr().out
