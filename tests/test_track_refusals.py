"""Input that the ``track`` command cannot use: a line, code 2, and files that were there stay as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import track_command
from safetensors.torch import save_file
from track_command import INIT, ROOT, Call, Said, otb, write_video

from fdn_triton import track
from fdn_triton.config import NetworkConfig
from fdn_triton.weights import save_weights, untrained_weights

folder, call = track_command.folder, track_command.call  # fixtures


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
