"""Running over frames, what steps add up to, and that the table says what the summary holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fdn_triton import report, run
from fdn_triton.config import TrackerConfig
from fdn_triton.errors import InputError
from fdn_triton.online import Update
from fdn_triton.run import STAGES, RunStatistics, Step, run_tracker
from fdn_triton.sequence import Frame
from fdn_triton.tracker import Tracker, TrackResult

IMAGE = np.zeros((40, 60, 3), np.uint8)
BOX = np.array([[5.0, 6.0, 10.0, 12.0]])


class _Clock:
    def __init__(self) -> None:
        self.laps = 0

    def lap(self, wait: bool = True) -> dict[str, float]:
        self.laps += 1
        return {"features": self.laps / 10}


class _Scripted:
    """Stands in for a tracker: every frame moves the boxes by (1, 0) and scores its number."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self.config = TrackerConfig(seed=7)
        self.device = torch.device("cpu")
        self.weights = SimpleNamespace(name="scripted", sha256="ab" * 32)
        self.calls = 0

    def init(self, image: Any, boxes_xywh: Any) -> tuple[Update, ...]:
        self.boxes = np.array(boxes_xywh)
        return tuple(Update("first", 30, 0.5) for _ in self.boxes)

    def update(self, image: Any) -> TrackResult:
        self.calls += 1
        self.boxes = self.boxes + (1, 0, 0, 0)
        n = len(self.boxes)
        return TrackResult(self.boxes, np.full(n, float(self.calls)), np.ones(n, bool), (None,) * n, tuple(range(n)))


def scripted() -> Tracker:
    return cast(Tracker, _Scripted())


def frames(*bad: int, count: int = 5) -> list[Frame]:
    return [Frame(n, None, f"{n}.jpg is gone") if n in bad else Frame(n, IMAGE) for n in range(1, count + 1)]


def test_a_step_per_frame() -> None:
    steps = list(run_tracker(scripted(), frames(), BOX[0]))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal([step.boxes_xywh[0, 0] for step in steps], [5, 6, 7, 8, 9])
    np.testing.assert_array_equal([step.scores[0] for step in steps], [np.nan, 1, 2, 3, 4])
    assert steps[0].updates == (Update("first", 30, 0.5),) and steps[1].updates == (None,)
    assert [step.stages_s["features"] for step in steps] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert all(step.image is IMAGE and step.problem is None for step in steps)


def test_a_skipped_frame_repeats_the_boxes_and_is_not_tracked() -> None:
    tracker = scripted()
    steps = list(run_tracker(tracker, frames(2, 3), np.repeat(BOX, 2, axis=0), "skip"))
    np.testing.assert_array_equal([step.boxes_xywh[1, 0] for step in steps], [5, 5, 5, 6, 7])
    assert [step.problem for step in steps] == [None, "2.jpg is gone", "3.jpg is gone", None, None]
    assert steps[1].image is None and np.isnan(steps[1].scores).all() and steps[1].updates == (None, None)
    assert steps[1].stages_s == {} and cast(Any, tracker).calls == 2


def test_a_bad_frame_stops_after_the_steps_before_it() -> None:
    seen = []
    with pytest.raises(InputError, match=r"frame 3: 3\.jpg is gone: repair it$"):
        for step in run_tracker(scripted(), frames(3), BOX):
            seen.append(step.number)
    assert seen == [1, 2]


def test_a_bad_first_frame_cannot_be_skipped() -> None:
    with pytest.raises(InputError, match=r"frame 1: 1\.jpg is gone: the first frame is needed"):
        next(run_tracker(scripted(), frames(1), BOX, "skip"))


def test_boxes_that_do_not_fit_and_a_source_without_frames() -> None:
    with pytest.raises(InputError, match="outside the frame of 60x40"):
        next(run_tracker(scripted(), frames(), [60, 5, 5, 5]))
    assert list(run_tracker(scripted(), [], BOX)) == []


