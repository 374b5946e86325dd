"""The loop of a training: log, checkpoints, going on after a death at any moment, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdn_triton.errors import InputError
from fdn_triton.training import loop
from fdn_triton.training.distributed import World
from fdn_triton.training.loop import CHECKPOINT, LOG, PLOT, WEIGHTS, Dropout, Schedule, dropped, run_training
from fdn_triton.weights import IMAGENET_MEAN, NetworkWeights

ALONE = World(0, 1, torch.device("cpu"))
EVERY = Schedule(log_every=2, validate_every=4, track_every=2, checkpoint_seconds=0)
OPTIONS = {"rate": 0.5, "seed": 0}


class Killed(BaseException):
    """What no handler of the loop may stop."""


class Walk:
    """A task that goes through random numbers; dies before step ``dies_at``."""

    samples_per_step = 8

    def __init__(self, steps: int = 11, dies_at: int | None = None, loss: float | None = None) -> None:
        self.steps, self._dies_at, self._loss = steps, dies_at, loss
        self.place, self.speed, self.validations = torch.zeros(3), torch.zeros(3), 0

    def step(self, number: int) -> Tensor:
        if number == self._dies_at:
            raise Killed
        drawn = torch.randn(3, generator=loop.random_generator(torch.device("cpu"), 0, number))
        self.speed = 0.9 * self.speed + drawn
        self.place = self.place + self.speed
        return self.place.square().mean() if self._loss is None else torch.tensor(self._loss)

    def learning_rate(self, number: int) -> float:
        return 1 / (1 + number)

    def validate(self) -> dict[str, float]:
        self.validations += 1
        return {"top1": 0.5}

    def state(self) -> dict[str, Any]:
        return {"place": self.place, "speed": self.speed}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.place, self.speed = state["place"], state["speed"]

    def weights(self) -> NetworkWeights:
        return NetworkWeights("walk", {"conv1.bias": self.place}, IMAGENET_MEAN, 1.0, None, None, "a walk", "")


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def without_speed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "samples_per_s"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "deep/whole"
    run_training(Walk(), out, OPTIONS, ALONE, EVERY)
    return out


def test_what_a_run_leaves(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} - {PLOT} == {CHECKPOINT, LOG, WEIGHTS}
    logged = rows(whole)
    assert [row["step"] for row in logged] == [2, 4, 6, 8, 10, 11]
    assert [row["step"] for row in logged if "top1" in row] == [4, 8, 11]
    walk = Walk()
    losses = [float(walk.step(number)) for number in range(11)]
    assert logged[0]["loss"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-5)
    assert logged[-1]["loss"] == pytest.approx(losses[10], rel=1e-5), "the last row has one step"
    assert logged[1]["learning_rate"] == 0.25 and all(row["samples_per_s"] > 0 for row in logged)


def test_the_plot(whole: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = (whole / PLOT).read_text()
    assert picture.startswith("<?xml") and len(picture) > 5000


@pytest.mark.parametrize("dies_at", range(11))
def test_it_goes_on_after_any_step(whole: Path, tmp_path: Path, dies_at: int) -> None:
    with pytest.raises(Killed):
        run_training(Walk(dies_at=dies_at), tmp_path, OPTIONS, ALONE, EVERY)
    result = run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY)
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert without_speed(rows(tmp_path)) == without_speed(rows(whole))
    assert result["step"] == 11 and result["top1"] == 0.5


def test_rows_behind_the_checkpoint_are_done_again(whole: Path, tmp_path: Path) -> None:
    """Checkpoints are rarer than rows; a death while a row is written leaves half of it."""
    rare = replace(EVERY, checkpoint_seconds=1e9)
    with pytest.raises(Killed):
        run_training(Walk(dies_at=5), tmp_path, OPTIONS, ALONE, EVERY)
    with pytest.raises(Killed):
        run_training(Walk(dies_at=9), tmp_path, OPTIONS, ALONE, rare)
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6, 8]
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 10, "lo')
    with pytest.raises(Killed):
        run_training(Walk(dies_at=5), tmp_path, OPTIONS, ALONE, EVERY)
    assert [row["step"] for row in rows(tmp_path)] == [2, 4], "what the checkpoint does not know is gone"
    run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY)
    assert without_speed(rows(tmp_path)) == without_speed(rows(whole))
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_a_death_while_the_checkpoint_is_written(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, written = torch.save, []

    def dies_in_the_third(checkpoint: Any, file: Any) -> None:
        written.append(checkpoint["step"])
        if len(written) == 3:
            file.write(b"half of it")
            raise Killed
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", dies_in_the_third)
    with pytest.raises(Killed):
        run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY)
    assert torch.load(tmp_path / CHECKPOINT)["step"] == 4
    run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY)
    assert (tmp_path / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_a_finished_run_is_not_done_again(whole: Path) -> None:
    task = Walk(dies_at=0)
    before = rows(whole)
    assert run_training(task, whole, OPTIONS, ALONE, EVERY) == before[-1]
    assert rows(whole) == before and task.validations == 0


def test_tracking_is_tried_now_and_then(tmp_path: Path) -> None:
    tried = []

    def tracking(weights: NetworkWeights) -> dict[str, float]:
        tried.append(weights.tensors["conv1.bias"])
        return {"precision": 0.25, "auc": 0.125}

    result = run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY, tracking)
    assert [row["step"] for row in rows(tmp_path) if "auc" in row] == [8, 11] and len(tried) == 2
    assert result["precision"] == 0.25 and result["auc"] == 0.125


def test_only_the_first_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Walk()
    run_training(task, tmp_path, OPTIONS, World(1, 2, torch.device("cpu")), EVERY)
    assert list(tmp_path.iterdir()) == [] and task.validations == 3
    assert capsys.readouterr().out == ""


def test_other_options_are_refused(whole: Path) -> None:
    with pytest.raises(InputError, match="made with another rate: give another --out, or the same options"):
        run_training(Walk(), whole, {**OPTIONS, "rate": 0.1}, ALONE, EVERY)
    with pytest.raises(InputError, match="made with another frames, seed"):
        run_training(Walk(), whole, {"rate": 0.5, "frames": 8}, ALONE, EVERY)


@pytest.mark.parametrize("damage", ["half", "text", "empty", "list", "other task"])
def test_a_damaged_checkpoint_is_refused(whole: Path, tmp_path: Path, damage: str) -> None:
    content = (whole / CHECKPOINT).read_bytes()
    path = tmp_path / CHECKPOINT
    path.write_bytes({"half": content[: len(content) // 2], "text": b"no checkpoint"}.get(damage, b""))
    if damage == "list":
        torch.save([1, 2], path)
    elif damage == "other task":
        torch.save({"step": 2, "options": OPTIONS, "task": {}}, path)
    with pytest.raises(InputError, match=r"checkpoint.pt' is damaged or no checkpoint .*remove it to start anew"):
        run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY)


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"step": 2, "options": Bomb(), "task": {}}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="damaged"):
        run_training(Walk(), tmp_path, OPTIONS, ALONE, EVERY)
    assert not (tmp_path / "executed").exists()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss is nan at step 2: give another --out and a lower --learning-rate"):
        run_training(Walk(loss=float("nan")), tmp_path, OPTIONS, ALONE, EVERY)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to '.*file/run': Not a directory: give another --out"):
        run_training(Walk(), tmp_path / "file/run", OPTIONS, ALONE, EVERY)

    def full(checkpoint: Any, file: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        run_training(Walk(), tmp_path / "run", OPTIONS, ALONE, EVERY)


def test_random_numbers_depend_on_the_key_only() -> None:
    device = torch.device("cpu")
    one, same, other = (
        torch.rand(5, generator=loop.random_generator(device, *key)) for key in ((1, 2), (1, 2), (2, 1))
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = loop.new_module(lambda: nn.Conv2d(3, 4, 3), 7, ALONE)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(5)
    assert torch.equal(first.weight, loop.new_module(lambda: nn.Conv2d(3, 4, 3), 7, ALONE).weight)


def test_dropout_of_several_processes_is_that_of_one() -> None:
    def drop(x: Tensor, rank: int, size: int) -> Tensor:
        generator = loop.random_generator(torch.device("cpu"), 0)
        return dropped(x, 0.25, Dropout(generator, World(rank, size, torch.device("cpu"))))

    x = torch.ones(40, 50)
    alone = drop(x, 0, 1)
    assert torch.equal(alone, torch.cat((drop(x[:20], 0, 2), drop(x[20:], 1, 2))))
    assert 0.2 < float((alone == 0).float().mean()) < 0.3
    torch.testing.assert_close(alone[alone > 0], torch.full_like(alone[alone > 0], 4 / 3))
    assert dropped(x, 0.25, None) is x


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [loop.cosine(number, 20, 4) for number in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True) and 0 < rates[-1] < 0.02
