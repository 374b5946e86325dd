"""Check the providers of an operation against its reference, then time them; one that fails stops no other."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from benchmarks import PARTS
from floors import Floors, Work
from measure import SAMPLES, Times, measure, sets_needed
from own_process import in_short
from parts import TOLERANCE, Inputs, Part, Provider, Sizes
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """What is known of one provider at one shape.

    Attributes:
        times: None where it failed or was skipped.
        problem: why it has no times; "" where it has.
        skipped: there was no need or no way to run it, which is no failure.
        error: relative to the reference, of norms.
        work: the least that the operation must do.
        floor: its microseconds, and what sets them.
    """

    op: str
    shape: str
    dtype: str
    provider: str
    times: Times | None = None
    problem: str = ""
    skipped: bool = False
    error: float | None = None
    work: Work | None = None
    floor: tuple[float, str] | None = None


@dataclass(frozen=True)
class Task:
    """Operations whose providers are compared, those that torch.compile makes or all others."""

    ops: tuple[str, ...]
    compiled: bool
    sizes: Sizes
    device: str
    floors: Floors | None
    samples: int = SAMPLES


def compare(task: Task) -> Iterator[Row]:
    """A row per part and provider, each as soon as it is known."""
    device = torch.device(task.device)
    # Graphs are captured on a stream that is not the default one, and one that has seen all the work before.
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
        for op in task.ops:
            for part in PARTS[op](task.sizes):
                providers = {name: p for name, p in part.providers.items() if p.compiled == task.compiled}
                yield from _rows(part, providers, device, task)


def _rows(part: Part, providers: dict[str, Provider], device: torch.device, task: Task) -> Iterator[Row]:
    where = (part.op, part.shape, part.dtype)
    if not providers:
        return
    try:
        sets = input_sets(part, device)
        expected = part.reference(*sets[0])
        work = part.work(*sets[0])
        floor = task.floors.of(work, part.dtype) if task.floors else None
    except Exception as error:
        traceback.print_exc()
        yield Row(*where, "all", problem=in_short(error))
        return
    for name, provider in providers.items():
        try:
            calls = [provider.prepare(*inputs) for inputs in sets]
            off = relative_error(calls[0](), expected)
            allowed = provider.tolerance or TOLERANCE[part.dtype]
            if not off <= allowed:  # NaN does not pass
                yield Row(*where, name, problem=f"wrong: off by {off:.2g}, allowed are {allowed:g}", error=off)
                continue
            times = measure(calls, device, task.samples, provider.capture)
            yield Row(*where, name, times, error=off, work=work, floor=floor)
        except ModuleNotFoundError as missing:
            yield Row(*where, name, problem=f"{missing.name} is not installed", skipped=True)
        except Exception as problem:
            traceback.print_exc()
            yield Row(*where, name, problem=in_short(problem))


def input_sets(part: Part, device: torch.device) -> list[Inputs]:
    """Seeded inputs, as many sets as it takes to pass the cache."""
    generator = torch.Generator().manual_seed(0)
    sets = [part.make(generator, device)]
    needed = sets_needed(sum(tensor.nbytes for tensor in sets[0]), device)
    return sets + [part.make(generator, device) for _ in range(needed - 1)]


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Of norms; NaN where there is one. ValueError for another shape."""
    if result.shape != expected.shape:
        raise ValueError(f"shape {tuple(result.shape)} instead of {tuple(expected.shape)}")
    return float((result.double() - expected).norm() / expected.norm())
