"""What ``evaluate otb`` cannot evaluate costs a line, and what leaves nothing to do is refused in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import evaluate_command
import pytest
from evaluate_command import Call, summary

from fdn_triton import evaluate

folder, evaluations, call = evaluate_command.folder, evaluate_command.evaluations, evaluate_command.call  # fixtures


def test_sequences_that_cannot_be_used_cost_a_line_each(call: Call, folder: Path) -> None:
    (folder / "owl/img/0041.jpg").unlink()
    said = call("--sequences", "owl", "Bird2", "Nowhere")
    assert said.code == 3
    owl, nowhere = said.lines("warning")
    assert owl.startswith("owl: ") and "3 images" in owl and "4 rows" in owl
    assert nowhere.startswith("Nowhere: ") and "does not exist" in nowhere
    assert summary()["problems"] == [owl, nowhere]
    assert list(summary()["trackers"]["FDN"]["sequences"]) == ["Bird2"]


def test_score_only_says_what_is_missing(call: Call) -> None:
    assert call("--sequences", "owl").code == 0
    said = call("--score-only", "--seeds", 1)
    assert said.code == 3
    assert said.lines("warning") == [
        "there is no result of Bird2 (ope, seed 0)",
        "there is no result of Jogging-1 (ope, seed 0)",
    ]
    assert list(summary()["trackers"]["FDN"]["sequences"]) == ["owl"]


def test_score_only_does_not_mix_settings(call: Call) -> None:
    assert call("--sequences", "Bird2", "--candidates", 18).code == 0
    assert call("--sequences", "owl").code == 0
    assert call("--score-only", "--sequences", "owl", "--candidates", 77).code == 0  # as they were made
    said = call("--score-only", "--sequences", "Bird2", "owl")
    assert said.code == 3
    assert said.lines("warning") == [
        "owl (ope, seed 0) was run with other settings: candidates 16 instead of 18",
    ]
    assert list(summary()["trackers"]["FDN"]["sequences"]) == ["Bird2"]


def _file(name: str) -> str:
    Path(name).write_text("x")
    return name


REFUSED: dict[str, tuple[Callable[[], list[object]], str]] = {
    "no such root": (lambda: ["--root", "nowhere"], "nowhere"),
    "a root without sequences": (lambda: ["--root", str(Path("empty").mkdir() or "empty")], "no sequences in empty"),
    "no usable sequence": (lambda: ["--sequences", "Nowhere"], "no sequence in root can be used"),
    "names and a list": (lambda: ["--sequences", "owl", "--list", "otb50"], "--sequences and --list"),
    "no such list": (lambda: ["--list", "otb99"], "otb99"),
    "a list without names": (lambda: ["--list", str(Path("l").write_text("\n\n") and "l")], "has no names"),
    "a list of bytes": (lambda: ["--list", str(Path("l").write_bytes(b"\xff\xfe") and "l")], "not a text file"),
    "no seeds": (lambda: ["--seeds", "0"], "--seeds is 0"),
    "no workers": (lambda: ["--workers", "0"], "--workers is 0"),
    "no frames": (lambda: ["--max-frames", "0"], "--max-frames is 0"),
    "GPUs without Ray": (lambda: ["--gpus-per-worker", "1"], "--engine ray"),
    "published results of another protocol": (
        lambda: ["--protocol", "tre", "--compare", "root"],
        "leave it out with --protocol tre",
    ),
    "boxes of another protocol": (lambda: ["--protocol", "sre", "--export", "otb"], "leave it out with --protocol sre"),
    "no such published results": (lambda: ["--compare", "nowhere"], "nowhere is no folder"),
    "an out that is a file": (lambda: ["--out", _file("file")], "cannot write file/summary.json"),
    "no results and no published ones": (lambda: ["--score-only"], "nothing to score"),
    "missing weights": (lambda: ["--weights", "none.pth"], "cannot read 'none.pth'"),
    "unknown device": (lambda: ["--device", "toaster"], "unknown device 'toaster'"),
    "unknown protocol": (lambda: ["--protocol", "one"], "'one'"),
    "unknown profile": (lambda: ["--profile", "mine"], "'mine'"),
    "unknown flag": (lambda: ["--speed", "9"], "--speed"),
    "a value out of range": (lambda: ["--candidates", "0"], "candidates is 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_leaves_nothing_to_do_is_one_line(call: Call, case: str) -> None:
    flags, words = REFUSED[case]
    assert words in call(*flags()).error
    assert not Path("out/summary.json").exists()


def test_commands_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([]) == 2 and "otb" in capsys.readouterr().err
    assert evaluate.main(["got"]) == 2 and "got" in capsys.readouterr().err
    assert evaluate.main(["otb", "--root", "root"]) == 2 and "--out" in capsys.readouterr().err
    assert evaluate.main(["otb", "--help"]) == 0 and "--compare" in capsys.readouterr().out
    assert evaluate.main(["--help"]) == 0 and "vot" in capsys.readouterr().out
