"""Resizing a part of an image and subtracting the mean: rows of the image are summed up, then their columns."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bits import bits_of, has_rows_without_gaps, write
from .compiling import compiled
from .threads import run_in_parts


def resize_subtract_mean(
    image: Tensor, size: tuple[int, int], mean: Tensor, part: tuple[slice, slice], out: Tensor
) -> Tensor:
    """Fill ``out`` [1, 3, h, w] with a part of the resized image; arguments as of the operation."""
    pixels = out.permute(0, 2, 3, 1)[0]
    if out.dtype not in (torch.float32, torch.bfloat16) or not has_rows_without_gaps(pixels):
        dense = torch.empty(pixels.shape, dtype=torch.float32, device="cpu")
        return out.copy_(resize_subtract_mean(image, size, mean, part, dense.permute(2, 0, 1)[None]))
    rows, columns = (_filters(*axis).of(at) for *axis, at in zip(image.shape[:2], size, part, strict=True))
    first, last = columns.inputs()
    source = image[:, first:last]
    if not has_rows_without_gaps(source):
        source = source.contiguous()
    run_in_parts(
        _part,
        _all_parts,
        *bits_of(source),
        last - first,
        (rows.first, rows.weights),
        (columns.first - first, columns.weights),
        mean.detach().numpy(),
        *bits_of(pixels),
    )
    return out


class _Filters(NamedTuple):
    """Of every output of an axis: the first input that it is made from, and the weights of that one and the next.

    Attributes:
        first: [n] int64.
        weights: [n, m] fp32; m inputs from the first on exist, the weights of some may be 0.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]

    def of(self, outputs: slice) -> _Filters:
        return _Filters(self.first[outputs], self.weights[outputs])

    def inputs(self) -> tuple[int, int]:
        """The first input of any, and the one behind the last."""
        return int(self.first.min()), int(self.first.max()) + self.weights.shape[1]


@lru_cache(maxsize=16)
def _filters(old: int, new: int) -> _Filters:
    """The weights that :mod:`~..resize_subtract_mean` defines, from ``old`` inputs to ``new`` outputs."""
    wide = max(old, new)
    i = np.arange(new, dtype=np.int64)
    low = np.maximum(((2 * i + 1) * old - 2 * wide - new) // (2 * new) + 1, 0)
    taps = min(-(-2 * wide // new), old)
    first = np.minimum(low, old - taps)
    j = first[:, None] + np.arange(taps)
    weights = np.maximum(2 * wide - np.abs((2 * j + 1) * new - (2 * i[:, None] + 1) * old), 0).astype(np.float64)
    return _Filters(first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


@compiled(fastmath={"contract", "nsz"})
def _part(part, parts, image, pitch, width, rows, columns, mean, out, out_pitch):
    """Part ``part`` of ``parts`` of the rows, from rows of ``width`` pixels that lie ``pitch`` numbers apart."""
    (first_rows, row_weights), (first_columns, column_weights) = rows, columns
    tall = np.empty(width * 3, np.float32)
    row = np.empty(len(first_columns) * 3, np.float32)
    for y in range(len(first_rows) * part // parts, len(first_rows) * (part + 1) // parts):
        tall[:] = 0
        for i in range(row_weights.shape[1]):
            if row_weights[y, i] != 0:
                first = (first_rows[y] + i) * pitch
                _add_weighted(tall, row_weights[y, i], image[first : first + 3 * width])
        for x in range(len(first_columns)):
            first = first_columns[x] * 3
            red, green, blue = -mean[0], -mean[1], -mean[2]
            for i in range(column_weights.shape[1]):
                weight = column_weights[x, i]
                red += weight * tall[first + 3 * i]
                green += weight * tall[first + 3 * i + 1]
                blue += weight * tall[first + 3 * i + 2]
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = red, green, blue
        write(row, out, y * out_pitch)


@compiled(parallel=True)
def _all_parts(parts, image, pitch, width, rows, columns, mean, out, out_pitch):
    for part in numba.prange(parts):
        _part(part, parts, image, pitch, width, rows, columns, mean, out, out_pitch)


@compiled(fastmath={"contract", "nsz"})
def _add_weighted(sums, weight, numbers):
    """Add numbers, times the weight."""
    for i in range(len(sums)):
        sums[i] += weight * np.float32(numbers[i])
