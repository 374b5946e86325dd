"""The benchmark of normalisation and pooling beside the convolutions, on a tiny tracker."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from small_otb import quick_config

from fdn_triton import backbone, frame_features
from fdn_triton.demo import clip_path

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def trunk_parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "perf"))
    return import_module("trunk_parts")


def test_it_measures_both_kinds_of_every_sequence(
    trunk_parts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Quick(trunk_parts.TrackerConfig):  # type: ignore[misc,name-defined]
        @classmethod
        def from_preset(cls, name: str, **changes: object) -> object:
            assert name in ("paper", "fast")
            return quick_config()

    monkeypatch.setattr(trunk_parts, "TrackerConfig", Quick)
    for module, name in ((backbone, "_without_padding"), (frame_features, "normalise_and_pool")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back, whatever the benchmark makes of it
    out = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["trunk_parts.py", "--seq", str(clip_path()), "--frames", "5", "--json", str(out)])
    trunk_parts.main()
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["device"] == "cpu" and [row["preset"] for row in found["rows"]] == ["paper", "fast"]
    for row in found["rows"]:
        pooling, convolutions = row["ms"]["normalisation and pooling"], row["ms"]["convolutions"]
        assert row["frames"] == 3 and row["targets"] == 1 and pooling > 0 and convolutions > 0
        assert row["ratio"] == pytest.approx(pooling / convolutions)
        assert f"{row['ratio']:.3f}" in printed
