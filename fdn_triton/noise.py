"""Random numbers that are the same on every device, and each target's own.

A device's generator draws other numbers than the host's, and for one target at a time, launch after launch. Here long
rows are drawn once, on the host, and a target reads them from places that its own generator chooses: what it gets
depends neither on the device nor on the other targets, and many targets read by one launch. (Evolution strategies share
a table of noise in the same way: Salimans et al., 2017.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .device import upload

_DRAWS = 3 << 20  # a frame reads some thousand of them
_DROPOUT_FACTORS = 1 << 22
_LEAST_READS = 64  # that a row of dropout factors holds side by side


class NoiseTable:
    """A long row of random numbers, from which many targets read at once.

    Args:
        row: [L].
    """

    def __init__(self, row: Tensor) -> None:
        self._row = row

    def places(self, count: int, size: int, generators: Sequence[torch.Generator]) -> Tensor:
        """[count, S] on the device: where each of S targets may read ``size`` numbers or fewer, ``count`` times.

        Args:
            generators: one on the host for each target.
        """
        first_beyond = len(self._row) - size + 1
        drawn = [torch.randint(first_beyond, (count,), generator=generator, device="cpu") for generator in generators]
        return upload(torch.stack(drawn, dim=1), self._row.device)

    def read(self, places: Tensor, size: int, out: Tensor | None = None) -> Tensor:
        """[S, size] numbers from the places [S]; nothing waits for the device."""
        everywhere = self._row.as_strided((len(self._row) - size + 1, size), (1, 1))
        return torch.index_select(everywhere, 0, places, out=out)


@lru_cache
def gaussian_table(device: torch.device) -> NoiseTable:
    """Normal with a standard deviation of 0.5, clipped to [-1, 1]: MDNet's r()."""
    return NoiseTable(_row(_DRAWS).normal_(0, 0.5, generator=_generator()).clamp_(-1, 1).to(device))


@lru_cache
def uniform_table(device: torch.device) -> NoiseTable:
    """Uniform on [-1, 1]: MDNet's u(); as long as the other one."""
    return NoiseTable(_row(_DRAWS).uniform_(-1, 1, generator=_generator()).to(device))


@lru_cache(maxsize=8)
def dropout_table(share: float, size: int, device: torch.device) -> NoiseTable:
    """Factors of inverted dropout, 0 or 1 / (1 - share), of which ``size`` are read at once."""
    row = _row(max(_DROPOUT_FACTORS, _LEAST_READS * size)).bernoulli_(1 - share, generator=_generator())
    return NoiseTable(row.div_(1 - share).to(device))


def _row(length: int) -> Tensor:
    return torch.empty(length, dtype=torch.float32, device="cpu")


def _generator() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)
