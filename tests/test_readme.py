"""What the README says is true: the example runs, commands parse, the layout exists, the table is the measured one."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
from small_otb import quick_config

from fdn_triton import Tracker, evaluate, track, train
from fdn_triton.demo import clip_path
from fdn_triton.sequence import open_sequence

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_tracks_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.S)
    assert example is not None
    sequence = open_sequence(clip_path(), max_frames=3)
    assert sequence.ground_truth is not None
    x, y, w, h = sequence.ground_truth[0, 0]
    writer = cv2.VideoWriter(str(tmp_path / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    for frame in sequence.frames():
        assert frame.image is not None
        writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    writer.release()
    monkeypatch.chdir(tmp_path)
    code = example[1].replace("[200, 120, 64, 80]", str([float(x), float(y), float(w), float(h)]))
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2, "one result for each frame after the first"
    assert all("True" in line for line in printed), "the target of the clip is found"


def test_targets_come_and_go_in_the_second_example() -> None:
    example = re.findall(r"```python\n(.*?)```", README, re.S)[1]
    images = [frame.image for frame in open_sequence(clip_path(), max_frames=3).frames()]
    tracker = Tracker(quick_config(), device="cpu")
    names = {"tracker": tracker, "image": images[0], "later_image": images[1]}
    exec(compile(example, "README.md", "exec"), names)
    assert names["new"] == (2,)
    assert images[2] is not None
    assert tracker.update(images[2]).ids == (1, 2)


def test_every_command_parses() -> None:
    commands = re.findall(r"^python -m fdn_triton\.track (.*)$", README, re.M)
    assert len(commands) > 5
    for command in commands:
        words = shlex.split(command, comments=True)
        if words != ["--help"]:
            track._parse(words)


def test_every_evaluation_command_parses() -> None:
    commands = re.findall(r"^python -m fdn_triton\.evaluate (.*)$", README, re.M)
    assert len(commands) > 3
    for command in commands:
        evaluate._parse(shlex.split(command, comments=True))


def test_every_training_command_parses() -> None:
    card = (ROOT / "fdn_triton/weights/README.md").read_text(encoding="utf-8")
    text = f"{README}\n{card}".replace("\\\n", " ")
    commands = re.findall(r"^(?:python|torchrun .*?) -m fdn_triton\.train (.*)$", text, re.M)
    assert len(commands) == 7
    for command in commands:
        train._parse(shlex.split(command, comments=True))


def test_layout_names_every_module() -> None:
    modules = {path.name for path in (ROOT / "fdn_triton").glob("*.py")} - {"__init__.py", "errors.py"}
    layout = README[README.index("## Layout") : README.index("## Limits")]
    named = set(re.findall(r"(\w+\.py)", layout))
    assert named == modules
    for folder in re.findall(r"`([\w/]+)/`", layout):
        assert (ROOT / folder).is_dir(), folder


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``perf/tables.py``."""
    monkeypatch.syspath_prepend(str(ROOT / "perf"))
    yield importlib.import_module("tables")
    sys.modules.pop("tables", None)


def test_tables_are_made_from_the_committed_results(tables: ModuleType) -> None:
    assert tables.load(), "perf/results holds no tracking run"
    for path, name, table in tables.places():
        text = path.read_text(encoding="utf-8")
        assert tables.with_table(text, name, table) == text, f"{name}: python perf/tables.py --write"


