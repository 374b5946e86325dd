"""Units of work: what a run leaves on disk, what counts as done, and that no accident leaves something between."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_otb import TRUTH, add_sequence, quick_config, small_benchmark

from fdn_triton.errors import InputError
from fdn_triton.evaluation import work
from fdn_triton.evaluation.otb import open_dataset
from fdn_triton.evaluation.profiles import PROFILES
from fdn_triton.evaluation.work import Run, Task, Unit, plan, read_run
from fdn_triton.evaluation.worker import Outcome, Settings, Worker, fingerprint
from fdn_triton.weights import load_weights

CONFIG = quick_config()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(CONFIG, "paper", "untrained", "cpu", tmp_path / "out")


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    return fingerprint(CONFIG, load_weights("untrained", CONFIG.network), "cpu")


def tasks_of(root: Path, protocol: str = "ope", seeds: tuple[int, ...] = (0,), **more: Any) -> list[Task]:
    tasks, problems = plan(open_dataset(root), protocol, seeds, PROFILES["otb"], **more)  # type: ignore[arg-type]
    assert not problems
    return tasks


def one_unit(root: Path, name: str = "owl", first: int = 1, frames: int = 4) -> Unit:
    add_sequence(root, name, first, frames)
    ((unit,),) = (task.units for task in tasks_of(root))
    return unit


def run(unit: Unit, settings: Settings) -> Outcome:
    *progress, outcome = Worker(settings).run(unit)
    assert isinstance(outcome, Outcome)
    if outcome.error is None:
        assert sum(progress) == unit.frames  # type: ignore[arg-type]
    return outcome


def result(unit: Unit, settings: Settings) -> Run:
    found = read_run(unit, settings.out)
    assert found is not None
    return found


def error_of(unit: Unit, settings: Settings, wanted: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as error:
        read_run(unit, settings.out, wanted)
    assert "\n" not in str(error.value)
    return str(error.value)


# A run


def test_a_run_leaves_rows_in_otb_s_convention_and_what_belongs_to_them(
    tmp_path: Path, settings: Settings, wanted: dict[str, Any]
) -> None:
    unit = one_unit(tmp_path / "root")
    assert read_run(unit, settings.out) is None
    assert run(unit, settings) == Outcome(None)
    text = tmp_path / "out/results/seed0/ope/owl.txt"
    rows = np.loadtxt(text, delimiter=",")
    np.testing.assert_array_equal(rows[0], TRUTH[0])
    assert len(np.unique(rows, axis=0)) == 4
    found = read_run(unit, settings.out, wanted)
    assert found is not None
    np.testing.assert_allclose(found.boxes_xywh, rows - (1, 1, 0, 0))
    assert found.fps is not None and found.fps > 0
    assert list(found.stages_ms) == ["read", "features", "score", "collect", "update"]
    assert sum(found.stages_ms.values()) == pytest.approx(1000 / found.fps, rel=0.3)
    assert found.updates["short"] + found.updates["long"] >= 1
    assert sorted(path.name for path in text.parent.iterdir()) == ["owl.json", "owl.txt"]


def test_seeds_have_files_of_their_own_and_repeat(tmp_path: Path, settings: Settings) -> None:
    add_sequence(tmp_path / "root", "owl", frames=4)
    (task,) = tasks_of(tmp_path / "root", seeds=(0, 7))
    first, seventh = task.units
    for unit in task.units:
        run(unit, settings)
    assert not np.array_equal(result(first, settings).boxes_xywh, result(seventh, settings).boxes_xywh)
    before = seventh.path(settings.out, ".txt").read_bytes()
    run(seventh, settings)
    assert seventh.path(settings.out, ".txt").read_bytes() == before


def test_a_later_start_is_a_run_over_the_rest(tmp_path: Path, settings: Settings) -> None:
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    add_sequence(whole, "owl", 1, 23)
    add_sequence(rest, "owl", 4, 20)
    (task,) = tasks_of(whole, "tre")
    assert [unit.part.first_frame for unit in task.units] == [0, 1, 2, 3]
    last = task.units[-1]
    ((same,),) = (t.units for t in tasks_of(rest))
    for unit in (last, same):
        assert run(unit, settings) == Outcome(None)
    np.testing.assert_array_equal(result(last, settings).boxes_xywh, result(same, settings).boxes_xywh)


def test_progress_is_told_on_the_way(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_PROGRESS_S", 0.0)
    unit = one_unit(tmp_path / "root")
    assert list(Worker(settings).run(unit)) == [1, 1, 1, 1, 0, Outcome(None)]


# What goes wrong in a run


def test_a_frame_that_cannot_be_read_fails_its_unit_with_the_reason(tmp_path: Path, settings: Settings) -> None:
    unit = one_unit(tmp_path / "root")
    run(unit, settings)
    image = tmp_path / "root/owl/img/0003.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:2000])
    outcome = run(unit, settings)
    assert outcome.error is not None and "owl (ope, seed 0) failed: frame 3: " in outcome.error
    assert "0003.jpg is truncated" in outcome.error
    assert error_of(unit, settings) == outcome.error
    assert not unit.path(settings.out, ".txt").exists()  # the earlier run's
    image.write_bytes(whole)
    assert run(unit, settings) == Outcome(None)
    assert len(result(unit, settings).boxes_xywh) == 4


def test_any_exception_fails_its_unit_only(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = one_unit(tmp_path / "root")

    def update(*_: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(work.Tracker, "update", update)
    assert run(unit, settings).error == "owl (ope, seed 0) failed: RuntimeError: out of memory"
    record = json.loads(unit.path(settings.out, ".json").read_text())
    assert any("in update" in line for line in record["traceback"])


def test_images_that_disappear_after_the_plan_fail_the_unit(tmp_path: Path, settings: Settings) -> None:
    unit = one_unit(tmp_path / "root")
    (tmp_path / "root/owl/img/0002.jpg").unlink()
    outcome = run(unit, settings)
    assert outcome.error is not None and "has 3 images, no longer 4" in outcome.error


def test_weights_that_are_missing_fail_the_unit(tmp_path: Path, settings: Settings) -> None:
    unit = one_unit(tmp_path / "root")
    outcome = run(unit, dataclasses.replace(settings, weights="none.pth"))
    assert outcome.error is not None and "cannot read 'none.pth'" in outcome.error


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, settings: Settings) -> None:
    unit = one_unit(tmp_path / "root")
    settings.out.write_text("a file")
    outcome = run(unit, settings)
    assert outcome.error is not None and "cannot write" in outcome.error


@pytest.mark.parametrize("step", range(4))
def test_wherever_a_run_is_cut_off_it_is_whole_or_undone(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Cut off before and after each of the two files takes its place."""
    unit = one_unit(tmp_path / "root")
    replaced, really = 0, os.replace

    def replace(source: str, target: str) -> None:
        nonlocal replaced
        if step == 2 * replaced:
            raise KeyboardInterrupt
        really(source, target)
        if step == 2 * replaced + 1:
            raise KeyboardInterrupt
        replaced += 1

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        run(unit, settings)
    if step < 3:
        assert read_run(unit, settings.out) is None
        monkeypatch.setattr(os, "replace", really)
        run(unit, settings)
    assert len(result(unit, settings).boxes_xywh) == 4


