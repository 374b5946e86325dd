"""``evaluate otb`` runs and scores a benchmark: in one pass, with several seeds, by TRE and SRE."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import evaluate_command
import numpy as np
import pytest
from evaluate_command import Call, by_hand, publish, rows, summary, truth_of
from small_otb import QUICK_FLAGS, TRUTH, add_sequence

from fdn_triton import evaluate
from fdn_triton.evaluation.summary import Evaluation
from fdn_triton.weights import UNTRAINED_WARNING

folder, evaluations, call = evaluate_command.folder, evaluate_command.evaluations, evaluate_command.call  # fixtures


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