# Statistics of scripted steps


def step(number: int, track_s: float, read_s: float = 0.0, *updates: Update | None, **stages_s: float) -> Step:
    boxes = np.array([[number, 0.0, 10, 10], [number, 50.0, 10, 10]])
    return Step(number, IMAGE, boxes, np.array([0.5, np.nan]), updates or (None, None), None, read_s, track_s, stages_s)


STEPS = [
    step(1, 9.0, 0.5, Update("first", 30, 0.1), Update("first", 30, 0.1), features=5.0, update=4.0),
    step(2, 0.10, 0.01, None, Update("short", 10, 0.2), features=0.05, score=0.01, collect=0.02, update=0.02),
    step(3, 0.20, 0.03, Update("long", 4, 0.3), Update("long", 1, 0.001), features=0.15, score=0.02, update=0.03),
    step(4, 0.60, 0.08, features=0.40, score=0.03, collect=0.17),
]


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> RunStatistics:
    """Of STEPS, which end 10, 10.5, 11 and 12 seconds after some moment."""
    now = iter([10.0, 10.5, 11.0, 12.0])
    monkeypatch.setattr(run.time, "perf_counter", lambda: next(now))
    collected = RunStatistics()
    for one in STEPS:
        collected.add(one)
    monkeypatch.undo()
    return collected


def test_speed_is_of_the_frames_after_the_first(statistics: RunStatistics) -> None:
    assert statistics.frames == 4 and statistics.first_frame_s == 9.0
    assert statistics.fps() == pytest.approx({"end_to_end": 3 / 2.0, "tracking": 3 / 0.9})
    expected = {
        "read": (30, 40),
        "features": (150, 200),
        "score": (20, 20),
        "collect": (20, 190 / 3),
        "update": (20, 50 / 3),
    }
    stages = statistics.stages_ms()
    assert tuple(stages) == STAGES
    for stage, (median, mean) in expected.items():
        assert stages[stage] == pytest.approx({"median": median, "mean": mean})


def test_updates_are_counted_by_kind_without_the_first_frame(statistics: RunStatistics) -> None:
    assert statistics.updates() == {"short": 1, "long": 2, "iterations": 15}


