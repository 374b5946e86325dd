"""Max-RoIAlign: bilinear samples on a regular grid inside every bin of a RoI, and their maximum.

Forward, for bin b of RoI r and channel c, over the n x n samples (y, x) of the bin::

    out[r, c, b] = max over (y, x) of  sum over the four neighbours (i, j) of  w_ij(y, x) * input[batch(r), c, i, j]

with bilinear weights w. Backward: only the sample that won passes the bin's gradient, to its four neighbours with
the same four weights. On a tie the first sample in row-major order wins.

Source: paper section 3.2 ("max RoIAlign"); it generalises ``torchvision.ops.roi_align``, whose rules for the RoI's
extent (``aligned``, at least one cell wide without it) and for the border (a sample further than one cell outside the
map gives 0, else it is clamped to the map) are kept, from the mean of a bin's samples to their maximum.

The implementation gathers rows of the channels-last map with weighted embedding bags, one bag per sample, which is
several times faster on a CPU than ``grid_sample``. It works through the RoIs in chunks, so that memory stays bounded.
Deterministic in the forward; the backward accumulates into the map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = Literal["midpoint", "interior"]

_ROIS_PER_CHUNK = 128  # 128 RoIs x 36 samples x 512 channels in fp32 are 9 MB: they stay in a CPU's cache
_ROIS_PER_LAUNCH = 2048  # elsewhere: few launches, and still bounded memory


def max_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
    grid: Grid = "midpoint",
    extend: float = 0.0,
) -> Tensor:
    """Maximum of bilinear samples in each bin of each RoI.

    Args:
        input: [N, C, H, W] feature map, fp32, fp16, bf16 or fp64; channels-last is read without a copy.
        boxes: [K, 5] (batch_index, x1, y1, x2, y2) in input pixels, a floating type; kept in at least fp32, because
            fp16 loses pixels above 1024. A box with NaN or infinite coordinates gives zeros.
        output_size: bins (PH, PW), or one number for both.
        spatial_scale: feature cells per input pixel.
        sampling_ratio: samples per bin and axis, n >= 1.
        aligned: shift by half a cell and allow RoIs smaller than a cell, as torchvision.
        grid: position of sample j of n inside a bin: "midpoint" (j+0.5)/n, "interior" (j+1)/(n+1).
        extend: feature cells added to the RoI at its right and bottom.

    Returns:
        [K, C, PH, PW] of the input's dtype, channels-last in memory (so that ``permute(0, 2, 3, 1).flatten(1)`` is
        a view); [0, C, PH, PW] without boxes. Gradients flow to ``input`` only.

    Raises:
        ValueError: wrong shapes or parameters, or, on a CPU, a batch index outside [0, N); elsewhere it is not
            looked at, because that would stall the device.
    """
    output_hw = _check(input, boxes, output_size, sampling_ratio, grid)
    n_images, channels, height, width = input.shape
    bins, samples = output_hw[0] * output_hw[1], sampling_ratio**2
    rows = input.permute(0, 2, 3, 1).reshape(n_images * height * width, channels)
    out = []
    for chunk in boxes.detach().split(_ROIS_PER_CHUNK if input.device.type == "cpu" else _ROIS_PER_LAUNCH):
        index, weight = _neighbours(
            chunk, (height, width), output_hw, spatial_scale, sampling_ratio, aligned, grid, extend
        )
        values = F.embedding_bag(
            index.view(-1, 4), rows, per_sample_weights=weight.view(-1, 4).to(rows.dtype), mode="sum"
        ).view(len(chunk) * bins, samples, channels)
        # amax splits the gradient between ties and is faster; max sends it to one winner.
        needs_gradient = torch.is_grad_enabled() and input.requires_grad
        out.append(values.max(dim=1).values if needs_gradient else values.amax(dim=1))
    flat = torch.cat(out) if out else rows.new_empty(0, channels)
    return flat.view(len(boxes), *output_hw, channels).permute(0, 3, 1, 2)


def max_roi_align_ref(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
    grid: Grid = "midpoint",
    extend: float = 0.0,
) -> Tensor:
    """The same function in plain indexing, for any dtype and device, differentiable: the oracle of the tests."""
    output_hw = _check(input, boxes, output_size, sampling_ratio, grid)
    _, channels, height, width = input.shape
    index, weight = _neighbours(
        boxes.detach(), (height, width), output_hw, spatial_scale, sampling_ratio, aligned, grid, extend
    )
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)[index]  # [K, bins, samples, 4, C]
    values = (pixels * weight.to(pixels.dtype)[..., None]).sum(dim=3)
    best = values.max(dim=2).values  # [K, bins, C]
    return best.view(len(boxes), *output_hw, channels).permute(0, 3, 1, 2)


def _check(
    input: Tensor, boxes: Tensor, output_size: int | tuple[int, int], sampling_ratio: int, grid: str
) -> tuple[int, int]:
    if input.dim() != 4:
        raise ValueError(f"input must be [N, C, H, W], got {tuple(input.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be [K, 5] (batch_index, x1, y1, x2, y2), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"boxes must be of a floating type, got {boxes.dtype}")
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio must be at least 1, got {sampling_ratio}")
    if grid not in ("midpoint", "interior"):
        raise ValueError(f"grid must be 'midpoint' or 'interior', got {grid!r}")
    output_hw = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(output_hw) != 2 or min(output_hw) < 1:
        raise ValueError(f"output_size must be one or two positive integers, got {output_size}")
    if boxes.device.type == "cpu" and len(boxes):  # elsewhere the look at the values would stall the device
        batch_index = boxes[:, 0]
        if not bool(((batch_index >= 0) & (batch_index < len(input))).all()):
            raise ValueError(f"boxes hold a batch index outside [0, {len(input)})")
    return output_hw


def _neighbours(
    boxes: Tensor,
    map_hw: tuple[int, int],
    output_hw: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    grid: Grid,
    extend: float,
) -> tuple[Tensor, Tensor]:
    """Rows of the flattened [N * H * W] map and bilinear weights of every sample, both [K, PH * PW, n * n, 4]."""
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    axes = []
    for axis, size, bins in ((2, map_hw[0], output_hw[0]), (1, map_hw[1], output_hw[1])):
        start = boxes[:, axis] * spatial_scale - (0.5 if aligned else 0.0)
        extent = (boxes[:, axis + 2] - boxes[:, axis]) * spatial_scale + extend
        if not aligned:
            # A box that ends at -inf gives zeros like any other infinite one: it is not made a cell wide.
            extent = extent.clamp(min=1.0).where(extent != -torch.inf, torch.nan)
        steps = torch.arange(sampling_ratio, device=boxes.device, dtype=boxes.dtype)
        inside = (steps + 0.5) / sampling_ratio if grid == "midpoint" else (steps + 1) / (sampling_ratio + 1)
        offsets = torch.arange(bins, device=boxes.device, dtype=boxes.dtype)[:, None] + inside
        position = start[:, None, None] + (extent / bins)[:, None, None] * offsets  # [K, bins, n]
        axes.append(_linear_neighbours(position, size))
    (y_index, y_weight), (x_index, x_weight) = axes
    n_boxes, (height, width) = len(boxes), map_hw
    batch_row = torch.nan_to_num(boxes[:, 0]).long() * (height * width)
    # [K, PH, PW, n, n, 2, 2] = y [K, PH, 1, n, 1, 2, 1] by x [K, 1, PW, 1, n, 1, 2]
    index = (y_index * width)[:, :, None, :, None, :, None] + x_index[:, None, :, None, :, None, :]
    index = index + batch_row.view(-1, 1, 1, 1, 1, 1, 1)
    weight = y_weight[:, :, None, :, None, :, None] * x_weight[:, None, :, None, :, None, :]
    shape = (n_boxes, output_hw[0] * output_hw[1], sampling_ratio**2, 4)
    return index.reshape(shape), weight.reshape(shape)


def _linear_neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two cells around each position on an axis of ``size`` cells, and their weights: both [..., 2].

    torchvision's border rule; a position that is NaN or infinite gets weights 0, as one outside.
    """
    valid = (position >= -1) & (position <= size)
    clamped = torch.where(valid, position, 0.0).clamp(0, size - 1)
    low = clamped.floor()
    fraction = clamped - low
    low = low.long()
    index = torch.stack((low, (low + 1).clamp(max=size - 1)), dim=-1)
    weight = torch.stack((1 - fraction, fraction), dim=-1) * valid[..., None]
    return index, weight
