"""``evaluate vot``: scores of the toolkit, runs that resume, and bad input that costs a line and not the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vot_clips import QUICK, vot_folder

from fdn_triton.errors import InputError
from fdn_triton.evaluation import vot_command, vot_workspace
from fdn_triton.evaluation.engines import Where
from fdn_triton.evaluation.vot_command import VotOptions, evaluate_vot
from fdn_triton.evaluation.vot_workspace import Scores, results_folder

ROOT = Path(__file__).resolve().parents[1]
Said = tuple[int, str, list[str]]


@pytest.fixture
def options(tmp_path: Path) -> VotOptions:
    """Two sequences, two repetitions, nothing done yet."""
    vot_folder(tmp_path / "data" / "box", 13)
    vot_folder(tmp_path / "data" / "corners", 6, polygon=True)
    return VotOptions(tmp_path / "data", tmp_path / "out", repetitions=2, device="cpu", config=QUICK)


@pytest.fixture
def no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that cost nothing, for what is not about them."""

    def score(folder: Path) -> Scores:
        names = (folder / "sequences" / "list.txt").read_text().split()
        return Scores(0.5, 1.5, 0.25, [0.0, 0.25], dict.fromkeys(names, (0.5, 1.5)))

    monkeypatch.setattr(vot_command, "check_toolkit", lambda: None)
    monkeypatch.setattr(vot_command, "score", score)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[[VotOptions], Said]:
    """Exit code, standard output, and the lines on standard error without the one about untrained weights."""

    def run(options: VotOptions) -> Said:
        capsys.readouterr()
        code = evaluate_vot(options)
        out, err = capsys.readouterr()
        return code, out, [line for line in err.splitlines() if "weights are untrained" not in line]

    return run


Call = Callable[[VotOptions], Said]


def summary(options: VotOptions) -> dict[str, Any]:
    return json.loads((options.out / "summary.json").read_text())


def texts(options: VotOptions) -> dict[str, str]:
    folder = options.out / "results"
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.txt"))}


def test_scores_and_files(call: Call, options: VotOptions) -> None:
    pytest.importorskip("vot", reason="the extra vot is not installed")
    code, out, err = call(options)
    assert (code, err) == (0, [])
    said = summary(options)
    ours = said["trackers"]["FDN"]
    failures = {
        name: [texts(options)[f"FDN/baseline/{name}/{name}_00{k}.txt"].split("\n").count("2") for k in (1, 2)]
        for name in ("box", "corners")
    }
    assert {name: scores["robustness"] for name, scores in ours["sequences"].items()} == {
        name: sum(counts) / 2 for name, counts in failures.items()
    }
    mean = (13 * sum(failures["box"]) + 6 * sum(failures["corners"])) / 2 / 19
    assert ours["robustness"] == pytest.approx(mean)
    assert ours["sequences"]["box"]["frames"] == 13 and ours["sequences"]["corners"]["fps"] > 0
    low, high = said["eao_range"]
    curve = ours["eao_curve"][low : high + 1]
    assert ours["eao"] == pytest.approx(sum(curve) / len(curve))
    assert (said["profile"], said["repetitions"], said["problems"]) == ("vot-toolkit 0.7.4, reset-based", 2, [])
    assert said["settings"]["candidates"] == 16
    assert f"accuracy {ours['accuracy']:.3f}, robustness {ours['robustness']:.2f} failures a run" in out
    # The seeds differ, and with them the runs.
    assert texts(options)["FDN/baseline/box/box_001.txt"] != texts(options)["FDN/baseline/box/box_002.txt"]


