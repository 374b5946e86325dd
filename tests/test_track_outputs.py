"""What the ``track`` command writes: boxes, the JSON summary, the log and the overlay video."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import track_command
from small_otb import TRUTH
from track_command import INIT, QUICK, ROOT, Call, otb, rows, summary

from fdn_triton.config import NetworkConfig
from fdn_triton.weights import load_weights, save_weights, untrained_weights

folder, call = track_command.folder, track_command.call  # fixtures


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 frames, whose every frame fails but is scored, with all its files; its terminal is in out.txt."""
    path = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        otb(6)
        flags = "-m fdn_triton.track --seq owl --json sub/s.json --save-video v.mp4 --log-updates --seed 3"
        command = [sys.executable, *flags.split(), *QUICK, "--score-threshold", "1e9", "--device", "cpu"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    (path / "out.txt").write_text(done.stdout)
    return path


def test_the_summary_has_every_key(finished: Path) -> None:
    found = summary(finished / "sub/s.json")
    expected = {"sequence", "frames", "targets", "device", "backend", "preset", "seed", "weights", "versions"}
    expected |= {"first_frame_s", "fps", "stages_ms", "updates", "precision", "auc"}
    assert expected <= set(found)
    assert [found[key] for key in ("sequence", "frames", "targets", "device")] == ["owl", 6, 1, "cpu"]
    assert (found["preset"], found["seed"]) == ("paper", 3)
    weights = load_weights("fdn", NetworkConfig())
    assert found["weights"] == {"name": weights.name, "sha256": weights.sha256}
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["fps"]) == {"end_to_end", "tracking"}
    assert 0 < found["fps"]["end_to_end"] <= found["fps"]["tracking"]
    assert list(found["stages_ms"]) == ["read", "features", "score", "collect", "update"]
    for stage in found["stages_ms"].values():
        assert set(stage) == {"median", "mean"} and min(stage.values()) >= 0
    for stage_name in ("features", "score", "update"):
        assert found["stages_ms"][stage_name]["median"] > 0
    of_the_tracker = sum(found["stages_ms"][name]["mean"] for name in ("features", "score", "collect", "update"))
    assert of_the_tracker == pytest.approx(1000 / found["fps"]["tracking"], rel=0.2)


def test_the_summary_s_accuracy_is_that_of_the_rows_on_disk(finished: Path) -> None:
    found, boxes, truth = summary(finished / "sub/s.json"), rows(finished / "results/owl.txt"), TRUTH[:6]
    np.testing.assert_array_equal(boxes[0], truth[0])
    corners, true_corners = boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:]
    common = np.minimum(corners, true_corners) - np.maximum(boxes[:, :2], truth[:, :2])
    intersection = common.clip(min=0).prod(axis=1)
    iou = intersection / (boxes[:, 2:].prod(axis=1) + truth[:, 2:].prod(axis=1) - intersection)
    distance = np.hypot(*((boxes[:, :2] + corners - truth[:, :2] - true_corners) / 2).T)
    assert found["precision"] == pytest.approx(np.mean(distance <= 20))
    assert found["auc"] == pytest.approx(np.mean([np.mean(iou > k / 20) for k in range(21)]))
    assert found["mean_iou"] == pytest.approx(iou.mean(), abs=1e-4)


def test_the_log_has_a_row_a_frame_and_agrees_with_the_summary(finished: Path) -> None:
    out = (finished / "out.txt").read_text()
    header, *log = [line.split() for line in out.splitlines()[:7]]
    assert header == ["frame", "target", "score", "loss", "iterations"]
    assert [row[0] for row in log] == ["1", "2", "3", "4", "5", "6"]
    assert log[0][2] == "-" and log[0][4] == "2"  # no search on the first frame, but it is learnt
    assert all(np.isfinite([float(row[2]), float(row[3])]).all() for row in log[1:])
    updates = summary(finished / "sub/s.json")["updates"]
    assert updates == {"short": 5, "long": 0, "iterations": sum(int(row[4]) for row in log[1:])}
    for file in ("results/owl.txt", "sub/s.json", "v.mp4"):
        assert f"wrote {file}\n" in out


