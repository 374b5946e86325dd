"""``evaluate otb`` goes on where it was stopped, and runs again what failed or cannot be trusted."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate_command
import pytest
from evaluate_command import ROOT, Call, publish, summary, truth_of
from small_otb import QUICK_FLAGS, add_sequence

from fdn_triton.evaluation import work

folder, evaluations, call = evaluate_command.folder, evaluate_command.evaluations, evaluate_command.call  # fixtures


def lasting(out: Path | str = "out") -> dict[str, Any]:
    """The summary without what differs from run to run: times."""
    content = summary(out)
    for score in content["trackers"]["FDN"]["sequences"].values():
        assert score.pop("fps") > 0
    return content


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
    add_sequence(folder, "walk", 16, 12)
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
