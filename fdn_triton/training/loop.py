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
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

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


def dropped(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Dropout whose draws come from the generator; without one, x."""
    if generator is None or share == 0:
        return x
    kept = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
    return x * kept / (1 - share)


def cosine(number: int, steps: int, warm_up: int) -> float:
    """Factor on the learning rate: rises in a straight line to 1, then falls to 0 along a cosine."""
    if number < warm_up:
        return (number + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (number - warm_up) / max(1, steps - warm_up)))


def run_training(
    task: Task,
    out: Path,
    options: Mapping[str, Any],
    world: World,
    *,
    log_every: int = 20,
    validate_every: int,
    checkpoint_seconds: float = 120.0,
) -> dict[str, float]:
    """Train until the last step, from the checkpoint in ``out`` if there is one; leave the weights there.

    Args:
        task: fresh.
        out: folder of the run, made where it is missing.
        options: everything that decides about the result; a checkpoint made with others is refused.
        world: of the processes that train together; the first one writes.
        log_every, validate_every: steps.
        checkpoint_seconds: between checkpoints, at least.

    Returns:
        What the last validation measured.

    Raises:
        InputError: the folder cannot be written, its checkpoint is damaged or of other options.
    """
    writes = world.rank == 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        start = _restore(task, out / CHECKPOINT, options)
        if writes:
            _shorten_log(out / LOG, start)
    except OSError as error:
        raise InputError(f"cannot write to {str(out)!r}: {error.strerror}: give another --out") from None
    results: dict[str, float] = {}
    total = torch.zeros((), device=world.device)
    saved = logged = time.monotonic()
    progress = tqdm(total=task.steps, initial=start, unit="step", disable=None if writes else True)
    with progress:
        for number in range(start, task.steps):
            total += task.step(number)
            progress.update()
            done, last = number + 1, number + 1 == task.steps
            if done % log_every and not last:
                continue
            loss = float(total) / ((done - 1) % log_every + 1)
            total.zero_()
            if not math.isfinite(loss):
                raise InputError(f"the loss is {loss} at step {done}: lower the learning rate, or use --precision fp32")
            now = time.monotonic()
            row = {"step": done, "loss": loss, "learning_rate": task.learning_rate(number)}
            row["samples_per_s"] = task.samples_per_step * ((done - 1) % log_every + 1) / (now - logged)
            if last or done // validate_every > (done - log_every) // validate_every:
                results = task.validate()
                row |= results
                progress.write("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
            progress.set_postfix(loss=f"{loss:.3f}", samples_s=f"{row['samples_per_s']:.0f}")
            logged = time.monotonic()
            if writes:
                _append(out / LOG, row)
                if last or logged - saved > checkpoint_seconds:
                    _save(out / CHECKPOINT, {"step": done, "options": dict(options), "task": task.state()})
                    saved = time.monotonic()
    if writes:
        plot_log(read_log(out / LOG), out / PLOT)
        save_weights(out / WEIGHTS, task.weights())
    return results or _last_row(out / LOG)


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
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        step, trained_with = int(checkpoint["step"]), dict(checkpoint["options"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
        raise InputError(f"{str(path)!r} is damaged or no checkpoint: remove it to start anew") from None
    others = sorted(name for name in {*options, *trained_with} if options.get(name) != trained_with.get(name))
    if others:
        raise InputError(
            f"{str(path)!r} was made with another {', '.join(others)}: give another --out, or the same options to go on"
        )
    task.restore(checkpoint["task"])
    return step


def _save(path: Path, checkpoint: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _append(path: Path, row: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: float(f"{value:.6g}") for name, value in row.items()}) + "\n")


def _shorten_log(path: Path, steps: int) -> None:
    """Leave out what was logged after the checkpoint: it is done again."""
    rows = [row for row in read_log(path) if row["step"] <= steps]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _last_row(path: Path) -> dict[str, float]:
    rows = read_log(path)
    return rows[-1] if rows else {}
