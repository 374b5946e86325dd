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
    sums = np.empty(channels, np.float32)
    pooled = np.empty((pool, out_w * channels), np.uint32)
    best = np.empty(out_w * channels, np.uint32)
    done = -1
    for y in range(out_h * part // parts, out_h * (part + 1) // parts):
        first, last = max(y * stride - above, 0), min(y * stride - above + pool, height)
        for of_map in range(max(first, done + 1), last):
            read(x, of_map * width * channels, row)
            _normalise(row, channels, size, constants, squares, sums)
            _pool_along(row.view(np.uint32), width, channels, pool, stride, left, pooled[of_map % pool])
            done = of_map
        if last - first == pool:  # in any order
            _maxima(pooled.reshape(-1), 0, pool, len(best), best, 0)
        else:  # at the border, some rows only
            best[:] = 0
            for of_map in range(first, last):
                np.maximum(best, pooled[of_map % pool], best)
        write(best.view(np.float32), out, y * out_pitch)


@compiled(parallel=True)
def _all_parts(parts, x, shape, out, out_pitch, out_hw, size, constants, pooling):
    for part in numba.prange(parts):
        _part(part, parts, x, shape, out, out_pitch, out_hw, size, constants, pooling)


@compiled(fastmath={"contract"}, error_model="numpy")
def _normalise(row, channels, size, constants, squares, sums):
    """ReLU and LRN of a row of pixels, in place. ``squares`` has zeros at its ends, beyond the channels.

    Behind batch normalisation, the sums add less than a hundredth to k: there, four terms of the binomial series are
    exact to fp32, in half the time of two roots and a quotient.
    """
    alpha, beta, k = constants
    in_series = k > 0 and 0 <= beta <= 1
    limit = np.float32(np.float32(0.01) * k / alpha).view(np.int32)
    scale = alpha / k
    constant = k**-beta
    linear = -beta * constant
    square = -(beta + np.float32(1)) / np.float32(2) * linear
    cubic = -(beta + np.float32(2)) / np.float32(3) * square
    radius = size // 2
    bits = sums.view(np.int32)
    for pixel in range(len(row) // channels):
        values = row[pixel * channels : (pixel + 1) * channels]
        of_values = squares[radius : radius + channels]
        for c in range(channels):
            value = np.float32(0) if values[c] <= 0 else values[c]  # no negative zero, no NaN lost
            values[c] = value
            of_values[c] = value * value
        if size == 5:  # VGG-M's: one pass instead of five
            for c in range(channels):
                pairs = (squares[c] + squares[c + 1]) + (squares[c + 3] + squares[c + 4])
                sums[c] = pairs + squares[c + 2]
        else:
            sums[:] = 0
            for shift in range(size):
                shifted = squares[shift : shift + channels]
                for c in range(channels):
                    sums[c] += shifted[c]
        # The bits of floats that are not negative have their order, and their maximum is found in vectors. NaN is above
        # all of them or below, and stays NaN either way.
        largest = np.int32(0)
        for c in range(channels):
            largest = max(largest, bits[c])
        if in_series and largest < limit:
            for c in range(channels):
                share = scale * sums[c]
                values[c] *= ((cubic * share + square) * share + linear) * share + constant
        elif beta == np.float32(0.75):  # d^-0.75 without a power
            for c in range(channels):
                root = np.float32(1) / np.sqrt(k + alpha * sums[c])
                values[c] *= root * np.sqrt(root)
        else:
            for c in range(channels):
                values[c] *= (k + alpha * sums[c]) ** -beta


@compiled()
def _pool_along(row, width, channels, pool, stride, left, pooled):
    """Maxima of windows of a row of pixels."""
    for x in range(len(pooled) // channels):
        first, last = max(x * stride - left, 0), min(x * stride - left + pool, width)
        _maxima(row, first * channels, last - first, channels, pooled, x * channels)


@compiled()
def _maxima(rows, first, count, length, out, first_out):
    """Maxima of ``count`` rows of so many numbers, one behind the other from ``first`` on: bits of floats that are not
    negative, or NaN, which is then the highest.

    The indices are unsigned: signed ones are looked at for negative ones, and slices counted, which takes as long as
    the maxima.
    """
    row, out_row, n = np.uintp(first), np.uintp(first_out), np.uintp(length)
    if count == 3:  # in one pass
        for i in range(n):
            out[out_row + i] = max(max(rows[row + i], rows[row + n + i]), rows[row + n + n + i])
        return
    for i in range(n):
        out[out_row + i] = rows[row + i]
    for _ in range(1, count):
        row += n
        for i in range(n):
            out[out_row + i] = max(out[out_row + i], rows[row + i])
