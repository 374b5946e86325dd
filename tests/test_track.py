"""The command line: what it reads, writes and says, and that bad input costs one line and nothing that was tracked."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from fdn_triton import track, window
from fdn_triton.config import PRESETS, NetworkConfig, TrackerConfig
from fdn_triton.demo import __main__ as demo
from fdn_triton.demo import clip_path
from fdn_triton.errors import InputError
from fdn_triton.sequence import Frame, Sequence
from fdn_triton.tracker import Tracker
from fdn_triton.weights import UNTRAINED_WARNING, load_weights, save_weights, untrained_weights

ROOT = Path(__file__).resolve().parents[1]
TRUTH = np.loadtxt(clip_path() / "groundtruth_rect.txt", delimiter=",")  # 1-based
INIT = "120,80,40,50"

# A tracker that follows nothing for long, but takes all its steps in milliseconds.
_QUICK = (
    "--short-side 100 --max-side 200 --candidates 16 --bbox-regression-draws 300 --bbox-regression-samples 30 "
    "--first-positive-draws 60 --first-positives 20 --first-negative-draws 100 --first-negatives 40 "
    "--first-iterations 2 --positive-draws 20 --positives 10 --negative-draws 40 --negatives 20 "
    "--batch-positives 8 --batch-negatives 8 --mining-negatives 16 --update-iterations 2"
)
QUICK = _QUICK.split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder of its own, without a display."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path


@dataclasses.dataclass
class Said:
    """What a call of the command line left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of a refusal, which is one line and says nothing of Python."""
        assert self.code == 2, (self.code, self.out, self.err)
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        others = [line for line in lines if not line.startswith(("error: ", "note: ", "warning: "))]
        assert len(errors) == 1 and not others, self.err
        return errors[0].removeprefix("error: ")


Call = Callable[..., Said]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*flags: object, main: Callable[[list[str]], int] = track.main) -> Said:
        capsys.readouterr()
        code = main([*QUICK, *map(str, flags)])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


def test_untrained_weights_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert track.main([*QUICK, "--seq", str(otb(2)), "--weights", "untrained"]) == 0
    assert capsys.readouterr().err == f"warning: {UNTRAINED_WARNING}\n"


def test_outputs_spare_each_other_and_what_is_read(call: Call) -> None:
    folder = otb(2)
    truth = (folder / "groundtruth_rect.txt").read_bytes()
    assert "overwrite what is read" in call("--seq", folder, "--out", folder / "groundtruth_rect.txt").error
    assert (folder / "groundtruth_rect.txt").read_bytes() == truth
    video = write_video("in.avi", 3)
    before = video.read_bytes()
    assert "overwrite what is read" in call("--seq", video, "--init", INIT, "--save-video", "in.avi").error
    assert video.read_bytes() == before
    assert "same path" in call("--seq", folder, "--out", "x.txt", "--json", "./x.txt").error
    assert not Path("x.txt").exists()


def test_a_reader_that_leaves_costs_no_result(tmp_path: Path) -> None:
    flags = [*QUICK, "--seq", str(otb(4)), "--log-updates", "--json", "s.json"]
    command = f"{shlex.join([sys.executable, '-m', 'fdn_triton.track', *flags])} | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.split() == ["frame", "target", "score", "loss", "iterations"]
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert 1 <= len(rows("results/owl.txt")) == summary("s.json")["frames"]


def otb(frames: int = 4, name: str = "owl") -> Path:
    """The demo clip's beginning as an OTB folder."""
    path = Path(name)
    (path / "img").mkdir(parents=True)
    for number in range(1, frames + 1):
        shutil.copy(clip_path() / "img" / f"{number:04d}.jpg", path / "img")
    np.savetxt(path / "groundtruth_rect.txt", TRUTH[:frames], "%.1f", ",")
    return path


def rows(path: Path | str) -> NDArray[np.float64]:
    """[N, 4] of a result file, every line of which is whole."""
    text = Path(path).read_text()
    assert re.fullmatch(r"(-?\d+\.\d{4}(,-?\d+\.\d{4}){3}\n)*", text), text
    return np.array([[float(number) for number in line.split(",")] for line in text.splitlines()]).reshape(-1, 4)


def summary(path: Path | str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def truncate(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:2000])


# What is read


