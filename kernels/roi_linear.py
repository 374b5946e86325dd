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

from .dispatch import runs_on_numba
from .max_roi_align import max_roi_align, samples_in_bins
from .onednn import linear
from .roi_sampling import check_roi_arguments, taps_of_axes

_WORTHWHILE = (
    0.6  # of the rows: gathering takes the rest (one thread of an AMD EPYC of the third generation, 2026-11-27)
)


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
        bias: [out].
        spatial_scale, aligned, extend: as :func:`max_roi_align`'s.

    Returns:
        [K, out], equal up to rounding. No gradients.

    Raises:
        ValueError: wrong shapes, more than one image, tensors on two devices.
    """
    output_hw = check_roi_arguments(input, boxes, output_size)
    n_features = output_hw[0] * output_hw[1] * input.shape[1]
    if len(input) != 1 or weight.dim() != 2 or weight.shape[1] != n_features or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"one image, a weight [out, {n_features}] and a bias [out] are needed, got {tuple(input.shape)}, "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    with torch.no_grad():
        if input.device.type == "cpu" and input.dtype == weight.dtype == torch.float32 and len(boxes):
            sampling = samples_in_bins(output_hw, spatial_scale, 1, aligned, "midpoint", extend)
            _, rows, columns = taps_of_axes(boxes, input.shape, output_hw, sampling, by_numba=runs_on_numba(input))
            found = _through_cells(input, rows, columns, weight)
            if found is not None:
                return found.add_(bias)
        bins = max_roi_align(input, boxes, output_hw, spatial_scale, 1, aligned, extend=extend)
        return linear(bins.permute(0, 2, 3, 1).flatten(1), weight, bias)


def _through_cells(
    input: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], weight: Tensor
) -> Tensor | None:
    """[K, out] of the taps on both axes, [K, PH or PW, 1, 2]; None where the boxes have too many cells."""
    height, width = input.shape[2:]
    (y, of_y, top, bottom), (x, of_x, left, right) = _spans(*rows, height), _spans(*columns, width)
    sizes = (bottom - top)[:, None] * (right - left)
    if int(sizes.sum()) > _WORTHWHILE * len(y) * sizes.numel():
        return None
    image, channels = input[0].permute(1, 2, 0), input.shape[1]
    rectangles = [
        image[above:below, first:end]
        for above, below in zip(top.tolist(), bottom.tolist(), strict=True)
        for first, end in zip(left.tolist(), right.tolist(), strict=True)
    ]
    of_bins = weight.split(channels, dim=1)
    products = [cells.reshape(-1, channels) @ of_bin.T for cells, of_bin in zip(rectangles, of_bins, strict=True)]
    before = (sizes.flatten().cumsum(0) - sizes.flatten()).view(sizes.shape)  # products of the bins before each
    # [K, PH, PW, 2, 2] = y [K, PH, 1, 2, 1] by x [K, 1, PW, 1, 2]
    index = (y - top[:, None])[:, :, None, :, None] * (right - left)[:, None, None]
    index = index + (x - left[:, None])[:, None, :, None, :] + before[:, :, None, None]
    shares = of_y[:, :, None, :, None] * of_x[:, None, :, None, :]
    return F.embedding_bag(
        index.flatten(1), torch.cat(products), per_sample_weights=shares.flatten(1).to(weight.dtype), mode="sum"
    )


def _spans(cells: Tensor, weights: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells and weights [K, bins, 2] of an axis, and first and end [bins] of the cells that each bin's samples see.

    A sample outside of the map sees none, whatever cells it names: it gets some of its bin's.
    """
    cells, weights = cells[:, :, 0], weights[:, :, 0]
    sees = weights.sum(dim=2, keepdim=True) > 0
    first = torch.where(sees, cells, size - 1).amin((0, 2))
    end = torch.maximum(torch.where(sees, cells, 0).amax((0, 2)), first) + 1
    return torch.minimum(torch.maximum(cells, first[:, None]), end[:, None] - 1), weights, first, end
