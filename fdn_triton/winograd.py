"""Convolutions by fewer multiplications, on a CPU (Winograd's minimal filtering; Lavin and Gray, CVPR 2016).

Along an axis, four outputs of a filter with three taps depend on six inputs. Taken as coefficients of polynomials, and
these as their values at six points, the twelve multiplications become six. In two dimensions a tile of 4x4 outputs
takes 36 products a channel instead of 144, and all tiles together 36 products of matrices. A filter with stride 2 is a
sum of four, each with its share of the taps over every second row and column: they meet at the points, and those with
fewer taps do without the last one.

Results are those of the direct sums up to rounding, in fp32 about 3e-6 of the largest value of the tile's inputs. One
that is not finite reaches all 16 outputs of its tiles.
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

from .rectangle import equal_parts
from .scratch import scratch

_TILE, _TAPS = 4, 3  # outputs and, at most, taps along an axis
_POINTS = _TILE + _TAPS - 1
_FINITE = (0.0, 1.0, -1.0, 0.5, -2.0)  # behind infinity; they round less than 0, 1, -1, 2, -2
_ONE = 1 + _FINITE.index(1.0)
_TILES_AT_ONCE = 256  # rows of the products of matrices: more gained nothing (AMD EPYC, Zen 3, 2 threads, 2026-11-25)
# Below these the direct way is faster (measured there too: conv2 and conv3 of the trunk, 4x60 to 71x125 outputs).
_LEAST_CHANNELS = 64
_LEAST_TILES = 12  # times the stride: they share the filters
_LEAST_FILLED = 10  # outputs of a tile's 16, on average


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
    """A convolution of one image in fp32, without padding; besides the result, its memory is scratch of the thread.

    Args:
        convolution: one that :meth:`fits`; its padding is left to the caller. The filters are taken as they are now.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        self._kernel, self._stride = convolution.kernel_size[0], convolution.stride[0]
        self._weight, self._bias = convolution.weight, convolution.bias
        self._phases = [self._phase(*place) for place in product(range(self._stride), repeat=2)]
        to_outputs = _matrices(_TAPS)[2]
        self._to_outputs = _fp32(np.kron(to_outputs, to_outputs))

    @staticmethod
    def fits(convolution: nn.Conv2d) -> bool:
        """Whether it is a plain one in fp32 on a CPU, of three taps a stride and enough channels to be faster."""
        (kernel, width), (stride, right), weight = convolution.kernel_size, convolution.stride, convolution.weight
        plain = kernel == width and stride == right and convolution.dilation == (1, 1) and convolution.groups == 1
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        return plain and on_cpu and -(-kernel // stride) == _TAPS and min(weight.shape[:2]) >= _LEAST_CHANNELS

    def __call__(self, x: Tensor) -> Tensor:
        """[1, C, H, W], best channels-last in memory, to [1, O, (H - kernel) // stride + 1, ...], channels-last."""
        height, width = ((side - self._kernel) // self._stride + 1 for side in x.shape[2:])
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        few = rows * columns < _LEAST_TILES * self._stride or height * width < _LEAST_FILLED * rows * columns
        parameters = [self._weight] if self._bias is None else [self._weight, self._bias]
        learns = torch.is_grad_enabled() and any(each.requires_grad for each in (x, *parameters))
        if few or learns or min(height, width) < _TILE or len(x) != 1 or x.dtype != torch.float32:
            return F.conv2d(x, self._weight, self._bias, self._stride)
        pixels = x.permute(0, 2, 3, 1)[0]
        out = torch.empty((height, width, len(self._weight)), dtype=torch.float32, device="cpu")
        for some_rows, some_columns in product(*_at_once(rows, columns)):
            self._tiles(pixels, out, some_rows, some_columns)
        return out.permute(2, 0, 1)[None]

    def _tiles(self, pixels: Tensor, out: Tensor, rows: range, columns: range) -> None:
        """Fill these tiles of the outputs [h, w, O] from the inputs [H, W, C]."""
        height, width, channels = out.shape
        grid, n = (len(rows), len(columns)), len(rows) * len(columns)
        runs = list(product(_runs(rows, height), _runs(columns, width)))
        products = scratch("winograd products", (_POINTS, _POINTS, n, channels), self._to_outputs)
        for i, phase in enumerate(self._phases):
            high, wide, inputs, _ = phase.weight.shape
            patches = scratch("winograd patches", (high, wide, *grid, inputs), self._to_outputs)
            seen = pixels[phase.down :: self._stride, phase.right :: self._stride]
            for (row, top, n_rows), (column, left, n_columns) in runs:
                of_run = seen[top : top + _TILE * (n_rows - 1) + high, left : left + _TILE * (n_columns - 1) + wide]
                of_run = of_run.unfold(0, high, _TILE).unfold(1, wide, _TILE).permute(3, 4, 0, 1, 2)
                patches[:, :, row : row + n_rows, column : column + n_columns] = of_run
            values = scratch("winograd values", (high, wide, n, inputs), self._to_outputs)
            _combine(phase.to_points, patches, out=values)
            for row_products, row_values, row_weight in zip(products, values, phase.weight, strict=False):
                # The first phase has all points: it overwrites what the memory held.
                row_products[:wide].baddbmm_(row_values, row_weight, beta=0 if i == 0 else 1)
        if self._bias is not None:
            products[_ONE, _ONE] += self._bias.detach()  # all outputs hold the product at this point once
        tiles = scratch("winograd tiles", (_TILE, _TILE, *grid, channels), self._to_outputs)
        _combine(self._to_outputs, products, out=tiles)
        for (row, top, n_rows), (column, left, n_columns) in runs:
            of_run = tiles[:, :, row : row + n_rows, column : column + n_columns]
            place = out[top : top + _TILE * n_rows, left : left + _TILE * n_columns]
            place.unflatten(1, (n_columns, _TILE)).unflatten(0, (n_rows, _TILE)).copy_(of_run.permute(2, 0, 3, 1, 4))

    def _phase(self, down: int, right: int) -> _Phase:
        stride = self._stride
        filters = self._weight.detach()[:, :, down::stride, right::stride].double()
        along, across = (_matrices(taps) for taps in filters.shape[2:])
        at_points = torch.einsum("ni,ocij,mj->nmco", torch.from_numpy(along[1]), filters, torch.from_numpy(across[1]))
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


def _at_once(rows: int, columns: int) -> tuple[list[range], list[range]]:
    """Rows and columns of tiles in parts of about the same size, of which no two make more than are done at once."""
    wide = min(columns, _TILES_AT_ONCE)
    return equal_parts(rows, _TILES_AT_ONCE // wide), equal_parts(columns, wide)


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
