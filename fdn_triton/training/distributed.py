"""The processes that train together: one, or those that ``torchrun`` starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..device import choose_device


@dataclass(frozen=True)
class World:
    """One process's view.

    Attributes:
        rank: its number.
        size: of how many.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    def share(self, total: int) -> slice:
        """This process's part of a batch."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def autocast(self, precision: Literal["fp32", "bf16"]) -> AbstractContextManager[Any]:
        """Inside of it, convolutions and products are of this precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def average_gradients(self, module: nn.Module) -> None:
        """Make every process's gradients their mean; a parameter has one in all processes or in none."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        mean = self.average(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def average_buffers(self, module: nn.Module) -> None:
        """Make every process's running statistics their mean."""
        for buffer in module.buffers():
            if self.size > 1 and buffer.is_floating_point():
                buffer.copy_(self.average(buffer))


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes of ``torchrun``, each with a GPU of its own; without it, a world of one."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield World(0, 1, choose_device(device))
        return
    own = choose_device(device)
    if own.type == "cuda":
        own = choose_device(f"cuda:{dist.get_node_local_rank()}")
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), own)
        dist.barrier()  # who leaves while others still use the connection may abort
    finally:
        dist.destroy_process_group()