def test_boxes_are_in_the_convention_of_the_input_and_equal_in_all_forms(call: Call) -> None:
    folder = otb()
    box = ",".join(str(number) for number in TRUTH[0] - (1, 1, 0, 0))
    vot = Path("vot")
    shutil.copytree(folder / "img", vot)
    np.savetxt(vot / "groundtruth.txt", TRUTH[:4] - (1, 1, 0, 0), "%.1f", ",")
    for flags in (
        ["--seq", folder, "--out", "otb.txt"],
        ["--seq", vot, "--out", "vot.txt"],
        ["--seq", folder / "img", "--init", box, "--out", "images.txt"],
        ["--seq", "owl/im*/*.jpg", "--init", box, "--out", "glob.txt"],
    ):
        said = call(*flags)
        assert (said.code, said.err) == (0, "")
    np.testing.assert_array_equal(rows("otb.txt")[0], TRUTH[0])
    assert len(np.unique(rows("otb.txt"), axis=0)) == 4
    np.testing.assert_allclose(rows("vot.txt"), rows("otb.txt") - (1, 1, 0, 0), atol=1.1e-4)
    for other in ("images.txt", "glob.txt"):
        np.testing.assert_array_equal(rows(other), rows("vot.txt"))


def write_video(path: str, frames: int = 4) -> Path:
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (320, 240))
    for number in range(1, frames + 1):
        image = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
        assert image is not None
        writer.write(image)
    writer.release()
    return Path(path)


def test_video_file_in_and_out(call: Call) -> None:
    said = call("--seq", write_video("owl.avi"), "--init", INIT, "--json", "s.json", "--save-video", "drawn.avi")
    assert (said.code, said.err) == (0, "")
    boxes = rows("results/owl.txt")
    assert len(boxes) == 4
    np.testing.assert_array_equal(boxes[0], [120, 80, 40, 50])
    assert "precision" not in summary("s.json") and "auc" not in summary("s.json")
    drawn, plain = cv2.VideoCapture("drawn.avi"), cv2.VideoCapture("owl.avi")
    assert drawn.get(cv2.CAP_PROP_FPS) == 12.5
    for x, y, w, h in boxes:
        with_box, without = drawn.read()[1].astype(int), plain.read()[1].astype(int)
        difference = np.abs(with_box - without).max(axis=2)
        top, left, bottom, right = round(y), round(x), round(y + h), round(x + w)
        for line in (difference[top, left:right], difference[top:bottom, left]):
            assert np.median(line) > 40
        assert np.median(difference) < 10
    assert not drawn.read()[0]


def test_a_video_that_was_cut_off(call: Call) -> None:
    path = write_video("owl.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 8])
    said = call("--seq", path, "--init", INIT, "--json", "s.json", "--out", "b.txt")
    if "no frame" in said.err or "not a video" in said.err:
        pytest.skip(f"this OpenCV opens no cut video at all: {said.error}")
    assert "ends early" in said.error
    assert 0 < len(rows("b.txt")) < 40
    assert summary("s.json")["frames"] == len(rows("b.txt"))


def camera(frames: int) -> Callable[[int], Sequence]:
    def source() -> Iterator[Frame]:
        for number in range(1, frames + 1):
            bgr = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
            assert bgr is not None
            yield Frame(number, np.ascontiguousarray(bgr[..., ::-1]))
        yield Frame(frames + 1, None, "camera 3 gives no more frames")

    return lambda index: Sequence(f"camera{index}", None, None, False, (), None, source)


def test_camera(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "open_camera", camera(3))
    said = call("--camera", 3, "--init", INIT, "--max-frames", 2)
    assert (said.code, said.err) == (0, "")
    assert len(rows("results/camera3.txt")) == 2
    assert "no more frames" in call("--camera", 3, "--init", INIT).error
    assert len(rows("results/camera3.txt")) == 3


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    code = track.main(["--camera", "97", "--init", INIT])
    out, err = capfd.readouterr()  # of the process: OpenCV prints past sys.stderr
    assert "camera 97 cannot be opened" in Said(code, out, err).error


@pytest.mark.parametrize("kind", ["grey", "16-bit", "RGBA"])
def test_frames_of_other_depths_and_channels(call: Call, kind: str) -> None:
    Path("frames").mkdir()
    for number in range(1, 4):
        bgr = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
        assert bgr is not None
        image: NDArray[Any] = {
            "grey": lambda bgr=bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY),
            "16-bit": lambda bgr=bgr: bgr.astype(np.uint16) * 257,
            "RGBA": lambda bgr=bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA),
        }[kind]()
        assert cv2.imwrite(f"frames/{number}.png", image)
    said = call("--seq", "frames", "--init", INIT)
    assert (said.code, said.err, len(rows("results/frames.txt"))) == (0, "", 3)


