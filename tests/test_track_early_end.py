"""Runs of the ``track`` command that a signal, a bad frame or a reader ends: what was tracked is kept."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import track_command
from small_otb import TRUTH
from track_command import QUICK, ROOT, Call, otb, rows, summary

from fdn_triton import track
from fdn_triton.demo import clip_path
from fdn_triton.tracker import Tracker

folder, call = track_command.folder, track_command.call  # fixtures


# Interruption


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


def test_a_reader_that_leaves_costs_no_result(tmp_path: Path) -> None:
    flags = [*QUICK, "--seq", str(otb(4)), "--log-updates", "--json", "s.json"]
    command = f"{shlex.join([sys.executable, '-m', 'fdn_triton.track', *flags])} | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.split() == ["frame", "target", "score", "loss", "iterations"]
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert 1 <= len(rows("results/owl.txt")) == summary("s.json")["frames"]


# Frames that cannot be read


def truncate(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:2000])


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
