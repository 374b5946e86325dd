"""The flags of the ``track`` command: its numbers, its windows and its help; and the demo, which passes them on."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
import track_command
from track_command import INIT, QUICK, Call, otb, rows, summary

from fdn_triton import track, window
from fdn_triton.config import PRESETS, NetworkConfig, TrackerConfig
from fdn_triton.demo import __main__ as demo
from fdn_triton.demo import clip_path
from fdn_triton.errors import InputError
from fdn_triton.weights import UNTRAINED_WARNING

folder, call = track_command.folder, track_command.call  # fixtures


# Numbers


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


def test_untrained_weights_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert track.main([*QUICK, "--seq", str(otb(2)), "--weights", "untrained"]) == 0
    assert capsys.readouterr().err == f"warning: {UNTRAINED_WARNING}\n"


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