def test_a_frame_size_that_changes(call: Call) -> None:
    folder = otb()
    for number in (3, 4):
        path = str(folder / "img" / f"{number:04d}.jpg")
        image = cv2.imread(path)
        assert image is not None and cv2.imwrite(path, cv2.resize(image, (640, 480)))
    said = call("--seq", folder, "--save-video", "v.avi")
    assert (said.code, said.err) == (0, "")
    boxes = rows("results/owl.txt")
    growth = boxes[2, 2:] / boxes[1, 2:]
    assert (growth > 1.5).all() and (growth < 2.7).all()  # the target grew with the frame
    video = cv2.VideoCapture("v.avi")
    sizes = [image.shape for ok, image in iter(video.read, (False, None)) if ok]
    assert sizes == [(240, 320, 3)] * 4


@pytest.mark.parametrize("row", ["NaN,NaN,NaN,NaN", "0,0,0,0"])
def test_ground_truth_rows_without_a_box_are_not_scored(call: Call, row: str) -> None:
    folder = otb()
    lines = (folder / "groundtruth_rect.txt").read_text().splitlines()
    (folder / "groundtruth_rect.txt").write_text("\n".join([lines[0], lines[1], row, lines[3]]))
    said = call("--seq", folder, "--json", "s.json", "--save-video", "v.avi")
    assert (said.code, said.err) == (0, "")
    assert summary("s.json")["scored_frames"] == 3
    assert len(rows("results/owl.txt")) == 4


def test_fewer_ground_truth_rows_than_frames(call: Call) -> None:
    folder = otb()
    np.savetxt(folder / "groundtruth_rect.txt", TRUTH[:2], "%.1f", ",")
    said = call("--seq", folder, "--json", "s.json", "--save-video", "v.avi")
    assert said.code == 0 and said.err.startswith("note: ") and "fewer rows (2)" in said.err
    assert (summary("s.json")["frames"], summary("s.json")["scored_frames"]) == (4, 2)


# What is written


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


class _Recorder(Tracker):
    """Lets a test look at what happens around each frame; ``before`` gets the frame's number."""

    before: Callable[[int], None]
    seen = 1

    def update(self, image: Any) -> Any:
        self.seen += 1
        type(self).before(self.seen)
        return super().update(image)


