"""Maps as flat arrays of bits, and rows of them as fp32: how the kernels read and write fp32 and bf16 alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .compiling import compiled

Bits = NDArray[np.unsignedinteger[Any]]
_BITS = {torch.float32: np.uint32, torch.bfloat16: np.uint16, torch.uint8: np.uint8}


def bits_of(cells: Tensor) -> tuple[Bits, int]:
    """The memory of a map or image [H, W, C], fp32, bf16 or uint8, and the numbers from one of its rows to the next.

    Its pixels lie without gaps in a row; between rows there may be others, which the array has too.
    """
    height, width, channels = cells.shape
    pitch = cells.stride(0) if height > 1 else width * channels
    flat = cells.detach().as_strided(((height - 1) * pitch + width * channels,), (1,))
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy().view(_BITS[flat.dtype]), pitch


def has_rows_without_gaps(cells: Tensor) -> bool:
    """Whether :func:`bits_of` can see the map [H, W, C]: channels-last, and rows that do not overlap."""
    height, width, channels = cells.shape
    in_rows = (channels == 1 or cells.stride(2) == 1) and (width == 1 or cells.stride(1) == channels)
    return in_rows and (height == 1 or cells.stride(0) >= width * channels)


@compiled()
def read(bits, first, row):
    """Fill the row, fp32, from the bits from ``first`` on."""
    words, taken = row.view(np.uint32), bits[first : first + len(row)]
    if bits.itemsize == 2:
        for i in range(len(row)):
            words[i] = np.uint32(taken[i]) << np.uint32(16)
    else:
        for i in range(len(row)):
            words[i] = taken[i]


@compiled()
def write(row, bits, first):
    """Put the row, fp32, where the bits from ``first`` on are; bf16 is rounded to the nearest, ties to even."""
    words, taken = row.view(np.uint32), bits[first : first + len(row)]
    if bits.itemsize == 2:
        for i in range(len(row)):
            word = words[i]
            taken[i] = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    else:
        for i in range(len(row)):
            taken[i] = words[i]
