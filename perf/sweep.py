"""Other launch configurations: ``python perf/gpu.py --sweep`` prints the fastest beside the kernels' own.

The chosen ones are what ``_select_config`` of each module in ``kernels/gpu`` returns. A sweep puts other values in its
place, one after the other, checks the result and times it; one that does not compile or is wrong is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any

import torch
from benchmarks import PARTS
from comparison import Task, input_sets, relative_error
from measure import measure
from parts import OURS, TOLERANCE, Part
from torch import Tensor

from fdn_triton import kernels

Config = tuple[int, ...]


@dataclass(frozen=True)
class Sweep:
    """What is tried in one module.

    Attributes:
        op: in PARTS.
        module: in ``kernels/gpu``.
        applies: whether to change the launch for which ``_select_config`` is asked with these arguments.
        configs: what to try, by dtype.
    """

    op: str
    module: str
    applies: Callable[..., bool]
    configs: Callable[[str], Iterator[Config]]


@dataclass(frozen=True)
class Swept:
    """The outcome at one shape: microseconds of the chosen and the fastest configuration, and how many were tried."""

    what: str
    shape: str
    dtype: str
    chosen: Config
    chosen_us: float
    best: Config
    best_us: float
    tried: int
    unusable: int


def _roi_configs(dtype: str) -> Iterator[Config]:
    return product((4, 8, 16, 32), (32, 64, 128, 256), (1, 2, 4, 8))


def _lrn_configs(dtype: str) -> Iterator[Config]:
    return product((1, 2, 4), (1, 2, 4, 8), (32, 64, 128))


def _hidden_layer_configs(dtype: str) -> Iterator[Config]:
    """Tile, splits, warps, stages."""
    tiles = ((32, 64, 4), (64, 64, 4), (64, 128, 4), (64, 256, 8), (128, 64, 4), (128, 128, 4), (128, 128, 8))
    for (block_m, block_n, warps), splits in product((*tiles, (128, 256, 8)), (1, 2, 4, 8)):
        for block_k, stages in ((64, 4),) if dtype == "fp16" else ((16, 3), (32, 3), (32, 4)):
            yield block_m, block_n, block_k, splits, warps, stages


def _last_layers_configs(dtype: str) -> Iterator[Config]:
    for block_m, (block_n, warps) in product((16, 32, 64, 128), ((64, 4), (128, 4), (128, 8))):
        yield (block_m, block_n, 64, 1, warps, 4) if dtype == "fp16" else (block_m, block_n, 16, 1, warps, 3)


SWEEPS = {
    "max_roi_align": Sweep("max_roi_align", "max_roi_align", lambda *sizes: True, _roi_configs),
    "lrn_max_pool": Sweep("lrn_max_pool", "lrn_pool", lambda *sizes: True, _lrn_configs),
    "score_heads, hidden layers": Sweep(
        "score_heads", "score_heads", lambda *sizes, may_split, **target: may_split, _hidden_layer_configs
    ),
    "score_heads, last layers": Sweep(
        "score_heads", "score_heads", lambda *sizes, may_split, **target: not may_split, _last_layers_configs
    ),
}


def sweep(task: Task) -> Iterator[Swept]:
    """Every sweep of the task's operations, at every shape."""
    device = torch.device(task.device)
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
        for what, settings in SWEEPS.items():
            if settings.op in task.ops:
                for part in PARTS[settings.op](task.sizes):
                    yield _swept(what, settings, part, device, task.samples)


def _swept(what: str, settings: Sweep, part: Part, device: torch.device, samples: int) -> Swept:
    sets = input_sets(part, device)
    calls = [part.providers[OURS].prepare(*inputs) for inputs in sets]
    expected: Tensor = part.reference(*sets[0])
    allowed = part.providers[OURS].tolerance or TOLERANCE[part.dtype]

    def microseconds() -> float:
        error = relative_error(calls[0](), expected)
        if not error <= allowed:
            raise ValueError(f"off by {error:.2g}")
        return measure(calls, device, samples).device.median

    with _config_in_place(settings, None) as asked:
        chosen_us = microseconds()
    chosen = tuple(asked[0])
    best, best_us, tried, unusable = chosen, chosen_us, 0, 0
    for config in settings.configs(part.dtype):
        tried += 1
        try:
            with _config_in_place(settings, config):
                time_us = microseconds()
        except Exception:
            unusable += 1
            continue
        if time_us < best_us:
            best, best_us = config, time_us
    return Swept(what, part.shape, part.dtype, chosen, chosen_us, best, best_us, tried, unusable)


@contextmanager
def _config_in_place(settings: Sweep, config: Config | None) -> Iterator[list[Any]]:
    """Inside, launches that the sweep applies to get this configuration; yields those that they would have had."""
    module: Any = import_module(f"{kernels.__name__}.gpu.{settings.module}")
    original = module._select_config
    asked: list[Any] = []

    def select(*arguments: Any, **options: Any) -> Any:
        own = original(*arguments, **options)
        if not settings.applies(*arguments, **options):
            return own
        asked.append(own)
        if config is None:
            return own
        return config if type(own) is tuple else type(own)(*config)

    module._select_config = select
    try:
        yield asked
    finally:
        module._select_config = original
