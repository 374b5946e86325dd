"""Samples of RoIs and their maxima per bin: one pass over the bins, which the threads share by RoIs."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .compiling import compiled
from .threads import run_in_parts


def sample_maxima(
    images: Tensor, image_of_roi: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> Tensor:
    """[K, C, PH, PW], channels-last in memory: the largest sample of every bin.

    Args:
        images: [N, H, W, C] fp32, contiguous.
        image_of_roi: [K] int64.
        rows, columns: cells, int64, and weights of the two taps of every sample on an axis, [K, PH or PW, n, 2].
    """
    n_rois, bins_y, bins_x = len(image_of_roi), rows[0].shape[1], columns[0].shape[1]
    out = torch.empty((n_rois, bins_y, bins_x, images.shape[3]), dtype=torch.float32, device="cpu")
    if out.numel():
        (cells_y, weights_y), (cells_x, weights_x) = (
            (cells.numpy(), w.float().numpy()) for cells, w in (rows, columns)
        )
        taps = cells_y, weights_y, cells_x, weights_x
        run_in_parts(_part, _all_parts, images.detach().numpy(), image_of_roi.numpy(), *taps, out.numpy())
    return out.permute(0, 3, 1, 2)


@compiled(fastmath={"contract", "nsz"})
def _part(part, parts, images, image_of_roi, cells_y, weights_y, cells_x, weights_x, out):
    """Part ``part`` of ``parts`` of the RoIs."""
    n_rois, bins_y, bins_x, channels = out.shape
    samples = cells_y.shape[2]
    _, height, width, _ = images.shape
    cells, bins = images.reshape(-1), out.reshape(-1)
    for roi in range(n_rois * part // parts, n_rois * (part + 1) // parts):
        first_row = image_of_roi[roi] * height
        for y in range(bins_y):
            for x in range(bins_x):
                of_bin = ((roi * bins_y + y) * bins_x + x) * channels
                for i in range(samples):
                    above = (first_row + cells_y[roi, y, i, 0]) * width
                    below = (first_row + cells_y[roi, y, i, 1]) * width
                    of_above, of_below = weights_y[roi, y, i, 0], weights_y[roi, y, i, 1]
                    for j in range(samples):
                        left, right = cells_x[roi, x, j, 0], cells_x[roi, x, j, 1]
                        of_left, of_right = weights_x[roi, x, j, 0], weights_x[roi, x, j, 1]
                        _raise_to_sample(
                            bins,
                            of_bin,
                            i + j == 0,
                            cells,
                            (above + left, above + right, below + left, below + right),
                            (of_above * of_left, of_above * of_right, of_below * of_left, of_below * of_right),
                            channels,
                        )


@compiled(parallel=True)
def _all_parts(parts, images, image_of_roi, cells_y, weights_y, cells_x, weights_x, out):
    for part in numba.prange(parts):
        _part(part, parts, images, image_of_roi, cells_y, weights_y, cells_x, weights_x, out)


@compiled(fastmath={"contract", "nsz"})
def _raise_to_sample(bins, of_bin, first, cells, taps, weights, channels):
    """Raise the maxima [C] of a bin to a sample, or set them to it; NaN is higher than any.

    The indices are unsigned, of flat arrays: slices and signed indices take as long as the sample itself.
    """
    n, best = np.uintp(channels), np.uintp(of_bin)
    a, b, c, d = np.uintp(taps[0]) * n, np.uintp(taps[1]) * n, np.uintp(taps[2]) * n, np.uintp(taps[3]) * n
    of_a, of_b, of_c, of_d = weights
    for i in range(n):
        value = (of_a * cells[a + i] + of_b * cells[b + i]) + (of_c * cells[c + i] + of_d * cells[d + i])
        high = bins[best + i]
        bins[best + i] = value if first or value > high or value != value else high
