"""Samples of RoIs and their maxima per bin: one pass over the bins, which the threads share by RoIs."""

from __future__ import annotations

import numba
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
    n_rois, bins_y, bins_x, _ = out.shape
    samples = cells_y.shape[2]
    for roi in range(n_rois * part // parts, n_rois * (part + 1) // parts):
        image = images[image_of_roi[roi]]
        for y in range(bins_y):
            for x in range(bins_x):
                best = out[roi, y, x]
                for i in range(samples):
                    above, below = image[cells_y[roi, y, i, 0]], image[cells_y[roi, y, i, 1]]
                    of_above, of_below = weights_y[roi, y, i, 0], weights_y[roi, y, i, 1]
                    for j in range(samples):
                        left, right = cells_x[roi, x, j, 0], cells_x[roi, x, j, 1]
                        of_left, of_right = weights_x[roi, x, j, 0], weights_x[roi, x, j, 1]
                        _raise_to_sample(
                            best,
                            i + j == 0,
                            (above[left], above[right], below[left], below[right]),
                            (of_above * of_left, of_above * of_right, of_below * of_left, of_below * of_right),
                        )


@compiled(parallel=True)
def _all_parts(parts, images, image_of_roi, cells_y, weights_y, cells_x, weights_x, out):
    for part in numba.prange(parts):
        _part(part, parts, images, image_of_roi, cells_y, weights_y, cells_x, weights_x, out)


@compiled(fastmath={"contract", "nsz"})
def _raise_to_sample(best, first, taps, weights):
    """Raise the maxima [C] to a sample, or set them to it; NaN is higher than any."""
    a, b, c, d = taps
    of_a, of_b, of_c, of_d = weights
    for channel in range(len(best)):
        value = (of_a * a[channel] + of_b * b[channel]) + (of_c * c[channel] + of_d * d[channel])
        high = best[channel]
        best[channel] = value if first or value > high or value != value else high
