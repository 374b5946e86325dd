"""Videos that advance in lockstep: each has the boxes that it has alone, on a CPU to the last bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recorded_graphs import recorded_graphs
from small_otb import QUICK_FLAGS, TRUTH, add_sequence, quick_config

from fdn_triton import evaluate
from fdn_triton.demo import clip_path
from fdn_triton.errors import InputError
from fdn_triton.evaluation.otb import open_dataset
from fdn_triton.evaluation.profiles import PROFILES
from fdn_triton.evaluation.work import Unit, plan
from fdn_triton.evaluation.worker import Outcome, Settings, Worker
from fdn_triton.targets import Targets
from fdn_triton.tracker import Tracker, TrackResult

CONFIG = quick_config()
Video = list[NDArray[np.uint8]]


def video(first: int, frames: int, width: int = 320) -> Video:
    """Frames of the clip, in another size."""
    images = []
    for number in range(first, first + frames):
        image = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
        assert image is not None
        resized = cv2.resize(image, (width, 240 * width // 320), interpolation=cv2.INTER_AREA)
        images.append(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.uint8))
    return images


def start(first: int, width: int = 320) -> NDArray[np.float64]:
    return (TRUTH[first - 1] - (1, 1, 0, 0)) * width / 320


def tracker_of(seed: int = 0) -> Tracker:
    return Tracker(dataclasses.replace(CONFIG, seed=seed), weights="untrained", device="cpu")


# (first frame, frames, width, seed): of different sizes, lengths and seeds
VIDEOS = [(1, 6, 320, 0), (20, 9, 200, 1), (40, 7, 320, 5)]


def advance(trackers: Sequence[Tracker], videos: Sequence[Video]) -> list[list[TrackResult]]:
    """Start all of them, and let each go on to the end of its video."""
    results: list[list[TrackResult]] = [[] for _ in trackers]
    for tracker, images, (first, _, width, _) in zip(trackers, videos, VIDEOS, strict=True):
        tracker.init(images[0], start(first, width))
    for i in range(1, max(map(len, videos))):
        running = [number for number, images in enumerate(videos) if i < len(images)]
        for number in running:
            trackers[number].begin_update(videos[number][i])
        for number in running:
            results[number].append(trackers[number].finish_update())
            if i + 1 == len(videos[number]):
                trackers[number].clear()
    return results


def assert_equal(one: Sequence[TrackResult], other: Sequence[TrackResult]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.boxes_xywh, b.boxes_xywh)
        assert np.array_equal(a.scores, b.scores)
        assert (a.updates, a.ids) == (b.updates, b.ids)


def test_videos_side_by_side_are_tracked_as_each_alone() -> None:
    videos = [video(*about[:3]) for about in VIDEOS]
    leader = tracker_of()
    trackers = [leader.beside(seed) for *_, seed in VIDEOS]
    together = advance(trackers, videos)
    assert any(update for results in together for result in results for update in result.updates)
    assert leader._targets._pool.numel() == 0, "all are gone"
    for results, images, (first, _, width, seed) in zip(together, videos, VIDEOS, strict=True):
        alone = tracker_of(seed)
        alone.init(images[0], start(first, width))
        assert_equal(results, [alone.update(image) for image in images[1:]])


def test_heads_of_all_videos_learn_in_one_iteration() -> None:
    """What a GPU does, but for the device."""
    videos = [video(*about[:3]) for about in VIDEOS]

    def run(together: bool) -> list[list[TrackResult]]:
        leader = tracker_of()
        leader._targets._together = together
        return advance([leader.beside(seed) for *_, seed in VIDEOS], videos)

    with recorded_graphs() as graphs:
        together = run(together=True)
    apart = run(together=False)
    for one, other in zip(apart, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a.boxes_xywh, b.boxes_xywh, atol=0.1)
            assert [u and u.kind for u in a.updates] == [u and u.kind for u in b.updates]
    steps = [[result for results in together for result in results[i : i + 1]] for i in range(8)]
    # Of each step the iterations of the head that takes most.
    most = [max((u.iterations for result in step for u in result.updates if u), default=0) for step in steps]
    assert sum(graph.replays for graph in graphs) == sum(most) > 0


def test_trackers_beside_each_other_may_also_take_their_frames_alone() -> None:
    images = video(1, 5)
    leader = tracker_of()
    one, other = leader.beside(0), leader.beside(0)
    for tracker in (one, other):
        tracker.init(images[0], start(1))
    ahead = [one.update(image) for image in images[1:]]
    behind = [other.update(image) for image in images[1:]]
    assert_equal(ahead, behind)
    one.begin_update(images[1])
    one.clear()  # with a frame that nobody asks for
    assert other.update(images[1]).ids == (0,)


def test_the_time_of_what_is_shared_is_shared() -> None:
    images = video(1, 2)
    leader = tracker_of()
    trackers = [leader.beside(0) for _ in range(2)]
    for tracker in trackers:
        tracker.init(images[0], start(1))
        tracker.clock.lap()
    for tracker in trackers:
        tracker.begin_update(images[1])
    for tracker in trackers:
        tracker.finish_update()
    first, second = (tracker.clock.lap() for tracker in trackers)
    assert set(first) == set(second) >= {"features", "score", "update"}
    assert first["score"] == pytest.approx(second["score"], rel=0.2)


def test_an_error_of_all_is_told_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    images = video(1, 3)
    leader = tracker_of()
    trackers = [leader.beside(0) for _ in range(2)]
    for tracker in trackers:
        tracker.init(images[0], start(1))
        tracker.begin_update(images[1])

    def out_of_memory(*_: object) -> Any:
        raise torch.OutOfMemoryError("all gone")

    with monkeypatch.context() as patched:
        patched.setattr(Targets, "follow", out_of_memory)
        for tracker in trackers:
            with pytest.raises(torch.OutOfMemoryError):
                tracker.finish_update()
    assert trackers[0].update(images[2]).ids == (0,)
    with pytest.raises(InputError, match="image has the shape"):
        trackers[0].begin_update(np.zeros((3, 3), np.uint8))


# Evaluation


def benchmark(root: Path) -> Path:
    """Five sequences of different sizes and lengths."""
    for name, first, frames in (("a", 1, 6), ("b", 20, 3), ("c", 40, 9), ("d", 10, 1), ("e", 30, 5)):
        add_sequence(root, name, first, frames)
    for path in (root / "c/img").iterdir():
        image = cv2.imread(str(path))
        assert image is not None
        cv2.imwrite(str(path), cv2.resize(image, None, fx=0.7, fy=0.7))
    truth = root / "c/groundtruth_rect.txt"
    np.savetxt(truth, np.loadtxt(truth, delimiter=",") * 0.7, "%.1f", ",")
    return root


def units_in(root: Path) -> list[Unit]:
    tasks, problems = plan(open_dataset(root), "ope", (0, 3), PROFILES["got10k"])
    assert not problems
    return [unit for task in tasks for unit in task.units]


def run_all(units: Sequence[Unit], out: Path, lockstep: int) -> dict[Unit, str | None]:
    """Outcomes, in the order in which they came."""
    settings = Settings(CONFIG, "paper", "untrained", "cpu", out, lockstep=lockstep)
    worker = Worker(settings)
    outcomes: dict[Unit, str | None] = {}
    progress = dict.fromkeys(units, 0)
    most = 0
    for job, event in worker.run_all(units):
        assert isinstance(job, Unit)
        if isinstance(event, Outcome):
            outcomes[job] = event.error
        else:
            progress[job] += event
        assert worker._tracker is not None
        most = max(most, len(worker._tracker._targets._targets))
    assert most == min(lockstep, len(units))
    assert worker._tracker is not None and worker._tracker._targets._pool.numel() == 0
    assert all(progress[unit] == unit.frames for unit, error in outcomes.items() if error is None)
    return outcomes


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Unit], Path]:
    folder = tmp_path_factory.mktemp("alone")
    units = units_in(benchmark(folder / "root"))
    assert list(run_all(units, folder / "out", 1)) == units
    return units, folder / "out"


TIMES = ("first_frame_s", "fps", "stages_ms", "date", "lockstep")


@pytest.mark.parametrize("lockstep", [2, 3, 40])
def test_runs_in_lockstep_leave_what_each_leaves_alone(
    alone: tuple[list[Unit], Path], tmp_path: Path, lockstep: int
) -> None:
    units, out = alone
    outcomes = run_all(units, tmp_path, lockstep)
    assert set(outcomes.values()) == {None} and len(outcomes) == 10
    if lockstep > 2:
        assert list(outcomes) != units, "a short one ends before a long one that began earlier"
    for unit in units:
        assert unit.path(tmp_path, ".txt").read_bytes() == unit.path(out, ".txt").read_bytes()
        together, by_itself = (json.loads(unit.path(folder, ".json").read_bytes()) for folder in (tmp_path, out))
        assert together["lockstep"] == lockstep and "lockstep" not in by_itself
        assert together["fps"]["end_to_end"] is None or together["fps"]["end_to_end"] > 0
        for record in (together, by_itself):
            for name in TIMES:
                record.pop(name, None)
        assert together == by_itself


def test_a_run_that_fails_in_lockstep_leaves_the_others(alone: tuple[list[Unit], Path], tmp_path: Path) -> None:
    root = benchmark(tmp_path / "root")
    units = units_in(root)
    broken = root / "c/img/0043.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    (root / "e/img/0032.jpg").unlink()
    outcomes = run_all(units, tmp_path / "out", 4)
    assert {unit.sequence for unit, error in outcomes.items() if error} == {"c", "e"}
    assert len(outcomes) == 10
    for unit in units:
        if unit.sequence not in "ce":
            text = unit.path(tmp_path / "out", ".txt").read_bytes()
            assert text == unit.path(alone[1], ".txt").read_bytes()


def test_the_command_line_goes_on_in_lockstep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = benchmark(tmp_path / "root"), tmp_path / "out"
    flags = ["otb", "--root", str(root), "--weights", "untrained", "--device", "cpu", *QUICK_FLAGS]
    assert evaluate.main([*flags, "--out", str(out), "--sequences", "a", "b"]) == 0
    first = (out / "results/seed0/ope/a.json").read_bytes()
    assert evaluate.main([*flags, "--out", str(out), "--lockstep", "3"]) == 0
    assert (out / "results/seed0/ope/a.json").read_bytes() == first, "what is done is not done again"
    assert "lockstep" in json.loads((out / "results/seed0/ope/c.json").read_bytes())
    assert evaluate.main([*flags, "--out", str(tmp_path / "alone")]) == 0
    together, by_itself = (json.loads((folder / "summary.json").read_bytes()) for folder in (out, tmp_path / "alone"))
    for summary in (together, by_itself):
        for score in summary["trackers"]["FDN"]["sequences"].values():
            score.pop("fps")
    assert together["trackers"] == by_itself["trackers"]
    capsys.readouterr()
    for more, message in (
        (["--lockstep", "0"], "--lockstep is 0: it must be at least 1"),
        (["--lockstep", "2", "--workers", "2"], "--lockstep 2 is for one process: leave --workers and --engine out"),
        (["--lockstep", "2", "--engine", "ray"], "--lockstep 2 is for one process: leave --workers and --engine out"),
    ):
        assert evaluate.main([*flags, "--out", str(out), *more]) == 2
        assert message in capsys.readouterr().err
