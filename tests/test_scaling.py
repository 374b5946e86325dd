"""The benchmark of what grows, on a tiny tracker; its scene, its plot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_otb import QUICK

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of ``perf/`` can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "perf"))


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    import scaling

    quick = {name: value for name, value in QUICK.items() if name not in scaling.LONG}
    monkeypatch.setattr(scaling, "FIRST_FRAME", quick)
    monkeypatch.setattr(scaling, "LONG", {**scaling.LONG, **QUICK})
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--device", "cpu", *flags])
    return scaling.main()


def test_each_thing_is_varied_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "scaling-cpu.json"
    path.parent.mkdir()
    axes = ("--sizes", "240p", "360p", "--targets", "1", "3", "--candidates", "64", "256")
    flags = ("--presets", "paper", "--length-preset", "paper", *axes, "--periods", "1", "--length", "25")
    assert run(monkeypatch, *flags, "--json", str(path)) == 0
    found = json.loads(path.read_text())
    sweep = found["sweeps"]["paper"]
    (base,) = sweep["base"]
    assert base in sweep["size"] and base in sweep["targets"] and base in sweep["candidates"], "measured once"
    cases = {(point["size"], point["targets"], point["candidates"]) for points in sweep.values() for point in points}
    assert cases == {("360p", 1, 256), ("240p", 1, 256), ("360p", 3, 256), ("360p", 1, 64)}
    for points in sweep.values():
        for point in points:
            assert point["frames"] == QUICK["long_interval"] and 0 <= point["followed"] <= 1
            assert 0 < sum(point["stages_ms"].values()) < point["ms"]["mean"]
            assert point["iterations"] > 0, "a period has an update"
    length = found["length"]["points"]
    assert [point["frame"] for point in length] == list(range(1, 26))
    assert all(point["ms"] > 0 and 50 < point["resident_mb"] < 50_000 for point in length)
    plot = path.with_suffix(".svg").read_text()
    for text in ("240p", "candidates a target", "memory of the process, MB", found["date"]):
        assert text in plot, text
    assert "3 targets, 256 candidates" in capsys.readouterr().out


def test_what_there_is_no_time_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scaling.json"
    flags = ("--presets", "paper", "--targets", "2", "--sizes", "--candidates", "--length", "0", "--seconds", "0")
    assert run(monkeypatch, *flags, "--json", str(path)) == 0
    sweep = json.loads(path.read_text())["sweeps"]["paper"]
    assert sweep["targets"] == [] and len(sweep["base"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert "2 targets, 256 candidates" in line
    assert run(monkeypatch, *flags, "--json", str(path / "x.json")) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_things_are_where_their_boxes_are() -> None:
    from scaling_scene import PERIOD, THINGS, Scene

    scene = Scene()
    background = scene._background.astype(int)
    changed = np.abs(scene.frame(5).astype(int) - background).sum(axis=2) > 0
    inside = np.zeros_like(changed)
    boxes = scene.boxes(5, THINGS)
    assert boxes.shape == (64, 4)
    for x, y, w, h in boxes.astype(int):
        inside[max(y, 0) : y + h, max(x, 0) : x + w] = True
        assert changed[max(y, 0) : y + h, max(x, 0) : x + w].mean() > 0.6, "an ellipse"
    assert not changed[~inside].any()
    assert (scene.frame(5) == scene.frame(5 + PERIOD)).all() and (scene.frame(5) != scene.frame(6)).any()
    moved = np.abs(scene.boxes(6, THINGS) - boxes)[:, :2].max(axis=1)
    assert moved.max() <= 2 and (moved > 0).sum() > THINGS / 2
    large = scene.boxes(5, 2, (3840, 2160))
    np.testing.assert_allclose(large, 6 * boxes[:2])
    assert scene.frame(5, (3840, 2160)).shape == (2160, 3840, 3)


def test_the_close_up_shows_the_first_thing() -> None:
    from scaling_scene import Scene

    scene = Scene()
    image, (x, y, w, h) = scene.close_up(9)
    assert image.shape == (90, 160, 3)
    left, top = scene.boxes(9, 1)[0, :2].astype(int)
    there = scene.frame(9)[top : top + int(h), left : left + int(w)]
    assert (image[int(y) : int(y + h), int(x) : int(x + w)] == there).all()