@pytest.mark.usefixtures("no_toolkit")
def test_what_is_done_is_not_done_again(call: Call, options: VotOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(options)[0] == 0
    first, said = texts(options), summary(options)
    folder = results_folder(options.out, "box")
    (folder / "box_002.json").write_text("{")
    (folder / "box_001_time.value").write_text("mark")
    code, _, err = call(options)
    assert (code, len(err)) == (0, 1) and "box_002.json is damaged: run again" in err[0]
    assert texts(options) == first
    assert (folder / "box_001_time.value").read_text() == "mark"  # this one was left alone

    # Other settings are another run; with --score-only whatever is there is scored.
    other = replace(options, config=replace(QUICK, seed=5))
    code, _, err = call(replace(other, repetitions=1))
    assert (code, len(err)) == (0, 2) and all("another seed: run again" in line for line in err)
    assert texts(options) != first
    monkeypatch.setattr(vot_command, "load_weights", None)
    assert call(replace(options, score_only=True, config=replace(QUICK, seed=5), repetitions=1))[0] == 0
    assert set(summary(options)["trackers"]["FDN"]) == set(said["trackers"]["FDN"])


@pytest.mark.usefixtures("no_toolkit")
def test_bad_sequences_cost_a_line_each_and_the_rest_goes_on(call: Call, options: VotOptions) -> None:
    truth = vot_folder(options.root / "long", 4) / "groundtruth.txt"
    truth.write_text(truth.read_text() + "1,2,3,4\n")
    (vot_folder(options.root / "hole", 5) / "color" / "00000003.jpg").write_bytes(b"no image")
    asked = replace(options, sequences=("nowhere", "long", "hole", "corners"), repetitions=1)
    code, _, err = call(asked)
    assert code == 3
    assert [line.split(": ")[:2] for line in err] == [["warning", name] for name in ("nowhere", "long", "hole")]
    assert "does not exist" in err[0] and "4 frames, groundtruth.txt 5 rows" in err[1] and "frame 3" in err[2]
    assert summary(options)["problems"] == [line.removeprefix("warning: ") for line in err]
    assert list(summary(options)["trackers"]["FDN"]["sequences"]) == ["corners"]
    assert (options.out / "sequences" / "list.txt").read_text() == "corners\n"


@pytest.mark.usefixtures("no_toolkit")
def test_other_errors_cost_their_sequence_only(
    call: Call, options: VotOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = vot_command.Repetition.run

    def fail(self: vot_command.Repetition, *arguments: Any) -> Any:
        if self.sequence == "box":
            raise RuntimeError("out of\nmemory")
        return run(self, *arguments)

    monkeypatch.setattr(vot_command.Repetition, "run", fail)
    code, _, err = call(options)
    assert (code, err) == (3, ["warning: box: RuntimeError: out of memory"])
    code, _, err = call(replace(options, score_only=True))
    assert (code, err) == (3, ["warning: box: 0 of 2 repetitions are there"])


@pytest.mark.usefixtures("no_toolkit")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repetitions": 0}, "--repetitions is 0"),
        ({"eao_range": (9, 5)}, "--eao-range is 9 5"),
        ({"eao_range": (0, 5)}, "--eao-range is 0 5"),
        ({"sequences": ("nowhere",)}, "no sequence in .* can be used"),
        ({"root": Path("nowhere")}, "nowhere is not a folder"),
        ({"score_only": True}, "there is nothing to score"),
        ({"device": "tpu"}, "unknown device"),
        ({"weights": "nowhere.mat"}, r"nowhere\.mat"),
    ],
)
def test_what_leaves_nothing_to_do_is_refused(options: VotOptions, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_vot(replace(options, **changes))


@pytest.mark.usefixtures("no_toolkit")
def test_the_sequences_are_not_overwritten(options: VotOptions, tmp_path: Path) -> None:
    moved = tmp_path / "sequences"
    options.root.rename(moved)
    before = (moved / "box" / "groundtruth.txt").read_bytes()
    with pytest.raises(InputError, match="would write into --root"):
        evaluate_vot(replace(options, root=moved, out=tmp_path))
    assert (moved / "box" / "groundtruth.txt").read_bytes() == before


@pytest.mark.usefixtures("no_toolkit")
def test_an_undefined_eao_is_said(call: Call, options: VotOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores(0.5, 1.5, None, [0.0, 0.25], {"corners": (0.5, 1.5)})
    monkeypatch.setattr(vot_command, "score", lambda folder: scores)
    code, out, err = call(replace(options, sequences=("corners",), repetitions=1, eao_range=(108, 371)))
    assert code == 3 and len(err) == 1 and "never held for 108 frames" in err[0]
    assert "EAO undefined over lengths 108 to 371" in out
    assert summary(options)["trackers"]["FDN"]["eao"] is None


def test_without_the_toolkit_nothing_is_begun(options: VotOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vot_workspace, "version", lambda name: "0.9.0")
    with pytest.raises(InputError, match=r"vot-toolkit is installed in version 0\.9\.0"):
        evaluate_vot(options)
    assert not options.out.exists()


_CHILD = """
import sys
from pathlib import Path
from vot_clips import QUICK
from fdn_triton.evaluation import vot_command
vot_command.check_toolkit = lambda: None
vot_command.evaluate_vot(
    vot_command.VotOptions(Path(sys.argv[1]), Path(sys.argv[2]), repetitions=2, device="cpu", config=QUICK)
)
"""


@pytest.mark.usefixtures("no_toolkit")
def test_a_killed_run_and_two_workers_give_the_same_results(call: Call, options: VotOptions) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _CHILD, str(options.root), str(options.out)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        first = results_folder(options.out, "box") / "box_001.txt"
        while not first.exists() and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert len(texts(options)) < 4
    assert call(options)[0] == 0
    resumed = texts(options)
    shutil.rmtree(options.out)
    assert call(replace(options, where=Where(workers=2)))[0] == 0
    assert texts(options) == resumed and len(resumed) == 4