# What is on disk


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Unit, Settings]:
    path = tmp_path_factory.mktemp("done")
    settings = Settings(CONFIG, "paper", "untrained", "cpu", path / "out")
    unit = one_unit(path / "root")
    run(unit, settings)
    return unit, settings


@pytest.fixture
def files(done: tuple[Unit, Settings]) -> Iterator[tuple[Path, Path]]:
    """The JSON and the text, which are put back after the test."""
    paths = tuple(done[0].path(done[1].out, suffix) for suffix in (".json", ".txt"))
    before = [path.read_bytes() for path in paths]
    yield paths
    for path, content in zip(paths, before, strict=True):
        path.write_bytes(content)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '"unit"', "null", "{}", '{"unit": 1}', "\x00\x01", "half", "deep"]
)
def test_a_damaged_json_is_said(done: tuple[Unit, Settings], files: tuple[Path, Path], content: str) -> None:
    path, _ = files
    path.write_text({"half": path.read_text()[:1500], "deep": "[" * 10**5}.get(content, content))
    assert error_of(*done) == f"{path} is damaged"


@pytest.mark.parametrize("key", ["settings", "boxes_sha256", "fps", "stages_ms", "updates", "versions", "weights"])
@pytest.mark.parametrize("value", ["gone", "wrong"])
def test_a_json_that_lacks_something_is_said(
    done: tuple[Unit, Settings], files: tuple[Path, Path], key: str, value: str
) -> None:
    path, _ = files
    record = json.loads(path.read_text())
    if value == "gone":
        del record[key]
    else:
        record[key] = 5
    path.write_text(json.dumps(record))
    message = error_of(*done)
    if (key, value) == ("boxes_sha256", "wrong"):
        assert message.endswith("owl.txt was changed after it was written")
    else:
        assert message == f"{path} is damaged"