def record(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
    monkeypatch.setattr(_Recorder, "before", staticmethod(before), raising=False)
    monkeypatch.setattr(track, "Tracker", _Recorder)


def test_a_row_is_on_disk_before_the_next_frame_is_tracked(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    record(monkeypatch, lambda number: seen.append((number, len(rows("b.txt")))))
    assert call("--seq", otb(), "--out", "b.txt").code == 0
    assert seen == [(2, 1), (3, 2), (4, 3)]


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


# Flags


def configured(monkeypatch: pytest.MonkeyPatch, *flags: str) -> TrackerConfig:
    """The configuration that the flags give; nothing is tracked."""
    seen: list[TrackerConfig] = []

    def refuse(config: TrackerConfig, **_: Any) -> None:
        seen.append(config)
        raise InputError("seen")

    monkeypatch.setattr(track, "Tracker", refuse)
    assert track.main(["--seq", str(clip_path()), *flags]) == 2
    return seen[0]


@pytest.mark.parametrize("preset", [("--preset", "release"), ("--preset=release",)])
@pytest.mark.parametrize("first", [True, False])
def test_single_fields_override_the_preset(
    monkeypatch: pytest.MonkeyPatch, preset: tuple[str, ...], first: bool
) -> None:
    single = ("--candidates", "64", "--roi-extend", "0.5")
    found = configured(monkeypatch, *(single + preset if first else preset + single))
    release = PRESETS["release"]
    network = dataclasses.replace(release.network, roi_extend=0.5)
    assert found == dataclasses.replace(release, candidates=64, network=network)
    assert found.bbox_regression is False and PRESETS["paper"].bbox_regression is True


def test_without_flags_it_is_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured(monkeypatch) == PRESETS["paper"] == TrackerConfig()
    assert configured(monkeypatch, "--bbox-regression", "--loss-threshold", "None") == dataclasses.replace(
        TrackerConfig(), loss_threshold=None
    )


def test_help_names_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert track.main(["--help"]) == 0
    text = capsys.readouterr().out
    names = [field.name for kind in (TrackerConfig, NetworkConfig) for field in dataclasses.fields(kind)]
    for name in names:
        if name != "network":
            assert f"--{name.replace('_', '-')}" in text
    assert all(f"--{name}" in text for name in ("seq", "camera", "init", "out", "json", "on-bad-frame", "log-updates"))


# Frames that cannot be read


def test_a_bad_frame_stops_the_run_and_what_was_tracked_is_kept(call: Call) -> None:
    folder = otb(5)
    truncate(folder / "img/0004.jpg")
    said = call("--seq", folder, "--json", "s.json", "--save-video", "v.avi")
    assert "frame 4" in said.error and "0004.jpg is truncated" in said.error and "--on-bad-frame skip" in said.error
    assert len(rows("results/owl.txt")) == summary("s.json")["frames"] == summary("s.json")["scored_frames"] == 3
    assert cv2.VideoCapture("v.avi").get(cv2.CAP_PROP_FRAME_COUNT) == 3  # the file is finished, too


def test_a_bad_frame_is_skipped_on_demand(call: Call) -> None:
    folder = otb(5)
    truncate(folder / "img/0003.jpg")
    said = call("--seq", folder, "--json", "s.json", "--on-bad-frame", "skip", "--log-updates", "--save-video", "v.avi")
    assert said.code == 0
    assert re.fullmatch(r"warning: frame 3 skipped: .*0003\.jpg is truncated\n", said.err)
    boxes = rows("results/owl.txt")
    assert len(boxes) == summary("s.json")["frames"] == 5
    np.testing.assert_array_equal(boxes[2], boxes[1])
    assert (boxes[3] != boxes[2]).any()
    assert said.out.splitlines()[3].split() == ["3", "1", "-", "-", "-"]
    video = cv2.VideoCapture("v.avi")
    assert sum(video.read()[0] for _ in range(6)) == 5, "the video keeps step with the rows"


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_the_first_frame_must_be_readable(call: Call, policy: str) -> None:
    folder = otb(3)
    truncate(folder / "img/0001.jpg")
    assert "the first frame is needed" in call("--seq", folder, "--on-bad-frame", policy).error
    assert not Path("results").exists()


# Input that cannot be used: a line, code 2, and files that were there stay as they are


def _wrong_weights() -> list[str]:
    save_file({"layer.weight": torch.zeros(3, 4)}, "other.safetensors")
    return ["--weights", "other.safetensors"]


def _weights_of_another_network() -> list[str]:
    network = NetworkConfig(conv_layers=5)
    save_weights("five.safetensors", untrained_weights(network))
    return ["--weights", "five.safetensors"]


def _file_as_folder(flag: str, name: str = "file/x.avi") -> Callable[[], list[str]]:
    def make() -> list[str]:
        Path("file").write_text("not a folder")
        return [flag, name]

    return make


def _truth(text: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        Path("owl/groundtruth_rect.txt").write_text(text)
        return []

    return make


def _no_truth() -> list[str]:
    Path("owl/groundtruth_rect.txt").unlink()
    return []


def _empty_folder() -> list[str]:
    Path("empty").mkdir()
    return ["--seq", "empty"]


def _text_as_video() -> list[str]:
    Path("film.mp4").write_text("no film")
    return ["--seq", "film.mp4"]


def _flags(*flags: str) -> Callable[[], list[str]]:
    return lambda: list(flags)


BAD_INPUT: dict[str, tuple[Callable[[], list[str]], str]] = {
    "missing folder": (_flags("--seq", "nowhere"), "nowhere does not exist"),
    "empty folder": (_empty_folder, "no images"),
    "no video": (_text_as_video, "film.mp4 is not a video"),
    "glob without a match": (_flags("--seq", "owl/*.bmp"), "matches nothing"),
    "both sources": (_flags("--camera", "0"), "either --seq PATH or --camera N"),
    "no first box": (_no_truth, "--init X,Y,W,H"),
    "no box on the first frame": (_truth("NaN,NaN,NaN,NaN\n1,1,9,9\n"), "no box on the first frame"),
    "ground truth that is not numbers": (_truth("1,2,3,4\n1,x,3,4\n"), "line 2: 'x' is not a number"),
    "ground truth that is too short": (_truth("1,2,3\n"), "line 1: 3 numbers"),
    "ground truth outside": (_truth("900,2,3,4\n"), "lies outside the frame of 320x240"),
    "box of no area": (_flags("--init", "5,5,0,20"), "has no area"),
    "box of negative area": (_flags("--init", "5,5,20,-3"), "has no area"),
    "box outside": (_flags("--init", "320,5,20,20"), "outside the frame of 320x240"),
    "box left of the frame": (_flags("--init=-30,5,20,20"), "outside the frame of 320x240"),
    "box of NaN": (_flags("--init", "5,nan,20,20"), "is not finite"),
    "infinite box": (_flags("--init", "5,5,inf,20"), "is not finite"),
    "three numbers": (_flags("--init", "5,5,20"), "is not a box: give four numbers"),
    "five numbers": (_flags("--init", "5,5,20,20,1"), "is not a box"),
    "words": (_flags("--init", "left,top,w,h"), "is not a box"),
    "second box bad": (_flags("--init", "5,5,20,20", "--init", "5,5,20,0"), "has no area"),
    "init and select": (_flags("--init", "5,5,20,20", "--select"), "--init and --select"),
    "no display to select": (_flags("--select"), "no display"),
    "no display to show": (_flags("--show"), "no display"),
    "missing weights": (_flags("--weights", "none.pth"), "cannot read 'none.pth'"),
    "weights of something else": (_wrong_weights, "other.safetensors"),
    "weights of another network": (_weights_of_another_network, "conv_layers=3"),
    "unknown device": (_flags("--device", "toaster"), "unknown device 'toaster'"),
    "max frames 0": (_flags("--max-frames", "0"), "must be at least 1"),
    "max frames below 0": (_flags("--max-frames=-4"), "must be at least 1"),
    "unknown preset": (_flags("--preset", "quick"), "'quick'"),
    "unknown policy": (_flags("--on-bad-frame", "cry"), "'cry'"),
    "unknown flag": (_flags("--candidate-count", "5"), "--candidate-count"),
    "no candidates": (_flags("--candidates", "0"), "candidates is 0: it must be at least 1"),
    "not a number": (_flags("--candidates", "many"), "many"),
    "more best than candidates": (_flags("--top-k", "50"), "top_k is 50"),
    "NaN as a number": (_flags("--search-translation", "nan"), "search_translation is nan"),
    "negative scale step": (_flags("--scale-step=-1"), "scale_step is -1.0"),
    "negative extension": (_flags("--roi-extend=-5"), "roi_extend is -5.0"),
    "seed of too many digits": (_flags("--seed", "9" * 30), "seed is 999"),
    "one draw to halve": (_flags("--first-negative-draws", "1"), "first_negative_draws is 1"),
    "JSON below a file": (_file_as_folder("--json"), "cannot write file/x.avi"),
    "video below a file": (_file_as_folder("--save-video"), "cannot write file/x.avi"),
    "JSON onto the input": (_flags("--json", "owl"), "owl would overwrite what is read"),
    "JSON onto a folder": (_flags("--json", "owl/img"), "cannot write owl/img"),
    "JSON of too long a name": (_flags("--json", "x" * 300), "cannot write xxx"),
    "video of unknown kind": (_flags("--save-video", "v.gif"), "video format of v.gif"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_harms_no_result_that_is_there(call: Call, case: str) -> None:
    otb(2)
    make, words = BAD_INPUT[case]
    Path("old.txt").write_text("old\n")
    flags = make()
    source = [] if "--seq" in flags else ["--seq", "owl"]
    assert words in call(*source, "--out", "old.txt", *flags).error
    assert Path("old.txt").read_text() == "old\n"


def test_no_source_and_no_flags_at_all(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert "either --seq PATH or --camera N" in call().error
    assert "either --seq" in Said(track.main([]), *capsys.readouterr()).error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(call: Call) -> None:
    assert "sees no GPU: use --device cpu" in call("--seq", otb(1), "--device", "cuda").error


@pytest.mark.parametrize("out", ["file/x.txt", "owl/img", "x" * 300, "."])
@pytest.mark.parametrize("targets", [1, 2])
def test_boxes_that_cannot_be_written(call: Call, out: str, targets: int) -> None:
    folder = otb(1)
    _file_as_folder("--out")()
    init = ["--init", INIT] * targets
    if (out, targets) == ("owl/img", 2):
        Path("owl/img.2").mkdir()
        Path("owl/img.1").write_text("old\n")
    assert f"cannot write {out.removesuffix('.txt')}" in call("--seq", folder, "--out", out, *init).error
    if (out, targets) == ("owl/img", 2):
        assert Path("owl/img.1").read_text() == "old\n"  # the first file is not emptied for a second one that fails


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_like_others(call: Call) -> None:
    assert "cannot write /dev/full: No space left" in call("--seq", otb(2), "--out", "/dev/full").error


def test_the_module_as_a_program_ends_with_code_2() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fdn_triton.track", "--seq", "nowhere"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert "nowhere does not exist" in Said(done.returncode, done.stdout, done.stderr).error


# Interruption


def test_an_interrupt_keeps_what_was_tracked(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def before(number: int) -> None:
        if number == 4:
            raise KeyboardInterrupt

    record(monkeypatch, before)
    said = call("--seq", otb(5), "--json", "s.json", "--save-video", "v.avi")
    assert (said.code, said.err) == (130, "interrupted\n")
    assert len(rows("results/owl.txt")) == summary("s.json")["frames"] == 3
    assert cv2.VideoCapture("v.avi").get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_in_the_middle_of_a_run() -> None:
    command = [sys.executable, "-m", "fdn_triton.track", "--seq", str(clip_path()), "--json", "s.json"]
    process = subprocess.Popen(
        [*command, "--out", "b.txt", *QUICK],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore the signal, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if Path("b.txt").exists() and Path("b.txt").read_text().count("\n") >= 3:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "interrupted\n")
    boxes = rows("b.txt")
    assert 3 <= len(boxes) < 80
    np.testing.assert_array_equal(boxes[0], TRUTH[0])
    # The signal may come between a row and its being counted.
    assert 0 <= len(boxes) - summary("s.json")["frames"] <= 1
    assert "wrote b.txt" in out


# Windows


def pretend_display(monkeypatch: pytest.MonkeyPatch, keys: list[int]) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    for name in ("namedWindow", "resizeWindow", "imshow", "destroyAllWindows"):
        monkeypatch.setattr(window.cv2, name, lambda *_: None)
    pressed = iter(keys)
    monkeypatch.setattr(window.cv2, "waitKey", lambda _: next(pressed, -1))
    monkeypatch.setattr(window.cv2, "getWindowProperty", lambda *_: 1.0)


def test_q_in_the_window_ends_the_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_display(monkeypatch, [-1, ord("q")])
    said = call("--seq", otb(5), "--show", "--json", "s.json")
    assert (said.code, said.err) == (0, "")
    assert len(rows("results/owl.txt")) == summary("s.json")["frames"] == 2


def test_boxes_drawn_with_the_mouse(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_display(monkeypatch, [])
    monkeypatch.setattr(window.cv2, "selectROIs", lambda *_, **__: np.array([[10, 20, 30, 40], [50, 60, 70, 80]]))
    assert call("--seq", otb(2) / "img", "--select").code == 0
    np.testing.assert_array_equal(rows("results/owl.1.txt")[0], [10, 20, 30, 40])
    np.testing.assert_array_equal(rows("results/owl.2.txt")[0], [50, 60, 70, 80])


# The demo


def test_the_demo_follows_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--short-side 400 --candidates 128 --first-iterations 10 --first-negatives 500 --no-bbox-regression"
    assert demo.main(["--max-frames", "12", *flags.split()]) == 0
    assert "the target was followed: mean IoU 0." in capsys.readouterr().out
    assert len(rows("results/demo.txt")) == summary("results/demo.json")["frames"] == 12
    assert summary("results/demo.json")["mean_iou"] > 0.6
    assert cv2.VideoCapture("results/demo.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 12


def test_the_demo_says_when_its_target_was_lost(call: Call) -> None:
    said = call("--max-frames", 3, "--init", "0,0,30,30", main=demo.main)
    assert said.code == 1 and "the target was lost" in said.out


def test_the_demo_passes_on_flags_and_codes(call: Call) -> None:
    assert "has no area" in call("--init", "1,1,0,0", main=demo.main).error
    said = call("--max-frames", 2, "--init", INIT, "--init", "9,9,30,30", main=demo.main)
    assert said.code == 0 and "the target was" not in said.out  # of two targets there is no ground truth
