"""The command line of training: both commands, going on after kill -9, what they say and refuse."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_otb import QUICK_FLAGS
from small_training import (
    CLASSIFY_FLAGS,
    DOMAINS_FLAGS,
    class_folders,
    photograph,
    start_weights,
    video_folders,
)

from fdn_triton import track, train
from fdn_triton.config import NetworkConfig
from fdn_triton.demo import clip_path
from fdn_triton.training.loop import CHECKPOINT, LOG, WEIGHTS
from fdn_triton.weights import save_weights, untrained_weights

ROOT = Path(__file__).resolve().parents[1]
OFTEN = ["--log-every", "1", "--checkpoint-seconds", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images``, ``videos``, ``start.safetensors``."""
    folder = tmp_path_factory.mktemp("data")
    class_folders(folder / "images")
    video_folders(folder / "videos")
    start_weights(folder / "start.safetensors")
    return folder


def classify(data: Path, out: Path, *flags: str) -> list[str]:
    return ["classify", "--images", str(data / "images"), "--out", str(out), *CLASSIFY_FLAGS, *flags]


def domains(data: Path, out: Path, *flags: str) -> list[str]:
    places = ["--videos", str(data / "videos"), "--weights", str(data / "start.safetensors"), "--out", str(out)]
    return ["domains", *places, "--cycles", "4", *DOMAINS_FLAGS, *flags]


COMMANDS = {"classify": classify, "domains": domains}


@pytest.fixture(scope="module")
def runs(data: Path) -> Path:
    """An uninterrupted run of each command."""
    for name, command in COMMANDS.items():
        assert train.main(command(data, data / "runs" / name, *OFTEN)) == 0
    return data / "runs"


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def refusal(capsys: pytest.CaptureFixture[str], flags: list[str]) -> str:
    """The one line on standard error of a command that cannot do its work."""
    capsys.readouterr()
    assert train.main(flags) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:"))
    assert line.startswith("error: ")
    return line