def test_measured_accuracy_is_that_of_the_shipped_weights() -> None:
    shipped = hashlib.sha256((ROOT / "fdn_triton/weights/fdn.safetensors").read_bytes()).hexdigest()
    results = ROOT / "perf/results"
    summary = json.loads((results / "otb-fdn.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"fdn \(sha256 (\w{12,})\)", summary["settings"]["weights"])[1] == shipped[:12]  # type: ignore[index]
    for path in results.glob("track-*.json"):
        weights = json.loads(path.read_text(encoding="utf-8"))["weights"]
        assert weights["name"] != "fdn" or weights["sha256"] == shipped, path.name


def test_peers_are_a_table(tables: ModuleType, tmp_path: Path) -> None:
    """Fastest first, what is missing left out, and what was asked for and missed said."""
    row = {"about": "one", "sequences": {"Deer": {"frames": 71, "fps": 4.0}}, "fps": 4.0, "precision": 0.5, "auc": 0.25}
    few = {"about": "two", "sequences": {"Deer": {"frames": 11, "fps": 9.0}}, "fps": 9.0, "first_frame_s": 1.25}
    result = {
        "date": "2026-11-24", "cpu": {"name": "X", "threads": 2}, "device": "cpu", "sequences": {"Deer": 71},
        "trackers": {"a": row, "b": few},
        "ratios": [
            {"of": "a", "to": "b", "ratio": 0.4, "at_least": 5},
            {"of": "b", "to": "a", "ratio": 2.25, "at_least": None},
        ],
        "gains": [{"of": "a", "to": "b", "auc": -0.0125}],
    }  # fmt: skip
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(result))
    lines = tables.peers_table(path).splitlines()
    assert lines[0].startswith("X, 2 threads, 2026-11-24")
    assert lines[4:6] == [
        "| b | two | 9.00 | 9.00 | 11 | 1.2 |  |  |",
        "| a | one | 4.00 | 4.00 | all |  | 0.500 | 0.250 |",
    ]
    assert lines[-3:-1] == ["| a to b | 0.40 | 5 | **missed** |", "| b to a | 2.25 |  |  |"]
    assert lines[-1] == "| a to b, AUC | -0.013 | more | **missed** |"
    with pytest.raises(ValueError, match="0 places"):
        tables.with_table("text", "peers", "table")


def test_the_ablation_is_a_table(tables: ModuleType, tmp_path: Path) -> None:
    """Ours beside the paper's, a dash where nothing is compared, and what was left out by name."""
    assert tables.ablation_table(tmp_path / "none.json") == "Not recorded here yet."
    measured = {
        "weights": {"own": True},
        "left_out": None,
        "precision": 0.9,
        "auc": 0.625,
        "iterations_per_update": 2.5,
        "fps": None,
    }
    other = {
        "against": "full", "auc_difference": -0.0125, "auc_standard_error": 0.004, "iterations_ratio": 4.0,
        "fps_ratio": None, "verdict": "as the paper",
    }  # fmt: skip
    paper = {"ordering": {"accuracy": "level", "iterations": "above"}, "source": "Table 1"}
    variants = {
        "full": {**measured, "comparison": None, "paper": None},
        "no-threshold": {**measured, "comparison": other, "paper": paper},
        "fc-2": {**measured, "weights": {"own": False}, "comparison": None, "paper": None},
        "conv-5": {"left_out": "no weights", "comparison": None, "paper": paper},
        "crops": {"left_out": None, "comparison": None, "paper": paper},
    }
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps({"settings": {"seeds": "0", "date": "2026-11-25"}, "variants": variants}))
    lines = tables.ablation_table(path).splitlines()
    assert lines[0] == "seeds: 0; date: 2026-11-25."
    assert lines[4:] == [
        "| full | 0.900 | 0.625 | 2.50 | – | – | – | – | – | – |",
        "| no-threshold | 0.900 | 0.625 | 2.50 | – | full | -0.013 ± 0.004 | 4.00, – "
        "| accuracy level, iterations above (Table 1) | as the paper |",
        "| fc-2 (the method's weights) | 0.900 | 0.625 | 2.50 | – | – | – | – | – | – |",
        "",
        "Left out: `conv-5` (no weights); `crops` (failed).",
    ]


def test_scaling_is_a_plot_and_a_table(tables: ModuleType, tmp_path: Path) -> None:
    """The base case once, the ends of each axis, four targets, and what a long sequence comes to."""

    def point(ms: float, size: str = "360p", targets: int = 1, candidates: int = 256) -> dict[str, Any]:
        stages = {"features": ms / 2, "score": ms / 4, "collect": ms / 8, "update": ms / 8}
        case = {"size": size, "targets": targets, "candidates": candidates}
        return {**case, "ms": {"mean": ms, "median": ms - 1}, "stages_ms": stages}

    sweep = {
        "base": [point(8)],
        "size": [point(8), point(9, "720p"), point(10, "4K")],
        "candidates": [point(7, candidates=64), point(8), point(16, candidates=4096)],
        "targets": [point(8), point(14, targets=4), point(20, targets=8)],
    }
    parts = [{"frame": 100 * k, "ms": 5.0 + k, "resident_mb": 700.0 + k} for k in range(1, 11)]
    length = {"preset": "fast", "changes": {"candidates": 64}, "points": parts}
    result = {"date": "2026-11-24", "device": "cuda H", "cpu": {}, "sweeps": {"paper": sweep}, "length": length}
    (tmp_path / "scaling-h.json").write_text(json.dumps(result))
    lines = tables.scaling_tables(tmp_path).splitlines()
    assert "(perf/results/scaling-h.svg)" in lines[0] and lines[2] == "cuda H, 2026-11-24, milliseconds a frame:"
    assert lines[6] == "| paper | 360p | 1 | 256 | 8.0 | 7.0 | 1.00 | 4.0 / 2.0 / 1.0 / 1.0 |"
    cases = [line.split(" | ")[1:5] for line in lines[7:-2]]
    assert cases == [
        ["4K", "1", "256", "10.0"],
        ["360p", "1", "64", "7.0"],
        ["360p", "1", "4096", "16.0"],
        ["360p", "4", "256", "14.0"],
        ["360p", "8", "256", "20.0"],
    ]
    assert lines[-1].endswith("7.0 ms and 702 MB at frame 200, 15.0 ms and 710 MB at frame 1000.")


def test_every_plot_of_the_readme_is_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\((\S+)\)", README):
        assert (ROOT / path).is_file(), path