def test_the_overlay_video_has_every_frame(finished: Path) -> None:
    video = cv2.VideoCapture(str(finished / "v.mp4"))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == 6


def test_the_run_leaves_its_files_and_no_others(finished: Path) -> None:
    found = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    found = {path for path in found if not path.startswith("owl/")}
    assert found == {"results/owl.txt", "sub/s.json", "v.mp4", "out.txt"}


def test_several_targets(call: Call) -> None:
    folder = otb(3)
    other = "60,40,30,30"
    said = call("--seq", folder / "img", "--init", INIT, "--init", other, "--json", "s.json", "--log-updates")
    assert (said.code, said.err) == (0, "")
    first, second = rows("results/owl.1.txt"), rows("results/owl.2.txt")
    np.testing.assert_array_equal([first[0], second[0]], [[120, 80, 40, 50], [60, 40, 30, 30]])
    assert len(first) == len(second) == 3 and summary("s.json")["targets"] == 2
    assert [line.split()[:2] for line in said.out.splitlines()[1:7]] == [
        [str(frame), str(target)] for frame in (1, 2, 3) for target in (1, 2)
    ]
    assert call("--seq", folder / "img", "--init", other, "--out", "alone.txt").code == 0
    # Up to the rounding of batched products, which a draw's ranking may magnify, but not on the next frame.
    np.testing.assert_allclose(rows("alone.txt")[1], second[1], atol=0.05)


def test_several_targets_of_the_ground_truth(call: Call) -> None:
    folder = otb(3)
    (folder / "groundtruth_rect.txt").rename(folder / "groundtruth_rect.1.txt")
    np.savetxt(folder / "groundtruth_rect.2.txt", TRUTH[:3] + (20, 10, 5, 5), "%.1f", ",")
    assert call("--seq", folder, "--out", "b.dat", "--json", "s.json", "--save-video", "v.avi").code == 0
    np.testing.assert_array_equal(rows("b.1.dat")[0], TRUTH[0])
    np.testing.assert_allclose(rows("b.2.dat")[0], TRUTH[0] + (20, 10, 5, 5))
    found = summary("s.json")
    assert (found["targets"], found["scored_frames"]) == (2, 6)
    for key in ("precision", "auc", "mean_iou"):
        assert found[key] == pytest.approx(np.mean([target[key] for target in found["per_target"]]))
    assert not Path("b.dat").exists()


def test_init_wins_over_the_ground_truth_and_is_still_scored(call: Call) -> None:
    assert call("--seq", otb(2), "--init", INIT, "--json", "s.json").code == 0
    np.testing.assert_array_equal(rows("results/owl.txt")[0], [121, 81, 40, 50])
    assert summary("s.json")["scored_frames"] == 2


def test_max_frames_and_a_run_of_one_frame(call: Call) -> None:
    folder = otb(4)
    assert call("--seq", folder, "--max-frames", 2, "--json", "s.json").code == 0
    assert len(rows("results/owl.txt")) == summary("s.json")["frames"] == 2
    said = call("--seq", folder, "--max-frames=1", "--json", "s.json")
    assert (said.code, said.err) == (0, "")
    assert summary("s.json")["fps"] == {"end_to_end": None, "tracking": None}
    np.testing.assert_array_equal(rows("results/owl.txt"), TRUTH[:1])


def test_equal_seeds_give_equal_files_and_other_seeds_others(call: Call) -> None:
    folder = otb(4)
    for seed, out in ((5, "a"), (5, "b"), (6, "c")):
        assert call("--seq", folder, "--seed", seed, "--out", out).code == 0
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert (rows("a")[1:] != rows("c")[1:]).any(axis=1).all()


def test_weights_from_a_file(call: Call) -> None:
    save_weights("w.safetensors", untrained_weights(NetworkConfig(), seed=4))
    folder = otb(2)
    assert call("--seq", folder, "--weights", "w.safetensors", "--json", "s.json").code == 0
    sha256 = subprocess.run(["sha256sum", "w.safetensors"], capture_output=True, text=True).stdout.split()
    assert summary("s.json")["weights"]["name"] == "w.safetensors"
    assert not sha256 or summary("s.json")["weights"]["sha256"] == sha256[0]