def test_classify_then_domains_then_track(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: the weights of one command are the start of the next, and the tracker takes the last."""
    assert train.main(classify(data, tmp_path / "first")) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("75 images of 3 classes; left out: nothing\n") and "top1 1" in printed.out
    flags = domains(data, tmp_path / "second", "--cycles", "6", "--track", str(clip_path()), "--track-frames", "3")
    flags[flags.index("--weights") + 1] = str(tmp_path / "first" / WEIGHTS)
    assert train.main(flags) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[:2] == ["1 videos to track; left out: nothing", "2 domains; left out: nothing"]
    final = rows(tmp_path / "second")[-1]
    assert final["step"] == 12 and 0 <= final["held_back_precision"] <= 1
    assert final["precision"] == 1 and final["auc"] > 0.5, "the clip is easy"
    assert lines[-1].startswith(f"{tmp_path / 'second' / WEIGHTS}: step 12, loss ") and "auc 0." in lines[-1]

    video = ["--seq", str(clip_path()), "--max-frames", "3", "--weights", str(tmp_path / "second" / WEIGHTS)]
    assert track.main([*video, *QUICK_FLAGS, "--out", str(tmp_path / "boxes.txt")]) == 0
    assert "untrained" not in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_it_goes_on_and_ends_the_same(data: Path, runs: Path, tmp_path: Path, name: str) -> None:
    flags = COMMANDS[name](data, tmp_path, *OFTEN)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "fdn_triton.train", *flags], env=environment, cwd=ROOT, stdout=errors, stderr=errors
        )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / CHECKPOINT).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "errors").read_text()
    assert not (tmp_path / WEIGHTS).exists()
    done = len(rows(tmp_path))
    assert 0 < done < len(rows(runs / name))
    assert train.main(flags) == 0
    assert (tmp_path / WEIGHTS).read_bytes() == (runs / name / WEIGHTS).read_bytes()
    assert [row["loss"] for row in rows(tmp_path)] == [row["loss"] for row in rows(runs / name)]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_seed_decides(data: Path, runs: Path, tmp_path: Path, name: str) -> None:
    assert train.main(COMMANDS[name](data, tmp_path / "same", *OFTEN[:2])) == 0
    assert train.main(COMMANDS[name](data, tmp_path / "other", *OFTEN[:2], "--seed", "1")) == 0
    expected = (runs / name / WEIGHTS).read_bytes()
    assert (tmp_path / "same" / WEIGHTS).read_bytes() == expected, "not how often checkpoints are written"
    assert (tmp_path / "other" / WEIGHTS).read_bytes() != expected


def test_synthetic_domains_are_added(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--photographs", str(clip_path() / "img"), "--synthetic", "3"]
    assert train.main(domains(data, tmp_path, *more, "--cycles", "1")) == 0
    assert rows(tmp_path)[-1]["step"] == 5


def test_domains_of_photographs_are_added(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        photograph(tmp_path / "voc", f"p{i}", (91 + i, 61, 150, 100))
    (tmp_path / "voc/JPEGImages/p1.jpg").write_bytes(b"torn")
    more = ["--stills", str(tmp_path / "voc"), "--still-domains", "5"]
    assert train.main(domains(data, tmp_path / "run", *more, "--cycles", "1")) == 0
    assert rows(tmp_path / "run")[-1]["step"] == 4, "two videos, two photographs"
    said = capsys.readouterr()
    assert "2 domains of photographs; left out: 1" in said.out and "p1.jpg cannot be read" in said.err


@pytest.mark.parametrize("supported", [False, True])
def test_slow_precision_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    monkeypatch.setattr(train, "cpu_multiplies_bf16", lambda: supported)
    flags = [*CLASSIFY_FLAGS, "--epochs", "0.2", "--precision", "bf16"]
    assert train.main(["classify", "--images", str(data / "images"), "--out", str(tmp_path / "run"), *flags]) == 0
    assert ("no instructions for bf16" in capsys.readouterr().err) != supported


def test_damaged_files_are_counted_and_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data / "images", tmp_path / "images")
    shutil.copytree(data / "videos", tmp_path / "videos")
    shutil.copy(data / "start.safetensors", tmp_path)
    for path in (tmp_path / "images/red/images").glob("0*.jpg"):
        path.write_bytes(b"")
    (tmp_path / "images/blue/images/00.jpg").write_bytes(b"\xff\xd8 torn")
    assert train.main(classify(tmp_path, tmp_path / "first", "--epochs", "0.1")) == 0
    said = capsys.readouterr()
    assert said.out.startswith("64 images of 3 classes; left out: 11\n")
    notes = [line for line in said.err.splitlines() if line.startswith("note: left out: ")]
    assert notes[0] == "note: left out: blue/images/00.jpg" and notes[-1] == "note: left out: 1 more"

    (tmp_path / "videos/first/img/0003.jpg").write_bytes(b"damaged")
    (tmp_path / "videos/second/groundtruth_rect.txt").write_text("1,1,1,1\n" + "50,50,30,30\n" * 9)
    assert train.main(domains(tmp_path, tmp_path / "second", "--cycles", "12")) == 0
    said = capsys.readouterr()
    assert "2 domains; left out: 1" in said.out and "frames that were asked for; left out: 1" in said.out
    assert "note: left out: second: 1 of 10 frames without a usable box" in said.err
    assert "first/img/0003.jpg cannot be read" in said.err


def test_what_cannot_be_used_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(command, *flags: str) -> str:
        return refusal(capsys, command(data, tmp_path / "out", *flags))

    assert "'nowhere' is neither a folder nor a zip archive" in said(classify, "--images", "nowhere")
    assert "fewer than two folders with images" in said(classify, "--images", str(data / "images/red"))
    assert "a batch of 1 is too small" in said(classify, "--batch", "1")
    assert "sees no GPU" in said(classify, "--device", "cuda") or "cuda" in said(classify, "--device", "cuda:99")
    assert "'nowhere' is no folder" in said(domains, "--videos", "nowhere")
    assert "no usable annotated sequence" in said(domains, "--videos", str(data / "images"))
    assert "cannot read 'nowhere.safetensors'" in said(domains, "--weights", "nowhere.safetensors")
    assert "--synthetic needs images to make videos from: give --photographs" in said(domains, "--synthetic", "2")
    assert "has 0 images" in said(domains, "--synthetic", "2", "--photographs", str(data / "videos/first/empty"))
    for flags in (("--stills", str(data)), ("--still-domains", "2")):
        assert "--still-domains N how many of them: give both" in said(domains, *flags)
    assert "no photograph with a usable box" in said(domains, "--stills", str(data), "--still-domains", "2")
    assert "--view-side is 8: it must be at least --image-side" in said(classify, "--view-side", "8")
    assert "first, second: in both the training set and --track" in said(domains, "--track", str(data / "videos"))
    for flag in ("--log-every", "--validate-every", "--track-every", "--track-frames"):
        assert f"{flag} is 0: it must be at least 1" in said(classify, flag, "0")
    for value in ("-0.1", "nan"):
        for flag in ("--embedding", "--turn", "--blur", "--light", "--grey"):
            assert f"{flag} is {value}: it must be at least 0" in said(domains, flag, value)
    for flag, value, most in (
        ("--blur", "30.0", 1),
        ("--light", "1.5", 1),
        ("--grey", "inf", 1),
        ("--turn", "inf", 180),
    ):
        assert f"{flag} is {value}: it must be at most {most}" in said(domains, flag, value)
    assert "--cycles is 0" in said(domains, "--cycles", "0") and "--seed is -1" in said(domains, "--seed", "-1")
    assert "--for" in said(domains, "--for", "lasot") and "--epoch" in said(classify, "--epoch", "x")
    assert not (tmp_path / "out").exists(), "nothing is begun"


def test_an_out_that_cannot_be_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write to" in refusal(capsys, domains(data, tmp_path / "file"))


def test_another_project_s_weights_are_no_start(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(tmp_path / "foreign.safetensors", untrained_weights(NetworkConfig()))
    flags = domains(data, tmp_path / "out", "--weights", str(tmp_path / "foreign.safetensors"))
    assert "'foreign.safetensors' has other features, by " in refusal(capsys, flags)


def test_a_video_to_track_that_has_no_first_frame(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before the training, not at its first validation."""
    videos = video_folders(tmp_path / "videos", ("owl", "torn"))
    (videos / "torn/img/0001.jpg").write_bytes(b"damaged")
    flags = classify(data, tmp_path / "out", "--track", str(videos))
    assert "error: torn: the first frame cannot be read: take it out of --track" in refusal(capsys, flags)
    assert not (tmp_path / "out").exists()


def test_shipped_weights_are_a_start_by_their_name(data: Path, tmp_path: Path) -> None:
    assert train.main(domains(data, tmp_path, "--weights", "fdn", "--cycles", "1", "--convolution-rate", "0")) == 0


def test_test_videos_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = video_folders(tmp_path / "videos", ("owl", "Deer"))
    flags = domains(data, tmp_path / "out", "--videos", str(videos))
    assert "has 1 videos to be tested on: Deer (named like OTB's): take them out" in refusal(capsys, flags)
    assert train.main([*flags, "--for", "vot", "--cycles", "1"]) == 0
    excluded = refusal(capsys, [*flags, "--for", "vot", "--exclude", str(data / "videos/first")])
    assert "owl (shows what first does)" in excluded and "Deer" not in excluded


def test_a_run_is_not_mixed_with_another(
    data: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, command in COMMANDS.items():
        shutil.copytree(runs / name, tmp_path / name)
        out = tmp_path / name
        assert "made with another learning_rate" in refusal(capsys, command(data, out, "--learning-rate", "0.5"))
        (out / CHECKPOINT).write_bytes((out / CHECKPOINT).read_bytes()[:1000])
        assert "is damaged or no checkpoint" in refusal(capsys, command(data, out))
        assert (out / WEIGHTS).read_bytes() == (runs / name / WEIGHTS).read_bytes()
    shutil.copy(runs / "classify" / CHECKPOINT, tmp_path / "domains")
    assert "made with another " in refusal(capsys, domains(data, tmp_path / "domains"))


def test_a_finished_run_says_its_results_again(data: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (runs / "classify" / LOG).read_bytes()
    assert train.main(classify(data, runs / "classify", *OFTEN)) == 0
    assert "step 12, loss" in capsys.readouterr().out.splitlines()[-1]
    assert (runs / "classify" / LOG).read_bytes() == before


def test_a_loss_that_is_no_number(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = domains(data, tmp_path, "--learning-rate", "1e30", *OFTEN)
    assert "the loss is nan at step" in refusal(capsys, flags)


def test_help_says_what_each_number_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["domains", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--exclude" in text and "--checkpoint-seconds" in text and "--convolution-rate" in text
