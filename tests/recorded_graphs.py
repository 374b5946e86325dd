"""A stand-in for CUDA graphs on a CPU: it records operations and the memory they work on, and runs them again."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class RecordedGraph:
    """As ``torch.cuda.CUDAGraph``: what is captured has not been run, a replay reads and writes the captured memory."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    @contextmanager
    def capture(self) -> Iterator[None]:
        recorder = _Recorder(self.operations)
        with recorder:
            yield
        for tensor, value in reversed(recorder.overwritten):
            tensor.copy_(value)

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            for memory, value in zip(_tensors(result), _tensors(function(*args, **kwargs)), strict=True):
                memory.copy_(value)  # onto itself where the operation works in place or makes a view

    def pool(self) -> RecordedGraph:
        return self


class _Recorder(TorchDispatchMode):
    def __init__(self, operations: list[tuple[Any, Any, Any, Any]]) -> None:
        super().__init__()
        self.operations = operations
        self.overwritten: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                tensor = kwargs[argument.name] if argument.kwarg_only else args[i]
                self.overwritten.append((tensor, tensor.clone()))
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result


def _tensors(result: Any) -> list[Tensor]:
    results = result if isinstance(result, (tuple, list)) else [result]
    return [value for value in results if isinstance(value, Tensor)]


@contextmanager
def recorded_graphs() -> Iterator[list[RecordedGraph]]:
    """Every CUDA graph made in the ``with`` block is a recording, and in this list; streams do nothing."""
    made: list[RecordedGraph] = []

    def make() -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "CUDAGraph", make)
        patch.setattr(torch.cuda, "graph", lambda graph, **options: graph.capture())
        patch.setattr(torch.cuda, "Stream", lambda device: stream)
        patch.setattr(torch.cuda, "current_stream", lambda device: stream)
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "device", lambda device: nullcontext())
        yield made
