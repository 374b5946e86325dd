"""Positions and taps of RoI samples on one axis, for the kernels: the formulas of :mod:`..roi_sampling`."""

from __future__ import annotations

import triton
import triton.language as tl

CLAMPED = tl.constexpr(0)
EXTRAPOLATED = tl.constexpr(1)
STRIDED = tl.constexpr(2)
TAPS = {"clamped": CLAMPED.value, "extrapolated": EXTRAPOLATED.value, "strided": STRIDED.value}


@triton.jit
def start_and_spacing(low, high, spatial_scale, shift, extend, min_extent, DIVISIONS: tl.constexpr):
    """Where sample index 0 lies on the axis and how far apart the samples are, in cells."""
    # torch.compile hands numbers over as fp64.
    spatial_scale, shift = tl.cast(spatial_scale, tl.float32), tl.cast(shift, tl.float32)
    extend, min_extent = tl.cast(extend, tl.float32), tl.cast(min_extent, tl.float32)
    start = low * spatial_scale + shift
    extent = (high - low) * spatial_scale + extend
    extent = tl.where((extent < min_extent) & (extent != float("-inf")), min_extent, extent)
    return start, tl.math.div_rn(extent, tl.full(extent.shape, DIVISIONS, tl.float32))


@triton.jit
def taps(position, spacing, size, TAPS: tl.constexpr):
    """The two cells that a sample is read from, inside the axis, and their weights: 0 for a sample outside or NaN."""
    if TAPS == CLAMPED:
        valid = (position >= -1.0) & (position <= size)
        position = tl.where(valid, position, 0.0)
        position = tl.minimum(tl.maximum(position, 0.0), size - 1.0)
        first = tl.floor(position)
        second = tl.minimum(first + 1.0, size - 1.0)
        second_weight = position - first
        first_weight = 1.0 - second_weight
    else:
        valid = (position >= 0.0) & (position < size)
        position = tl.where(valid, position, 0.0)
        first = tl.minimum(tl.floor(position), size - 2.0)
        if TAPS == EXTRAPOLATED:
            second = first + 1.0
            second_weight = position - first
            first_weight = 1.0 - second_weight
        else:
            # Rounds half up, as C's round does for what is not negative.
            stride = tl.maximum(tl.floor(spacing + 0.5), 1.0)
            second = first + stride
            first_weight = tl.where(first >= 0.0, 1.0 - tl.abs(position - first) / stride, 0.0)
            second_weight = tl.where(second < size, 1.0 - tl.abs(position - second) / stride, 0.0)
        first = tl.maximum(first, 0.0)
        second = tl.minimum(second, size - 1.0)
    # Where a NaN went through, the cells too must not be what it left: they are read, with weight 0.
    first = tl.where(valid, first, 0.0)
    second = tl.where(valid, second, 0.0)
    first_weight = tl.where(valid, first_weight, 0.0)
    second_weight = tl.where(valid, second_weight, 0.0)
    return first.to(tl.int32), second.to(tl.int32), first_weight, second_weight


@triton.jit
def weight_of_cell(cell, position, spacing, size, TAPS: tl.constexpr):
    """Weight with which a sample reads a cell."""
    first, second, first_weight, second_weight = taps(position, spacing, size, TAPS)
    return tl.where(first == cell, first_weight, 0.0) + tl.where(second == cell, second_weight, 0.0)
