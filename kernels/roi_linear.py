"""A linear layer on the RoI features of boxes, without the features.

Where max-RoIAlign takes one sample a bin, the maximum is of one number, and the layer behind it can come first. With
the columns ``W_b`` of its weight that belong to bin b, and bilinear weights ``w`` of the four cells around its sample::

    out[r] = bias + sum over b of  W_b (sum over (i, j) of w_ij input[:, i, j])
           = bias + sum over b of  sum over (i, j) of w_ij (W_b input[:, i, j])

Boxes around one place share their cells: 256 candidates of a tracker lie on some 70 cells a bin, which are multiplied
once each, instead of 256 boxes. That is a CPU's way in fp32. Elsewhere, and for boxes that are spread over more cells
than they are, the features are taken and multiplied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import is_watched, runs_on_numba
from .max_roi_align import max_roi_align, max_roi_align_ref, samples_in_bins
from .onednn import linear, multiplies_faster
from .roi_sampling import check_roi_arguments, taps_of_axes

# Cells a bin, of the number of boxes: gathering takes the rest (an AMD EPYC of the third generation, 2026-11-27).
_WORTHWHILE = 0.6


def roi_linear(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    weight: Tensor,
    bias: Tensor,
    spatial_scale: float = 1.0,
    aligned: bool = False,
    extend: float = 0.0,
) -> Tensor:
    """``linear(max_roi_align(input, boxes, output_size, ..., sampling_ratio=1).permute(0, 2, 3, 1).flatten(1))``.

    Args:
        input: [1, C, H, W] feature map of one image, best channels-last in memory.
        boxes: [K, 5] (0, x1, y1, x2, y2) in input pixels, as :func:`max_roi_align` takes them.
        output_size: bins (PH, PW), or one number for both.
        weight: [out, PH * PW * C], its columns ordered (y, x, channel).
        bias: [out], of the weight's type.
        spatial_scale, aligned, extend: as :func:`max_roi_align`'s.

    Returns:
        [K, out] of the weight's type, equal up to rounding. No gradients.

    Raises:
        ValueError: wrong shapes, more than one image, weight and bias of two types, tensors on two devices.
    """
    output_hw = check_roi_arguments(input, boxes, output_size)
    _check_layer(input, output_hw, weight, bias)
    with torch.no_grad():
        if len(boxes) and _may_go_through_cells(input, weight):
            sampling = samples_in_bins(output_hw, spatial_scale, 1, aligned, "midpoint", extend)
            _, rows, columns = taps_of_axes(boxes, input.shape, output_hw, sampling, by_numba=runs_on_numba(input))
            found = _through_cells(input, rows, columns, weight)
            if found is not None:
                return found.add_(bias)
        bins = max_roi_align(input, boxes, output_hw, spatial_scale, 1, aligned, extend=extend, dtype=weight.dtype)
        return linear(bins.permute(0, 2, 3, 1).flatten(1), weight, bias)


def roi_linear_ref(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    weight: Tensor,
    bias: Tensor,
    spatial_scale: float = 1.0,
    aligned: bool = False,
    extend: float = 0.0,
) -> Tensor:
    """The same by way of the features, in plain indexing, for any device, differentiable: the oracle of the tests."""
    _check_layer(input, check_roi_arguments(input, boxes, output_size), weight, bias)
    bins = max_roi_align_ref(input, boxes, output_size, spatial_scale, 1, aligned, extend=extend)
    return F.linear(bins.permute(0, 2, 3, 1).flatten(1).to(weight.dtype), weight, bias)


def _check_layer(input: Tensor, output_hw: tuple[int, int], weight: Tensor, bias: Tensor) -> None:
    n_features = output_hw[0] * output_hw[1] * input.shape[1]
    if len(input) != 1 or weight.dim() != 2 or weight.shape[1] != n_features or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"one image, a weight [out, {n_features}] and a bias [out] are needed, got {tuple(input.shape)}, "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    if weight.dtype != bias.dtype or not input.device == weight.device == bias.device:
        raise ValueError(
            f"weight and bias must be of one type and on {input.device}, got {weight.dtype} on {weight.device} and "
            f"{bias.dtype} on {bias.device}"
        )


def _may_go_through_cells(input: Tensor, weight: Tensor) -> bool:
    """Whether it is a CPU's fp32, nobody looks at the operations, and :func:`linear` is as fast as other products."""
    plain = input.device.type == "cpu" and input.dtype == weight.dtype == torch.float32
    return plain and not is_watched() and not torch.is_autocast_enabled("cpu") and not multiplies_faster()


def _through_cells(
    input: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], weight: Tensor
) -> Tensor | None:
    """[K, out] of the taps on both axes, [K, PH or PW, 1, 2]; None where the boxes have too many cells."""
    channels, height, width = input.shape[1:]
    (y, of_y), (x, of_x) = ((cells[:, :, 0], weights[:, :, 0]) for cells, weights in (rows, columns))
    (top, n_rows), (left, n_columns) = _span(y, of_y, height), _span(x, of_x, width)
    n_bins, n_cells = len(top) * len(left), n_rows * n_columns
    # No more multiplications than for the features, nor more memory.
    if n_cells > _WORTHWHILE * len(y) or n_cells * len(weight) > len(y) * channels:
        return None
    # [bins, cells]: each bin's rectangle, its cells in rows of the flat map; all are of one size, which suits a batch.
    corners = (top[:, None] * width + left).view(-1, 1)
    flat = corners + (_numbers(n_rows)[:, None] * width + _numbers(n_columns)).view(-1)
    cells = input[0].permute(1, 2, 0).reshape(-1, channels)[flat]
    products = weight.new_empty(n_bins * n_cells + 1, len(weight))
    of_bins = weight.reshape(len(weight), n_bins, channels).permute(1, 2, 0)
    torch.bmm(cells, of_bins, out=products[:-1].view(n_bins, n_cells, -1))
    products[-1] = 0
    # [K, PH, PW, 2, 2] = y [K, PH, 1, 2, 1] by x [K, 1, PW, 1, 2]
    index = ((y - top[:, None]) * n_columns)[:, :, None, :, None] + (x - left[:, None])[:, None, :, None, :]
    index = index + _numbers(n_bins).view(len(top), len(left), 1, 1) * n_cells
    shares = of_y[:, :, None, :, None] * of_x[:, None, :, None, :]
    # What has no share may lie anywhere, also outside of its bin's rectangle, and may be no number.
    index = torch.where(shares != 0, index, n_bins * n_cells)
    return F.embedding_bag(index.flatten(1), products, per_sample_weights=shares.flatten(1).float(), mode="sum")


def _span(cells: Tensor, weights: Tensor, size: int) -> tuple[Tensor, int]:
    """The first cell [bins] of an axis from which on each bin's taps [K, bins, 2] lie, and on how many at most."""
    first = torch.where(weights != 0, cells, size - 1).amin((0, 2))
    last = torch.where(weights != 0, cells, 0).amax((0, 2))
    most = max(int((last - first).max()), 0) + 1
    return first.clamp(max=size - most), most


def _numbers(end: int) -> Tensor:
    return torch.arange(end, device="cpu")
