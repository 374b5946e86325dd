"""The loop around every training: progress, log, checkpoints, exact resume.

What a step draws depends on the seed, the step's number and the process only, never on what came before: a run that
goes on from a checkpoint does what an uninterrupted one does.

The folder of a run holds ``checkpoint.pt``, ``log.jsonl`` (a row every few steps: step, loss, learning rate, samples
per second, and what validation measured), ``loss.svg`` and at the end ``weights.safetensors``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import InputError
from ..weights import NetworkWeights, save_weights
from .distributed import World
from .loss_plot import plot_log

_Module = TypeVar("_Module", bound=nn.Module)

CHECKPOINT, LOG, PLOT, WEIGHTS = "checkpoint.pt", "log.jsonl", "loss.svg", "weights.safetensors"


class Task(Protocol):
    """What is trained."""

    steps: int
    """Of the whole training."""
    samples_per_step: int
    """In all processes together."""

    def step(self, number: int) -> Tensor:
        """The step with this number, from 0; returns its loss, a scalar."""

    def learning_rate(self, number: int) -> float:
        """Of that step, for the log."""

    def validate(self) -> dict[str, float]:
        """How good the weights are."""

    def state(self) -> dict[str, Any]:
        """All that steps change."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""

    def weights(self) -> NetworkWeights:
        """What the tracker can use."""


def random_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator of draws that depend on the key only, numbers from 0."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed) >> 1)


def new_module(make: Callable[[], _Module], seed: int, world: World) -> _Module:
    """A module whose random start depends on the seed only, on the world's device, channels-last."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = make()
    return module.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Dropout:
    """The draws of a step's dropout: several processes make those that one would make for the whole batch.

    Attributes:
        generator: on the world's device, equal in all processes.
        world: of the processes, which have equal shares of the batch.
    """

    generator: torch.Generator
    world: World


def dropped(x: Tensor, share: float, dropout: Dropout | None) -> Tensor:
    """x [N, ...] with a share of its values set to 0 and the others enlarged; without ``dropout``, x."""
    if dropout is None or share == 0:
        return x
    total = len(x) * dropout.world.size
    kept = x.new_empty(total, *x.shape[1:]).bernoulli_(1 - share, generator=dropout.generator)
    return x * kept[dropout.world.share(total)] / (1 - share)


def cosine(number: int, steps: int, warm_up: int) -> float:
    """Factor on the learning rate: rises in a straight line to 1, then falls to 0 along a cosine."""
    if number < warm_up:
        return (number + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (number - warm_up) / max(1, steps - warm_up)))


@dataclass(frozen=True)
class Schedule:
    """How often a training does what is not training, and how it stores its weights, which do not depend on it."""

    log_every: int = 20
    """Steps between rows of the log."""
    validate_every: int = 500
    """Steps between validations."""
    track_every: int = 4
    """Validations between tryings of the weights on the videos of --track; the last one has it always."""
    checkpoint_seconds: float = 120.0
    """Between checkpoints, at least."""
    store: Literal["fp32", "fp16"] = "fp32"
    """Precision of the weights' file; fp16 halves it."""


def run_training(
    task: Task,
    out: Path,
    options: Mapping[str, Any],
    world: World,
    schedule: Schedule,
    tracking: Callable[[NetworkWeights], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Train until the last step, from the checkpoint in ``out`` if there is one; leave the weights there.

    Args:
        task: fresh.
        out: folder of the run, made where it is missing.
        options: everything that decides about the result; a checkpoint made with others is refused.
        world: of the processes that train together; the first one writes.
        schedule: of log, validations and checkpoints.
        tracking: how well weights track.

    Returns:
        The last row of the log.

    Raises:
        InputError: the folder cannot be written, its checkpoint is damaged or of other options, or the loss is not
            finite.
    """
    writes = world.rank == 0
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        start = _restore(task, out / CHECKPOINT, options)
        if writes:
            _shorten_log(out / LOG, start)
    total = torch.zeros((), device=world.device)
    since = start
    saved = logged = time.monotonic()
    with tqdm(total=task.steps, initial=start, unit="step", disable=None if writes else True) as progress:
        for number in range(start, task.steps):
            total += task.step(number)
            progress.update()
            done, last = number + 1, number + 1 == task.steps
            if done % schedule.log_every and not last:
                continue
            loss = float(total) / (done - since)
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} at step {done}: give another --out and a lower --learning-rate or fp32"
                )
            samples_per_s = task.samples_per_step * (done - since) / (time.monotonic() - logged)
            row: dict[str, float] = {"step": done, "loss": loss, "learning_rate": task.learning_rate(number)}
            row["samples_per_s"] = samples_per_s
            progress.set_postfix(loss=f"{loss:.3f}", samples_s=f"{samples_per_s:.0f}")
            validations = done // schedule.validate_every
            validates = last or validations > since // schedule.validate_every
            if validates:
                row |= task.validate()
                if tracking and writes and (last or validations % schedule.track_every == 0):
                    row |= tracking(task.weights())
            if writes:
                if validates:
                    progress.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
                with _writing(out):
                    _append(out / LOG, row)
                    if last or time.monotonic() - saved > schedule.checkpoint_seconds:
                        _save(out / CHECKPOINT, {"step": done, "options": dict(options), "task": task.state()})
                        saved = time.monotonic()
            total.zero_()
            since, logged = done, time.monotonic()
    rows = read_log(out / LOG)
    if writes:
        with _writing(out):
            plot_log(rows, out / PLOT)
        save_weights(out / WEIGHTS, task.weights(), torch.float16 if schedule.store == "fp16" else torch.float32)
    return rows[-1] if rows else {}


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {str(out)!r}: {error.strerror}: give another --out") from None


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log; a half-written last one is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _restore(task: Task, path: Path, options: Mapping[str, Any]) -> int:
    """How many steps are done."""
    if not path.exists():
        return 0
    damaged = InputError(f"{str(path)!r} is damaged or no checkpoint of this training: remove it to start anew")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        step, trained_with = int(checkpoint["step"]), dict(checkpoint["options"])
    except Exception:  # whatever the damage makes torch raise
        raise damaged from None
    others = sorted(name for name in {*options, *trained_with} if options.get(name) != trained_with.get(name))
    if others:
        raise InputError(
            f"{str(path)!r} was made with another {', '.join(others)}: give another --out, or the same options to go on"
        )
    try:
        task.restore(checkpoint["task"])
    except (KeyError, ValueError, RuntimeError):
        raise damaged from None
    return step


def _save(path: Path, checkpoint: dict[str, Any]) -> None:
    """At every moment the file is the last checkpoint or this one."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _append(path: Path, row: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        rounded = {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in row.items()}
        file.write(json.dumps(rounded) + "\n")


def _shorten_log(path: Path, steps: int) -> None:
    """Leave out what was logged after the checkpoint: it is done again."""
    rows = [row for row in read_log(path) if row["step"] <= steps]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(temporary, path)
