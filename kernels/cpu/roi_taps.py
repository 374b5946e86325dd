"""Where the samples of RoIs lie on an axis: one pass over the RoIs instead of a dozen over small tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .compiling import compiled

if TYPE_CHECKING:
    from ..roi_sampling import Sampling


def clamped_taps(
    low: Tensor, high: Tensor, size: int, bins: int, divisions: int, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Cells, int64, and weights of the two taps of every sample on one axis, both [K, bins, n, 2], for "clamped" taps.

    Args:
        low, high: [K] fp32, the RoIs' edges, input pixels.
        size: of the map, cells.
        bins: on this axis.
        divisions: spacings in a RoI's extent.
        sampling: the rest.
    """
    shape = (len(low), bins, sampling.per_bin, 2)
    cells = torch.empty(shape, dtype=torch.int64, device="cpu")
    weights = torch.empty(shape, dtype=torch.float32, device="cpu")
    numbers = sampling.spatial_scale, sampling.shift, sampling.extend, sampling.min_extent, divisions, sampling.offset
    _fill(
        low.numpy(),
        high.numpy(),
        size,
        sampling.step,
        *(np.float32(n) for n in numbers),
        cells.numpy(),
        weights.numpy(),
    )
    return cells, weights


@compiled()
def _fill(low, high, size, step, scale, shift, extend, min_extent, divisions, offset, cells, weights):
    n_rois, bins, samples, _ = cells.shape
    zero, one = np.float32(0), np.float32(1)
    last = np.float32(size - 1)
    for roi in range(n_rois):
        start = low[roi] * scale + shift
        extent = (high[roi] - low[roi]) * scale + extend
        if extent < min_extent and extent != -math.inf:
            extent = min_extent
        spacing = extent / divisions
        for bin_ in range(bins):
            for sample in range(samples):
                position = start + spacing * (np.float32(bin_ * step + sample) + offset)
                inside = position >= -one and position <= last + one  # NaN is not
                position = min(max(position, zero), last) if inside else zero
                first = math.floor(position)
                fraction = position - np.float32(first)
                cells[roi, bin_, sample, 0] = first
                cells[roi, bin_, sample, 1] = min(first + 1, size - 1)
                weights[roi, bin_, sample, 0] = one - fraction if inside else zero
                weights[roi, bin_, sample, 1] = fraction if inside else zero
