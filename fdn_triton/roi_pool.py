"""RoIPool: the maximum over whole cells in each bin, the layer that max-RoIAlign replaces (paper 4.3; Fast R-CNN).

Plain torch, for the paper's comparison. The maximum over a rectangle is read from a sparse table: maps of maxima over
windows of 1, 2, 4 ... cells along each axis, of which four overlapping windows cover any rectangle.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROIS_PER_CHUNK = 256  # bounds the memory of the gathered windows


def roi_pool(input: Tensor, boxes: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """Maximum over the integer cells of each bin, with torchvision's (Fast R-CNN's) rounding.

    The corners of a RoI are rounded to cells, both inclusive; bin p of n covers cells floor(p * extent / n) to
    ceil((p + 1) * extent / n), clipped to the map; a bin without cells gives 0.

    Args:
        input: [N, C, H, W].
        boxes: [K, 5] (batch_index, x1, y1, x2, y2) in input pixels.
        output_size: bins per axis.
        spatial_scale: feature cells per input pixel.

    Returns:
        [K, C, output_size, output_size], channels-last in memory; gradients flow to ``input``.
    """
    n_images, channels, height, width = input.shape
    x_first, x_end = _bin_cells(boxes[:, 1], boxes[:, 3], spatial_scale, output_size, width)
    y_first, y_end = _bin_cells(boxes[:, 2], boxes[:, 4], spatial_scale, output_size, height)
    x_level, y_level = _level(x_end - x_first), _level(y_end - y_first)
    x_levels, y_levels = (int(level.max()) + 1 if len(boxes) else 1 for level in (x_level, y_level))
    table = _window_maxima(input.permute(0, 2, 3, 1), y_levels, x_levels).reshape(-1, channels)

    # [K, PH, PW, 4]: the windows that start at the bin's first cells and those that end at its last ones.
    level = y_level[:, :, None] * x_levels + x_level[:, None, :]
    ys = torch.stack((y_first, y_end - 2**y_level), dim=-1)[:, :, None, :, None]
    xs = torch.stack((x_first, x_end - 2**x_level), dim=-1)[:, None, :, None, :]
    image = boxes[:, 0].long()[:, None, None, None, None]
    index = ((level[..., None, None] * n_images + image) * height + ys) * width + xs
    empty = (x_end <= x_first)[:, None, :] | (y_end <= y_first)[:, :, None]
    index = torch.where(empty[..., None, None], 0, index).flatten(3)

    out = [table[chunk].amax(dim=3) for chunk in index.split(_ROIS_PER_CHUNK)]
    bins = torch.cat(out).masked_fill(empty[..., None], 0.0)
    return bins.permute(0, 3, 1, 2)


def _bin_cells(low: Tensor, high: Tensor, scale: float, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """First and end cell of every bin [K, bins], clipped to [0, size]."""
    # C's round, half away from zero, as the original; torch.round goes to even.
    first, last = ((v * scale).abs().add(0.5).floor() * v.sign() for v in (low, high))
    extent = (last - first + 1).clamp(min=1)[:, None]
    steps = torch.arange(bins, device=low.device, dtype=low.dtype)
    begins = first[:, None] + (steps * (extent / bins)).floor()
    ends = first[:, None] + ((steps + 1) * (extent / bins)).ceil()
    return begins.clamp(0, size).long(), ends.clamp(0, size).long()


def _level(length: Tensor) -> Tensor:
    """Largest k with 2^k <= length, 0 for lengths below 1."""
    return length.clamp(min=1).double().log2().floor().long()


def _window_maxima(maps: Tensor, y_levels: int, x_levels: int) -> Tensor:
    """[N, H, W, C] -> [y_levels * x_levels, N, H, W, C]: maxima over the 2^a x 2^b cells from each cell on."""
    tables = []
    for a in range(y_levels):
        if a:
            maps = _widen(maps, dim=1, by=2 ** (a - 1))
        wider = maps
        for b in range(x_levels):
            if b:
                wider = _widen(wider, dim=2, by=2 ** (b - 1))
            tables.append(wider)
    return torch.stack(tables)


def _widen(maps: Tensor, dim: int, by: int) -> Tensor:
    """Maximum with the map shifted by ``by`` cells; windows that leave the map are never read."""
    size = maps.shape[dim]
    shifted = maps.index_select(dim, (torch.arange(size, device=maps.device) + by).clamp(max=size - 1))
    return torch.maximum(maps, shifted)
