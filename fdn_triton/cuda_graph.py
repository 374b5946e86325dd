"""A sequence of operations captured as a CUDA graph: replayed by one launch instead of one per operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

_Output = TypeVar("_Output")  # a tensor or a tuple of some

_WARM_UP = 3  # runs before the capture: what libraries and compilers do at a first call cannot be captured


class CapturedSequence(Generic[_Output]):
    """A function of tensors on a CUDA device, as a graph.

    What the function does must depend on the shapes of its inputs only, and must not wait for the device: no values
    read by the host, no draws of random numbers, no copies from or to the host.

    Args:
        function: may change tensors in place that it does not get as inputs. They must live as long as the graph.
        inputs: of the shapes and types of all later ones: the first is on the device, the others may be in pinned
            memory of the host, where they must stay as they are until the device has been waited for.
        changed: the tensors that the function changes: they are as before once the graph is captured. Those that it
            changes in the same way however often it is run need not be among them.
        shares_with: a sequence whose memory this one uses too: what one returns is lost when the other is called.
    """

    def __init__(
        self,
        function: Callable[..., _Output],
        inputs: Sequence[Tensor],
        changed: Sequence[Tensor],
        shares_with: CapturedSequence[_Output] | None = None,
    ) -> None:
        device = inputs[0].device
        self._inputs = [torch.empty_like(tensor, device=device).copy_(tensor) for tensor in inputs]
        before = [tensor.clone() for tensor in changed]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    function(*self._inputs)
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)
            current.wait_stream(stream)
            memory = shares_with._graph.pool() if shares_with else None
            # thread_local: what the caller's other threads do on the device must not end the capture.
            with torch.cuda.graph(self._graph, pool=memory, stream=stream, capture_error_mode="thread_local"):
                self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> _Output:
        """What the function returns for the inputs; valid until a call of one with the same memory."""
        for static, tensor in zip(self._inputs, inputs, strict=True):
            static.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._output