def test_tracks_are_by_target(statistics: RunStatistics) -> None:
    tracks = statistics.tracks()
    np.testing.assert_array_equal(tracks[0][:, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(tracks[1], [[n, 50, 10, 10] for n in (1, 2, 3, 4)])


def test_one_frame_has_no_speed() -> None:
    collected = RunStatistics()
    collected.add(STEPS[0])
    assert collected.fps() == {"end_to_end": None, "tracking": None}
    assert collected.stages_ms()["score"] == {"median": None, "mean": None}
    assert collected.updates() == {"short": 0, "long": 0, "iterations": 0}


# The report


def summary_of(statistics: RunStatistics, truth: Any = None) -> dict[str, Any]:
    return report.summarise(scripted(), statistics, "scene", "release", truth)


def table_of(summary: dict[str, Any], written: Iterable[Path] = ()) -> str:
    return report.table(summary, written)


def test_the_summary_repeats_the_statistics(statistics: RunStatistics) -> None:
    summary = summary_of(statistics)
    assert (summary["sequence"], summary["preset"], summary["seed"]) == ("scene", "release", 7)
    assert (summary["frames"], summary["targets"], summary["device"]) == (4, 2, "cpu")
    assert summary["weights"] == {"name": "scripted", "sha256": "ab" * 32}
    assert summary["fps"] == statistics.fps() and summary["stages_ms"] == statistics.stages_ms()
    assert not {"precision", "auc", "mean_iou", "scored_frames", "per_target"} & set(summary)


def test_accuracy_is_the_mean_of_the_targets(statistics: RunStatistics) -> None:
    truth = statistics.tracks().copy()
    truth[1, :, 0] += 25  # beside the box, beyond 20 pixels
    truth[1, 3] = np.nan
    summary = summary_of(statistics, truth)
    found, lost = summary["per_target"]
    assert found == pytest.approx({"precision": 1, "auc": 20 / 21, "mean_iou": 1})
    assert lost == {"precision": 0, "auc": 0, "mean_iou": 0}
    assert (summary["precision"], summary["mean_iou"], summary["scored_frames"]) == (0.5, 0.5, 7)
    assert summary["auc"] == pytest.approx(10 / 21)
    assert "accuracy over 7 frames: precision 0.500, AUC 0.476, mean IoU 0.500" in table_of(summary)


def test_a_target_without_ground_truth_is_left_out_of_the_mean(statistics: RunStatistics) -> None:
    truth = statistics.tracks().copy()
    truth[1] = np.nan
    summary = summary_of(statistics, truth)
    assert summary["per_target"][1] is None and summary["precision"] == 1
    truth[0] = np.nan
    summary = summary_of(statistics, truth)
    assert "precision" not in summary and "accuracy" not in table_of(summary)


def test_one_target_has_no_list_of_targets() -> None:
    collected = RunStatistics()
    for n in (1, 2):
        one = STEPS[n]
        collected.add(Step(n, IMAGE, one.boxes_xywh[:1], one.scores[:1], (None,), None, 0, 0.1, {}))
    summary = summary_of(collected, collected.tracks())
    assert summary["precision"] == 1 and "per_target" not in summary


def test_the_table_has_the_summary_s_numbers(statistics: RunStatistics) -> None:
    summary = summary_of(statistics)
    text = table_of(summary, [Path("a/b.txt"), Path("c.json")])
    lines = text.splitlines()
    assert lines[0] == "scene: 4 frames, 2 targets, cpu, preset release, weights scripted"
    total = sum(summary["stages_ms"][stage]["mean"] for stage in STAGES)
    shares = 0
    for stage in STAGES:
        (row,) = [line.split() for line in lines if line.startswith(stage + " ")]
        mean, median = summary["stages_ms"][stage]["mean"], summary["stages_ms"][stage]["median"]
        assert row[1:] == [f"{mean:.1f}", f"{median:.1f}", f"{100 * mean / total:.0f}%", f"{1000 / mean:.1f}"]
        shares += int(row[3][:-1])
    assert shares == pytest.approx(100, abs=2)
    assert "first frame 9.00 s; then 1.50 fps end to end, 3.33 fps tracking (0.48 x the paper's 7 fps)" in lines
    assert "updates: 1 short-term, 2 long-term, 15 iterations" in lines
    assert lines[-2:] == ["wrote a/b.txt", "wrote c.json"]


def test_the_table_of_one_frame_and_of_a_stage_without_time() -> None:
    collected = RunStatistics()
    collected.add(STEPS[0])
    text = table_of(summary_of(collected))
    assert text.startswith("scene: 1 frame, 2 targets") and "ms/frame" not in text
    collected.add(step(2, 0.1))
    rows = [line.split() for line in table_of(summary_of(collected)).splitlines()]
    assert ["score", "0.0", "0.0", "0%", "-"] in rows


def test_a_row_of_the_log_per_target() -> None:
    header, *found = (
        line.split() for line in (report.update_header() + "\n" + report.update_rows(STEPS[1])).split("\n")
    )
    assert header == ["frame", "target", "score", "loss", "iterations"]
    assert found == [["2", "1", "0.500", "-", "-"], ["2", "2", "-", "0.2000", "10"]]


def test_the_columns_of_the_log_stand_below_their_names() -> None:
    ends = [[m.end() for m in re.finditer(r"\S+", report.update_header())]]
    ends += [[m.end() for m in re.finditer(r"\S+", row)] for row in report.update_rows(STEPS[1]).split("\n")]
    assert ends[0] == ends[1] == ends[2]
