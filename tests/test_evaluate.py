"""``python -m fdn_triton.evaluate otb``: the report is right, survives interruptions, and bad input costs one line."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_otb import QUICK_FLAGS, TRUTH, add_sequence, small_benchmark

from fdn_triton import evaluate
from fdn_triton.evaluation import otb_command, work
from fdn_triton.evaluation.summary import Evaluation
from fdn_triton.weights import UNTRAINED_WARNING

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


@dataclasses.dataclass
class Said:
    """What a call of the command line left on the terminal."""

    code: int
    out: str
    err: str

    def lines(self, kind: str) -> list[str]:
        """The lines of a kind on standard error, which has lines of known kinds only."""
        lines = self.err.splitlines()
        assert all(line.startswith(("error: ", "warning: ", "note: ")) for line in lines), self.err
        return [line.partition(": ")[2] for line in lines if line.startswith(f"{kind}: ")]

    @property
    def error(self) -> str:
        """The message of a refusal."""
        assert self.code == 2, (self.code, self.err)
        (line,) = self.lines("error")
        return line


Call = Callable[..., Said]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder of its own with a benchmark ``root``."""
    monkeypatch.chdir(tmp_path)
    return small_benchmark(tmp_path / "root")


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """What the report would be made of, in place of the report."""
    seen: list[Evaluation] = []
    monkeypatch.setattr(otb_command, "write_report", lambda evaluation, _: seen.append(evaluation) or [])
    return seen


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], evaluations: list[Evaluation]) -> Call:
    def run(*flags: object, root: Path | str = "root", out: Path | str = "out") -> Said:
        capsys.readouterr()
        fixed = ["otb", "--root", str(root), "--out", str(out), "--device", "cpu", *QUICK_FLAGS]
        code = evaluate.main([*fixed, *map(str, flags)])
        return Said(code, *capsys.readouterr())

    return run


def summary(out: Path | str = "out") -> dict[str, Any]:
    return json.loads((Path(out) / "summary.json").read_text())


def lasting(out: Path | str = "out") -> dict[str, Any]:
    """The summary without what differs from run to run: times."""
    content = summary(out)
    for score in content["trackers"]["FDN"]["sequences"].values():
        assert score.pop("fps") > 0
    return content


def rows(path: Path | str) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def truth_of(sequence: str) -> NDArray[np.float64]:
    return rows(f"root/{sequence}/groundtruth_rect.txt")


