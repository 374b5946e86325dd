"""A stand-in for CUDA streams on a CPU: what is copied on a stream happens only when somebody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fdn_triton import frame_upload


class DeferredStream:
    """Holds copies until :meth:`run` is told up to which."""

    def __init__(self, device: object = None) -> None:
        self.queue: list[Callable[[], object]] = []
        self.done = 0

    def run(self, until: int) -> None:
        while self.done < until:
            self.queue[self.done]()
            self.done += 1

    def wait_event(self, event: DeferredEvent) -> None:
        event.synchronize()


class DeferredEvent:
    """A place in a stream's queue."""

    def record(self, stream: DeferredStream) -> None:
        self.stream, self.place = stream, len(stream.queue)

    def synchronize(self) -> None:
        self.stream.run(self.place)


class _Defer(TorchDispatchMode):
    def __init__(self, stream: DeferredStream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.copy_.default:
            return func(*args, **(kwargs or {}))
        assert args[2:] == (True,) or (kwargs or {}).get("non_blocking"), "the host would wait"
        self.stream.queue.append(lambda: func(*args, **(kwargs or {})))
        return args[0]


@contextmanager
def deferred_copies() -> Iterator[list[Tensor]]:
    """CUDA streams and events are deferred ones; yields the list of tensors that were recorded on a stream."""
    recorded: list[Tensor] = []
    current = DeferredStream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", DeferredStream)
        patch.setattr(torch.cuda, "Event", DeferredEvent)
        patch.setattr(torch.cuda, "stream", _Defer)
        patch.setattr(torch.cuda, "current_stream", lambda device: current)
        patch.setattr(Tensor, "record_stream", lambda tensor, stream: recorded.append(tensor))
        patch.setattr(frame_upload, "_pinned", lambda size: torch.empty(size, dtype=torch.uint8))
        yield recorded
