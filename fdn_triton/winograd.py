"""Convolutions by fewer multiplications, on a CPU (Winograd's minimal filtering; Lavin and Gray, CVPR 2016).

Along an axis, four outputs of a filter with three taps depend on six inputs. Taken as coefficients of polynomials, and
these as their values at six points, the twelve multiplications become six. In two dimensions a tile of 4x4 outputs
takes 36 products a channel instead of 144, and all tiles together 36 products of matrices. A filter with stride 2 is a
sum of four, each with its share of the taps over every second row and column: they meet at the points, and those with
fewer taps do without the last one.

Results are those of the direct sums up to rounding, in fp32 about 3e-6 of the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from torch import Tensor, nn

_TILE, _TAPS = 4, 3  # outputs and, at most, taps along an axis
_POINTS = _TILE + _TAPS - 1
_FINITE = (0.0, 1.0, -1.0, 0.5, -2.0)  # behind infinity; they round less than 0, 1, -1, 2, -2
_ONE = 1 + _FINITE.index(1.0)
_TILES_AT_ONCE = 256  # enough rows for the products of matrices, few enough to stay in the cache


@dataclass(frozen=True)
class _Phase:
    """The part of a filter that sees the rows ``down``, ``down + stride`` ... and the columns alike.

    Attributes:
        to_points: [n * m, n * m], from n x m inputs to so many points.
        weight: [n, m, C, O], its filters at the points.
    """

    down: int
    right: int
    to_points: Tensor
    weight: Tensor


class WinogradConvolution:
    """A convolution of one image in fp32, without padding; it allocates no more than its result.

    Args:
        convolution: one that :meth:`fits`; its padding is left to the caller.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        self._convolution = convolution
        self._kernel, self._stride = convolution.kernel_size[0], convolution.stride[0]
        self._phases = [self._phase(*place) for place in product(range(self._stride), repeat=2)]
        to_outputs = _matrices(_TAPS)[2]
        self._to_outputs = _fp32(np.kron(to_outputs, to_outputs))
        channels, out_channels = convolution.in_channels, convolution.out_channels
        self._patches = _buffer(max(_POINTS**2 * channels, _TILE**2 * out_channels))
        self._values = _buffer(_POINTS**2 * channels)
        self._products = _buffer(_POINTS**2 * out_channels)

    @staticmethod
    def fits(convolution: nn.Conv2d) -> bool:
        """Whether it is in fp32 on a CPU, and has the taps and channels for which this is faster."""
        kernel, stride, weight = convolution.kernel_size[0], convolution.stride[0], convolution.weight
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        return on_cpu and -(-kernel // stride) == _TAPS and min(weight.shape[:2]) >= 64

    def __call__(self, x: Tensor) -> Tensor:
        """[1, C, H, W], best channels-last in memory, to [1, O, (H - kernel) // stride + 1, ...], channels-last."""
        height, width = ((side - self._kernel) // self._stride + 1 for side in x.shape[2:])
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        # Where much of the tiles is wasted, or too few share the filters, the direct way is faster.
        few = height * width < 10 * rows * columns or rows * columns < 12 * self._stride
        if few or min(height, width) < _TILE:
            return F.conv2d(x, self._convolution.weight, self._convolution.bias, self._stride)
        pixels = x.permute(0, 2, 3, 1)[0]
        out = torch.empty((height, width, self._convolution.out_channels), dtype=torch.float32, device="cpu")
        columns_at_once = min(columns, _TILES_AT_ONCE)
        bands = -(-rows * columns_at_once // _TILES_AT_ONCE)
        rows_at_once = -(-rows // bands)
        for top, left in product(range(0, rows, rows_at_once), range(0, columns, columns_at_once)):
            some_rows = range(top, min(top + rows_at_once, rows))
            self._tiles(pixels, out, some_rows, range(left, min(left + columns_at_once, columns)))
        return out.permute(2, 0, 1)[None]

    def _tiles(self, pixels: Tensor, out: Tensor, rows: range, columns: range) -> None:
        """Fill these tiles of the outputs [h, w, O] from the inputs [H, W, C]."""
        height, width, channels = out.shape
        grid, n = (len(rows), len(columns)), len(rows) * len(columns)
        runs = list(product(_runs(rows, height), _runs(columns, width)))
        products = _of_buffer(self._products, _POINTS, _POINTS, n, channels)
        for i, phase in enumerate(self._phases):
            high, wide, inputs, _ = phase.weight.shape
            patches = _of_buffer(self._patches, high, wide, *grid, inputs)
            seen = pixels[phase.down :: self._stride, phase.right :: self._stride]
            for (row, top, n_rows), (column, left, n_columns) in runs:
                of_run = seen[top : top + _TILE * (n_rows - 1) + high, left : left + _TILE * (n_columns - 1) + wide]
                of_run = of_run.unfold(0, high, _TILE).unfold(1, wide, _TILE).permute(3, 4, 0, 1, 2)
                patches[:, :, row : row + n_rows, column : column + n_columns] = of_run
            values = _of_buffer(self._values, high, wide, n, inputs)
            _combine(phase.to_points, patches, out=values)
            for row_products, row_values, row_weight in zip(products, values, phase.weight, strict=False):
                # The first phase has all points, and its products are the first sum.
                row_products[:wide].baddbmm_(row_values, row_weight, beta=min(i, 1))
        if self._convolution.bias is not None:
            products[_ONE, _ONE] += self._convolution.bias  # all outputs hold the product at this point once
        tiles = _of_buffer(self._patches, _TILE, _TILE, *grid, channels)
        _combine(self._to_outputs, products, out=tiles)
        for (row, top, n_rows), (column, left, n_columns) in runs:
            of_run = tiles[:, :, row : row + n_rows, column : column + n_columns]
            place = out[top : top + _TILE * n_rows, left : left + _TILE * n_columns]
            place.unflatten(1, (n_columns, _TILE)).unflatten(0, (n_rows, _TILE)).copy_(of_run.permute(2, 0, 3, 1, 4))

    def _phase(self, down: int, right: int) -> _Phase:
        stride = self._stride
        filters = self._convolution.weight.detach()[:, :, down::stride, right::stride].double()
        along, across = (_matrices(taps) for taps in filters.shape[2:])
        at_points = torch.einsum("ni,ocij,mj->nmco", torch.tensor(along[1]), filters, torch.tensor(across[1]))
        return _Phase(down, right, _fp32(np.kron(along[0], across[0])), at_points.float().contiguous())


def _matrices(taps: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Along an axis: inputs to points [n, n], taps to points [n, taps], points to outputs [4, n]; n = 4 + taps - 1.

    Outputs are ``c @ ((b @ taps) * (a @ inputs))``: Toom and Cook's way to multiply polynomials, transposed.
    """
    n = _TILE + taps - 1
    points = np.array(_FINITE[: n - 1])
    others = [np.delete(points, i) for i in range(n - 1)]
    inputs = np.zeros((n, n))
    inputs[0] = polynomial.polyfromroots(points)
    for i, other in enumerate(others, start=1):
        inputs[i, : n - 1] = polynomial.polyfromroots(other)
    lagrange = [math.prod(point - other) for point, other in zip(points, others, strict=True)]
    at_points = np.vander(points, taps, increasing=True) / np.array(lagrange)[:, None]
    to_outputs = np.vander(points, _TILE, increasing=True).T
    return (
        inputs,
        np.concatenate((np.eye(1, taps, taps - 1), at_points)),
        np.concatenate((np.eye(_TILE)[:, -1:], to_outputs), axis=1),
    )


def _runs(tiles: range, size: int) -> Iterator[tuple[int, int, int]]:
    """Tiles of an axis of so many outputs, in runs without gaps: (place among the tiles, first output, tiles).

    The axis's last tile moves back so far that it ends with the axis.
    """
    whole = min(tiles.stop, size // _TILE)
    if whole > tiles.start:
        yield 0, tiles.start * _TILE, whole - tiles.start
    if tiles.stop > size // _TILE:
        yield len(tiles) - 1, size - _TILE, 1


def _combine(matrix: Tensor, x: Tensor, out: Tensor) -> None:
    """The matrix times the first two axes of x, into the first two of ``out``."""
    rows, columns = matrix.shape
    # A batch of one, because mm shares so flat a product badly among threads.
    torch.bmm(matrix[None], x.view(1, columns, -1), out=out.view(1, rows, -1))


def _fp32(matrix: NDArray[np.floating[Any]]) -> Tensor:
    return torch.tensor(matrix, dtype=torch.float32, device="cpu")


def _buffer(numbers_a_tile: int) -> Tensor:
    return torch.empty(numbers_a_tile * _TILES_AT_ONCE, dtype=torch.float32, device="cpu")


def _of_buffer(buffer: Tensor, *shape: int) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)