def by_hand(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Precision and AUC in plain words."""
    precise, areas = 0, []
    for (x, y, w, h), (u, v, a, b) in zip(boxes.tolist(), truth.tolist(), strict=True):
        precise += ((x + w / 2 - u - a / 2) ** 2 + (y + h / 2 - v - b / 2) ** 2) ** 0.5 <= 20
        common = max(0, min(x + w, u + a) - max(x, u)) * max(0, min(y + h, v + b) - max(y, v))
        overlap = min(1.0, common / (w * h + a * b - common))
        areas.append(sum(overlap > k / 20 for k in range(21)) / 21)
    return precise / len(boxes), statistics.fmean(areas)


def publish(tracker: str, sequence: str, boxes: NDArray[np.float64]) -> Path:
    path = Path("published") / tracker / f"{sequence}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, boxes, "%.4f", ",")
    return path


# One pass


def test_the_command_as_a_user_gives_it(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Bird2", "Jogging-1", "owl"):
        publish("Perfect", name, truth_of(name))
    flags = ["--device", "cpu", *QUICK_FLAGS, "--compare", "published", "--weights", "untrained"]
    assert evaluate.main(["otb", "--root", "root", "--out", "out", *flags]) == 0
    out, err = capsys.readouterr()
    assert err == f"warning: {UNTRAINED_WARNING}\n"
    for name in ("Bird2", "Jogging-1", "owl"):
        boxes = rows(f"out/results/seed0/ope/{name}.txt")
        np.testing.assert_array_equal(boxes[0], truth_of(name)[0])
        score = summary()["trackers"]["FDN"]["sequences"][name]
        assert (score["precision"], score["auc"]) == pytest.approx(by_hand(boxes, truth_of(name)))
        assert score["seeds"] == {"0": {"precision": score["precision"], "auc": score["auc"]}}
        assert score["fps"] > 0 and score["spread"] is None
    content = summary()
    assert (content["profile"], content["protocol"], content["problems"]) == ("got10k", "ope", [])
    assert list(content["trackers"]) == ["FDN", "Perfect"]
    ours, perfect = content["trackers"].values()
    assert ours["auc"] == pytest.approx(statistics.fmean(score["auc"] for score in ours["sequences"].values()))
    assert (perfect["precision"], perfect["auc"]) == (1.0, pytest.approx(20 / 21))
    assert all(score["fps"] is None for score in perfect["sequences"].values())
    table = [line.split() for line in out.splitlines()]
    assert ["Perfect", "1.000", "0.952", "1.000", "3"] in table
    assert ["FDN", f"{ours['precision']:.3f}", f"{ours['auc']:.3f}", f"{ours['norm_precision']:.3f}", "3"] in table
    written = [line.removeprefix("wrote ") for line in out.splitlines() if line.startswith("wrote ")]
    assert {"out/summary.json", "out/report.html"} <= set(written)
    assert all(Path(path).stat().st_size > 0 for path in written)


def test_what_the_report_is_made_of(call: Call, evaluations: list[Evaluation]) -> None:
    assert call().code == 0
    (evaluation,) = evaluations
    assert evaluation.attributes["Jogging-1"] == ["OCC", "DEF", "OPR"] and "owl" not in evaluation.attributes
    assert list(evaluation.tracks) == ["Bird2", "Jogging-1", "owl"]
    track = evaluation.tracks["Jogging-1"]
    assert [path.name for path in track.image_paths] == [f"{number:04d}.jpg" for number in range(20, 27)]
    np.testing.assert_allclose(track.truth_xywh, TRUTH[19:26] - (1, 1, 0, 0))
    np.testing.assert_allclose(track.boxes_xywh, rows("out/results/seed0/ope/Jogging-1.txt") - (1, 1, 0, 0))
    score = evaluation.trackers["FDN"].sequences["Jogging-1"]
    assert score.stages_ms is not None and set(score.stages_ms) == {"read", "features", "score", "collect", "update"}
    assert score.fps == pytest.approx(1000 / sum(score.stages_ms.values()), rel=0.3)
    assert score.updates is not None and score.updates["iterations"] >= score.updates["long"] >= 1
    assert evaluation.settings["preset"] == "paper" and evaluation.settings["weights"].startswith("fdn (sha256 ")
    assert evaluation.settings["rules"].startswith("got10k")


def test_the_preset_and_flags_reach_the_tracker(call: Call) -> None:
    assert call("--preset", "release", "--sequences", "owl", "--sampling-ratio", 3).code == 0
    record = json.loads(Path("out/results/seed0/ope/owl.json").read_text())
    found = [record["settings"][key] for key in ("round_boxes", "sampling_ratio", "candidates")]
    assert (found, record["preset"]) == ([True, 3, 16], "release")


def test_sequences_are_chosen_by_name_list_and_length(call: Call) -> None:
    assert call("--sequences", "jogging_1", "owl", "--max-frames", 3).code == 0
    scores = summary()["trackers"]["FDN"]["sequences"]
    assert {name: score["frames"] for name, score in scores.items()} == {"Jogging-1": 3, "owl": 3}
    Path("names.txt").write_text("Bird2\n\nowl\n")
    assert call("--list", "names.txt", out="listed").code == 0
    assert list(summary("listed")["trackers"]["FDN"]["sequences"]) == ["Bird2", "owl"]


def test_a_cut_evaluation_compares_the_same_frames(call: Call) -> None:
    boxes = truth_of("owl")
    boxes[3] = 500, 500, 10, 10
    publish("Lost", "owl", boxes)
    assert call("--sequences", "owl", "--max-frames", 3, "--compare", "published").code == 0
    assert summary()["trackers"]["Lost"]["precision"] == 1.0
    assert call("--sequences", "owl", "--compare", "published").code == 0
    assert summary()["trackers"]["Lost"]["precision"] == 0.75


# Seeds and protocols


def test_seeds_give_mean_and_spread(call: Call) -> None:
    said = call("--seeds", 3, "--seed", 5)
    assert said.code == 0
    ours = summary()["trackers"]["FDN"]
    expected: dict[str, list[tuple[float, float]]] = {"5": [], "6": [], "7": []}
    for name, score in ours["sequences"].items():
        assert list(score["seeds"]) == ["5", "6", "7"]
        for seed, of_seed in score["seeds"].items():
            found = by_hand(rows(f"out/results/seed{seed}/ope/{name}.txt"), truth_of(name))
            assert (of_seed["precision"], of_seed["auc"]) == pytest.approx(found)
            expected[seed].append(found)
        aucs = [of_seed["auc"] for of_seed in score["seeds"].values()]
        assert score["auc"] == pytest.approx(statistics.fmean(aucs))
        assert score["spread"]["auc"] == pytest.approx(statistics.stdev(aucs))
    means = [statistics.fmean(auc for _, auc in scores) for scores in expected.values()]
    assert len(set(means)) == 3
    assert [of_seed["auc"] for of_seed in ours["seeds"].values()] == pytest.approx(means)
    assert ours["spread"]["auc"] == pytest.approx(statistics.stdev(means))
    assert f"{ours['auc']:.3f} ± {statistics.stdev(means):.3f}" in said.out


def test_one_seed_is_one_of_several(call: Call) -> None:
    assert call("--seeds", 2, "--sequences", "owl").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("out/results").rglob("*.*")}
    assert call("--seeds", 1, "--seed", 1, "--sequences", "owl").code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out/results").rglob("*.*")} == before
    assert list(summary()["trackers"]["FDN"]["seeds"]) == ["1"]


def test_tre_joins_its_runs_by_their_frames(call: Call, folder: Path, evaluations: list[Evaluation]) -> None:
    add_sequence(folder, "walk", 1, 22)
    assert call("--protocol", "tre", "--sequences", "walk").code == 0
    truth, boxes, truths = truth_of("walk"), [], []
    for k, start in enumerate((0, 1, 2), 1):
        boxes.append(rows(f"out/results/seed0/tre-{k:02d}/walk.txt"))
        np.testing.assert_array_equal(boxes[-1][0], truth[start])
        truths.append(truth[start:])
    score = summary()["trackers"]["FDN"]["sequences"]["walk"]
    assert score["frames"] == 22 + 21 + 20
    found = by_hand(np.concatenate(boxes), np.concatenate(truths))
    assert (score["precision"], score["auc"]) == pytest.approx(found)
    assert not evaluations[0].tracks  # no one track is the sequence's


def test_sre_starts_from_wrong_boxes_and_is_scored_against_the_true_ones(call: Call) -> None:
    assert call("--protocol", "sre", "--sequences", "owl", "--profile", "pysot").code == 0
    folders = sorted(path.name for path in Path("out/results/seed0").iterdir())
    assert len(folders) == 12 and all(name.startswith("sre-") for name in folders)
    boxes = [rows(f"out/results/seed0/{name}/owl.txt") for name in folders]
    x, y, w, h = truth_of("owl")[0]
    np.testing.assert_allclose(rows("out/results/seed0/sre-left/owl.txt")[0], [x - w / 10, y, w, h], atol=1e-4)
    score = summary()["trackers"]["FDN"]["sequences"]["owl"]
    found = by_hand(np.concatenate(boxes), np.tile(truth_of("owl"), (12, 1)))
    assert (score["precision"], score["auc"]) == pytest.approx(found)


# Published results


def test_the_table_of_published_trackers(call: Call) -> None:
    if not (DATA / "otb_results").is_dir():
        pytest.skip("needs the published results in ../shared/data")
    table = {}
    for line in (DATA / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1].startswith("0."):
            table[cells[0].partition(" (")[0]] = (cells[1], cells[2])
    assert len(table) == 12
    said = call("--score-only", "--compare", DATA / "otb_results", root=DATA / "otb")
    assert said.code == 3
    assert said.lines("warning") == ["there are no results of these sequences in out/results"]
    found = {line.split()[0]: tuple(line.split()[1:3]) for line in said.out.splitlines()[1:]}
    assert {name: found[name] for name in table} == table
    assert len(summary()["trackers"]["MDNet"]["sequences"]) == 13


def test_trackers_are_averaged_over_what_they_and_we_have(call: Call) -> None:
    publish("Two", "owl", truth_of("owl"))
    publish("Two", "Bird2", truth_of("Bird2") + 500)
    publish("Two", "Elsewhere", truth_of("owl"))
    publish("None", "Elsewhere", truth_of("owl"))
    said = call("--compare", "published")
    assert said.code == 0
    notes = [
        "None has results of none of the sequences",
        "Two: the mean is over 2 of 3 sequences, without Jogging-1",
    ]
    assert said.lines("note") == notes and summary()["problems"] == notes
    assert list(summary()["trackers"]) == ["FDN", "Two"]
    assert summary()["trackers"]["Two"]["precision"] == pytest.approx(0.6)  # a first frame is never wrong
    assert list(summary()["trackers"]["Two"]["sequences"]) == ["Bird2", "owl"]


def test_bad_published_results_cost_a_line_each(call: Call) -> None:
    publish("Short", "owl", truth_of("owl")[:3])
    publish("Short", "Bird2", truth_of("Bird2"))
    publish("Odd", "owl", truth_of("owl")).write_text("1,2,3\n")
    publish("Odd", "Bird2", truth_of("Bird2")).write_text("")
    said = call("--compare", "published", "--sequences", "owl", "Bird2")
    assert said.code == 3
    warnings = said.lines("warning")
    assert len(warnings) == 3
    assert "Short/owl.txt has 3 rows, owl 4 frames" in warnings[-1]
    assert sum("Odd/" in line for line in warnings) == 2
    assert list(summary()["trackers"]) == ["FDN", "Short"]
    assert list(summary()["trackers"]["Short"]["sequences"]) == ["Bird2"]
    assert set(warnings) < set(summary()["problems"])


def test_an_empty_folder_of_published_results_costs_a_line(call: Call) -> None:
    Path("published/Nobody").mkdir(parents=True)
    said = call("--compare", "published")
    assert said.code == 3
    (line,) = said.lines("warning")
    assert "there are no results in published" in line
    assert list(summary()["trackers"]) == ["FDN"]
    publish("Perfect", "owl", truth_of("owl"))
    said = call("--compare", "published")
    assert (said.code, said.lines("warning")) == (
        3,
        ["published/Nobody holds no results: they lie in it as SEQUENCE.txt"],
    )
    assert list(summary()["trackers"]) == ["FDN", "Perfect"]


@pytest.mark.parametrize(("toolkit", "name"), [("otb", "Jogging-1"), ("pysot", "Jogging-1"), ("got10k", "Jogging.1")])
def test_boxes_are_written_for_other_toolkits(call: Call, toolkit: str, name: str) -> None:
    said = call("--export", toolkit, "--seeds", 2, "--sequences", "Jogging-1")
    assert said.code == 0 and f"wrote out/{toolkit}/FDN" in said.out
    assert [path.name for path in Path(f"out/{toolkit}/FDN").iterdir()] == [f"{name}.txt"]
    np.testing.assert_array_equal(rows(f"out/{toolkit}/FDN/{name}.txt"), rows("out/results/seed0/ope/Jogging-1.txt"))


# Going on


def no_tracking(*_: object) -> Iterator[None]:
    raise AssertionError("it tracks")
    yield


def test_what_is_done_is_not_done_again(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("--seeds", 2).code == 0
    before = summary()
    monkeypatch.setattr(work, "run_tracker", no_tracking)
    said = call("--seeds", 2)
    assert (said.code, said.err) == (0, "")
    assert summary() == before
    assert (call("--seeds", 2, "--score-only").code, summary()) == (0, before)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_a_random_moment_it_goes_on_to_the_same_report(call: Call, folder: Path, workers: int) -> None:
    add_sequence(folder, "walk", 30, 12)
    flags = ["--seeds", "2", "--seed", "3"]
    started = time.monotonic()
    assert call(*flags, out="whole").code == 0
    duration = time.monotonic() - started
    command = [sys.executable, "-m", "fdn_triton.evaluate", "otb", "--root", "root", "--out", "out"]
    command += ["--device", "cpu", *QUICK_FLAGS, *flags, "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not list(Path("out/results").rglob("*.json")) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.002)
        time.sleep(random.uniform(0, duration / 3))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert list(Path("out/results").rglob("*.json")), "nothing was left to go on from"
    said = call(*flags)
    assert (said.code, said.lines("note"), said.lines("warning")) == (0, [], [])
    assert lasting() == lasting("whole")
    for path in Path("whole/results").rglob("*.txt"):
        assert path.read_bytes() == (Path("out") / path.relative_to("whole")).read_bytes()


def test_results_that_cannot_be_trusted_are_said_and_made_again(call: Call) -> None:
    assert call().code == 0
    before = lasting()
    results = Path("out/results/seed0/ope")
    (results / "Bird2.json").write_text('{"unit": ')
    (results / "owl.txt").write_text("1,2,3,4\n")
    shutil.copy(results / "owl.json", results / "Jogging-1.json")
    said = call()
    assert said.code == 0
    assert said.lines("note") == [
        f"{results}/Bird2.json is damaged: run again",
        f"{results}/Jogging-1.json is of a run over other frames or from another box: run again",
        f"{results}/owl.txt was changed after it was written: run again",
    ]
    assert lasting() == before


def test_results_of_other_settings_are_made_again(call: Call) -> None:
    assert call("--sequences", "owl").code == 0
    said = call("--sequences", "owl", "--candidates", 17)
    assert said.code == 0
    (note,) = said.lines("note")
    assert note.endswith("owl.json was made with other settings: candidates 16 instead of 17: run again")
    assert json.loads(Path("out/results/seed0/ope/owl.json").read_text())["settings"]["candidates"] == 17


def test_a_sequence_that_raises_is_recorded_and_tried_again(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    really = work.image_frames

    def frames(paths: list[Path], threads: int = 1) -> Iterator[Any]:
        for frame in really(paths):
            if "Jogging-1" in str(paths[0]) and frame.number == 3:
                raise RuntimeError("the disk\nis on fire")
            yield frame

    monkeypatch.setattr(work, "image_frames", frames)
    publish("Perfect", "Bird2", truth_of("Bird2"))
    publish("Perfect", "Jogging-1", truth_of("Jogging-1") + 500)
    publish("Perfect", "owl", truth_of("owl"))
    said = call("--compare", "published")
    failure = "Jogging-1 (ope, seed 0) failed: RuntimeError: the disk is on fire"
    assert (said.code, said.lines("warning")) == (3, [failure])
    assert summary()["problems"] == [failure]
    for tracker in ("FDN", "Perfect"):  # the published one is compared over what we have
        assert list(summary()["trackers"][tracker]["sequences"]) == ["Bird2", "owl"]
    assert summary()["trackers"]["Perfect"]["precision"] == 1.0
    said = call("--score-only")
    assert (said.code, said.lines("warning")) == (3, [failure])
    monkeypatch.setattr(work, "image_frames", really)
    said = call()
    assert (said.code, said.lines("note")) == (0, [f"{failure}: run again"])
    assert list(summary()["trackers"]["FDN"]["sequences"]) == ["Bird2", "Jogging-1", "owl"]


def test_an_interrupt_ends_it_with_what_was_done(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    really = work.image_frames

    def frames(paths: list[Path], threads: int = 1) -> Iterator[Any]:
        if "Jogging-1" in str(paths[0]):
            raise KeyboardInterrupt
        yield from really(paths)

    monkeypatch.setattr(work, "image_frames", frames)
    assert (call().code, Path("out/summary.json").exists()) == (130, False)
    assert [path.name for path in sorted(Path("out/results").rglob("*.*"))] == ["Bird2.json", "Bird2.txt"]


# What cannot be evaluated


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
