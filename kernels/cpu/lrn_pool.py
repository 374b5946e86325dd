"""ReLU, local response normalisation and max-pooling: every row of the map is normalised once, in the cache.

A row is normalised and pooled along itself; the last ``pool`` rows so made are pooled down the columns. Threads share
the rows of the result, and normalise the rows that two of them need twice.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .bits import bits_of, read, write
from .compiling import compiled
from .threads import run_in_parts


def lrn_max_pool(
    x: Tensor,
    out_hw: tuple[int, int],
    size: int,
    alpha: float,
    beta: float,
    k: float,
    pool: int,
    stride: int,
    left: int,
    above: int,
) -> Tensor:
    """[N, C, ``out_hw``], channels-last in memory, of x [N, C, H, W], fp32, bf16 or fp16."""
    if x.dtype == torch.float16:
        return lrn_max_pool(x.float(), out_hw, size, alpha, beta, k, pool, stride, left, above).half()
    images = x.permute(0, 2, 3, 1).contiguous()
    n_images, height, width, channels = images.shape
    out = torch.empty((n_images, *out_hw, channels), dtype=x.dtype, device="cpu")
    constants = np.float32(alpha), np.float32(beta), np.float32(k)
    for image, of_image in zip(images, out, strict=True) if out.numel() else ():
        run_in_parts(
            _part,
            _all_parts,
            bits_of(image)[0],
            (height, width, channels),
            *bits_of(of_image),
            out_hw,
            size,
            constants,
            (pool, stride, left, above),
        )
    return out.permute(0, 3, 1, 2)


@compiled(fastmath={"contract", "nsz"}, error_model="numpy")
def _part(part, parts, x, shape, out, out_pitch, out_hw, size, constants, pooling):
    """Part ``part`` of ``parts`` of the result's rows."""
    height, width, channels = shape
    out_h, out_w = out_hw
    pool, stride, left, above = pooling
    row = np.empty(width * channels, np.float32)
    squares = np.zeros(channels + size - 1, np.float32)
    denominators = np.empty(channels, np.float32)
    pooled = np.empty((pool, out_w * channels), np.float32)
    best = np.empty(out_w * channels, np.float32)
    done = -1
    for y in range(out_h * part // parts, out_h * (part + 1) // parts):
        first, last = max(y * stride - above, 0), min(y * stride - above + pool, height)
        for of_map in range(max(first, done + 1), last):
            read(x, of_map * width * channels, row)
            _normalise(row, channels, size, constants, squares, denominators)
            _pool_along(row, width, channels, pool, stride, left, pooled[of_map % pool])
            done = of_map
        best[:] = pooled[first % pool]
        for of_map in range(first + 1, last):
            _maximum(best, pooled[of_map % pool])
        write(best, out, y * out_pitch)


@compiled(parallel=True)
def _all_parts(parts, x, shape, out, out_pitch, out_hw, size, constants, pooling):
    for part in numba.prange(parts):
        _part(part, parts, x, shape, out, out_pitch, out_hw, size, constants, pooling)


@compiled(fastmath={"contract", "nsz"}, error_model="numpy")
def _normalise(row, channels, size, constants, squares, denominators):
    """ReLU and LRN of a row of pixels, in place. ``squares`` has zeros at its ends, beyond the channels."""
    alpha, beta, k = constants
    radius = size // 2
    for pixel in range(len(row) // channels):
        values = row[pixel * channels : (pixel + 1) * channels]
        of_values = squares[radius : radius + channels]
        for c in range(channels):
            value = np.float32(0) if values[c] < 0 else values[c]
            values[c] = value
            of_values[c] = value * value
        if size == 5:  # VGG-M's: one pass instead of five
            for c in range(channels):
                pairs = (squares[c] + squares[c + 1]) + (squares[c + 3] + squares[c + 4])
                denominators[c] = k + alpha * (pairs + squares[c + 2])
        else:
            denominators[:] = k
            for shift in range(size):
                shifted = squares[shift : shift + channels]
                for c in range(channels):
                    denominators[c] += alpha * shifted[c]
        if beta == np.float32(0.75):  # d^-0.75 without a power
            for c in range(channels):
                root = np.float32(1) / np.sqrt(denominators[c])
                values[c] *= root * np.sqrt(root)
        else:
            for c in range(channels):
                values[c] *= denominators[c] ** -beta


@compiled()
def _pool_along(row, width, channels, pool, stride, left, pooled):
    """Maxima of windows of a row of pixels."""
    for x in range(len(pooled) // channels):
        first, last = max(x * stride - left, 0), min(x * stride - left + pool, width)
        pooled[x * channels : (x + 1) * channels] = row[first * channels : (first + 1) * channels]
        best = pooled[x * channels : (x + 1) * channels]
        for of_row in range(first + 1, last):
            _maximum(best, row[of_row * channels : (of_row + 1) * channels])


@compiled()
def _maximum(best, others):
    """Raise numbers to others; NaN is higher than any."""
    for i in range(len(best)):
        value, high = others[i], best[i]
        best[i] = high if high >= value or high != high else value
