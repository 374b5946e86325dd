"""Random numbers that are the same on every device, and each target's own.

A device's generator draws other numbers than the host's, and for one target at a time, launch after launch. Here long
rows are drawn once, on the host, and a target reads them from places that its own generator chooses: what it gets
depends neither on the device nor on the other targets, and many targets read by one launch. (Evolution strategies share
a table of noise in the same way: Salimans et al., 2017.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

_DRAWS = 3 << 20  # a frame reads some thousand of them
_DROPOUT_FACTORS = 1 << 22
_LEAST_READS = 64  # that a row holds side by side


class NoiseTable:
    """A long row of random numbers, from which many targets read at once.

    Args:
        row: [L].
    """

    def __init__(self, row: Tensor) -> None:
        self._row = row

    def places(self, count: int, size: int, generators: Sequence[torch.Generator]) -> Tensor:
        """[count, S] on the host: where each of S targets may read ``size`` numbers or fewer, ``count`` times.

        Args:
            count: of readings.
            size: of the longest one.
            generators: one on the host for each target.
        """
        first_beyond = len(self._row) - size + 1
        drawn = [torch.randint(first_beyond, (count,), generator=generator, device="cpu") for generator in generators]
        return torch.stack(drawn, dim=1)

    def read(self, places: Tensor, size: int, out: Tensor | None = None) -> Tensor:
        """[S, size] numbers from the places [S], which are on the device; nothing waits for it."""
        everywhere = self._row.as_strided((len(self._row) - size + 1, size), (1, 1))
        return torch.index_select(everywhere, 0, places, out=out)


def gaussian_(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Fill with MDNet's r(): normal with a standard deviation of 0.5, clipped to [-1, 1]."""
    return noise.normal_(0, 0.5, generator=generator).clamp_(-1, 1)


def gaussian_table(size: int, device: torch.device) -> NoiseTable:
    """Of :func:`gaussian_`'s numbers, of which at most ``size`` are read at once.

    The device has its index: tables live as long as the process, one of a kind for each device.
    """
    return _gaussian_table(max(_DRAWS, _LEAST_READS * size), device)


def uniform_table(size: int, device: torch.device) -> NoiseTable:
    """Uniform on [-1, 1], MDNet's u(); as long as :func:`gaussian_table` for the same size."""
    return _uniform_table(max(_DRAWS, _LEAST_READS * size), device)


def dropout_table(share: float, size: int, device: torch.device) -> NoiseTable:
    """Factors of inverted dropout, 0 or 1 / (1 - share), of which at most ``size`` are read at once."""
    return _dropout_table(share, max(_DROPOUT_FACTORS, _LEAST_READS * size), device)


@cache  # for good: captured graphs read them
def _gaussian_table(length: int, device: torch.device) -> NoiseTable:
    return NoiseTable(gaussian_(_row(length), _generator()).to(device))


@cache
def _uniform_table(length: int, device: torch.device) -> NoiseTable:
    return NoiseTable(_row(length).uniform_(-1, 1, generator=_generator()).to(device))


@lru_cache(maxsize=8)
def _dropout_table(share: float, length: int, device: torch.device) -> NoiseTable:
    row = _row(length).bernoulli_(1 - share, generator=_generator())
    return NoiseTable(row.div_(1 - share).to(device))


def _row(length: int) -> Tensor:
    return torch.empty(length, dtype=torch.float32, device="cpu")


def _generator() -> torch.Generator:
    """The same for every row: they are read at different places."""
    return torch.Generator("cpu").manual_seed(0)