def test_rows_that_are_not_those_of_the_json_are_said(done: tuple[Unit, Settings], files: tuple[Path, Path]) -> None:
    path, text = files
    text.write_text(text.read_text().replace("1", "2", 1))
    assert error_of(*done) == f"{text} was changed after it was written"
    text.unlink()
    assert error_of(*done) == f"{text} is missing beside {path.name}"
    path.unlink()
    assert read_run(done[0], done[1].out) is None


def test_other_settings_are_named(done: tuple[Unit, Settings], wanted: dict[str, Any]) -> None:
    unit, settings = done
    assert read_run(unit, settings.out, wanted) is not None
    other = {**wanted, "candidates": 32, "sampling_ratio": 3}
    assert error_of(unit, settings, other).endswith("candidates 16 instead of 32, sampling_ratio auto instead of 3")
    weights = load_weights("untrained", CONFIG.network)
    other_weights = dataclasses.replace(weights, sha256="0" * 64)
    assert "weights " in error_of(unit, settings, fingerprint(CONFIG, other_weights, "cpu"))
    assert "device cpu instead of cuda" in error_of(unit, settings, fingerprint(CONFIG, weights, "cuda"))
    # the seed is the unit's, not of the settings
    assert fingerprint(dataclasses.replace(CONFIG, seed=5), weights, "cpu") == wanted


def test_a_run_from_another_box_is_not_the_unit_s(done: tuple[Unit, Settings]) -> None:
    unit, settings = done
    for other in (
        dataclasses.replace(unit, frames=5),
        dataclasses.replace(unit, part=dataclasses.replace(unit.part, box_xywh=(0.0, 0.0, 9.0, 9.0))),
        dataclasses.replace(unit, part=dataclasses.replace(unit.part, first_frame=1)),
    ):
        assert "other frames or from another box" in error_of(other, settings)


# The plan


def test_the_plan_has_every_part_and_seed_once(tmp_path: Path) -> None:
    root = small_benchmark(tmp_path)
    tasks = tasks_of(root, "sre", seeds=(0, 1, 2))
    assert [task.entry.name for task in tasks] == ["Bird2", "Jogging-1", "owl"]
    for task, frames in zip(tasks, (5, 7, 4), strict=True):
        assert len(task.units) == len({unit.path(tmp_path, ".txt") for unit in task.units}) == 36
        assert {unit.frames for unit in task.units} == {frames} == {len(task.truth_xywh)}


def test_the_plan_cuts_sequences(tmp_path: Path) -> None:
    tasks = tasks_of(small_benchmark(tmp_path), max_frames=5)
    assert [(len(task.truth_xywh), task.units[0].frames, task.annotated) for task in tasks] == [
        (5, 5, 5),
        (5, 5, 7),
        (4, 4, 4),
    ]


def test_frames_that_a_profile_omits_are_neither_run_nor_scored(tmp_path: Path) -> None:
    add_sequence(tmp_path, "Tiger1", 1, 9)
    ((unit,),) = (task.units for task in tasks_of(tmp_path))
    assert (unit.part.first_frame, unit.frames) == (5, 4)
    np.testing.assert_allclose(unit.part.box_xywh, TRUTH[5] - (1, 1, 0, 0))
    (task,), _ = plan(open_dataset(tmp_path), "ope", [0], PROFILES["got10k"])
    assert (task.units[0].part.first_frame, task.units[0].frames) == (0, 9)


def test_sequences_that_cannot_be_used_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = small_benchmark(tmp_path)
    (root / "owl/img/0043.jpg").unlink()
    add_sequence(root, "blind")
    (root / "blind/groundtruth_rect.txt").write_text("0,0,0,0\n" * 5)
    names = ["owl", "Bird2", "Nowhere", "blind"]
    tasks, problems = plan(open_dataset(root, names), "ope", [0], PROFILES["otb"])
    assert [task.entry.name for task in tasks] == ["Bird2"]
    assert [problem.partition(":")[0] for problem in problems] == ["owl", "Nowhere", "blind"]
    assert "3 images" in problems[0] and "4 rows" in problems[0]
    assert "does not exist" in problems[1] and "no box on the first frame" in problems[2]
