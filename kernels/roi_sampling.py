"""Where the samples of a RoI lie, and their maxima per bin: what the RoI operations of this folder have in common.

On each axis, sample j of bin b has the index ``i = b * step + j + offset`` and lies at ``start + i * spacing``, where
``start`` is the RoI's first edge in cells of the map and ``spacing`` a fraction of its extent. It is read from two
cells of the axis, its taps; the sample's value is the sum over the 2 x 2 taps of weight times cell, and the value of a
bin the maximum over its samples. The gradient of a bin goes to the four taps of the sample that won; the first one in
row-major order wins a tie.

On a CPU, without a gradient, Numba finds the taps (of "clamped" samples, in fp32) and takes the maxima, in a pass each.
In plain PyTorch the samples are gathered with weighted embedding bags, rows of the channels-last map, several times
faster than ``grid_sample``, in chunks of RoIs, so that memory stays bounded.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import runs_on_numba, runs_on_triton

_ROIS_PER_CHUNK = 128  # 128 RoIs x 36 samples x 512 channels in fp32 are 9 MB: they stay in a CPU's cache
_ROIS_PER_LAUNCH = 2048  # on a GPU without Triton: few launches, and still bounded memory


class Sampling(NamedTuple):
    """Where samples lie and how they are read.

    Attributes:
        spatial_scale: cells per input pixel.
        shift: added to the RoI's corners, cells.
        extend: added to the RoI's extent, cells.
        min_extent: smallest extent, cells; -inf leaves it as it is.
        divisions: (y, x) spacings in the RoI's extent.
        per_bin: samples per bin and axis.
        step: index from a bin's first sample to the next bin's.
        offset: index of the first sample.
        taps: "clamped": the two cells around the sample; further than one cell outside the map it is 0, else it is
            clamped to the map (torchvision). "extrapolated": outside [0, size) it is 0; behind the last cell the line
            through the last two goes on. "strided": as before, but the second tap lies max(1, round(spacing)) cells
            behind the first, weights fall off linearly over that distance, and taps outside the map are dropped.
    """

    spatial_scale: float
    shift: float
    extend: float
    min_extent: float
    divisions: tuple[int, int]
    per_bin: int
    step: int
    offset: float
    taps: Literal["clamped", "extrapolated", "strided"]


def check_roi_arguments(input: Tensor, boxes: Tensor, output_size: int | tuple[int, int]) -> tuple[int, int]:
    """The output size as (PH, PW); ValueError for what no RoI operation can use."""
    if input.dim() != 4:
        raise ValueError(f"input must be [N, C, H, W], got {tuple(input.shape)}")
    if not (input.shape[2] and input.shape[3]):
        raise ValueError(f"input must have rows and columns, got {tuple(input.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be [K, 5] (batch_index, x1, y1, x2, y2), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"boxes must be of a floating type, got {boxes.dtype}")
    output_hw = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(output_hw) != 2 or min(output_hw) < 1:
        raise ValueError(f"output_size must be one or two positive integers, got {output_size}")
    if boxes.device != input.device:
        raise ValueError(f"input is on {input.device}, boxes are on {boxes.device}")
    if boxes.device.type == "cpu" and len(boxes):  # elsewhere the look at the values would stall the device
        batch_index = boxes[:, 0]
        if not bool(((batch_index >= 0) & (batch_index < len(input))).all()):
            raise ValueError(f"boxes hold a batch index outside [0, {len(input)})")
    return output_hw


def sample_maxima(
    input: Tensor,
    boxes: Tensor,
    output_hw: tuple[int, int],
    sampling: Sampling,
    deterministic: bool | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """[K, C, PH, PW], channels-last in memory: the largest sample of every bin, in the fastest way at hand.

    Arguments as checked by :func:`check_roi_arguments`. ``deterministic`` concerns the Triton backward alone;
    ``dtype`` is the result's, None for the input's.
    """
    dtype = dtype or input.dtype
    boxes = boxes.detach()
    if runs_on_triton(input):
        from .gpu.max_roi_align import max_roi_align

        return max_roi_align(input, boxes, output_hw, sampling, deterministic, dtype)
    n_images, channels, height, width = input.shape
    bins, samples = output_hw[0] * output_hw[1], sampling.per_bin**2
    needs_gradient = torch.is_grad_enabled() and input.requires_grad
    if runs_on_numba(input) and not needs_gradient:
        from .cpu.max_roi_align import sample_maxima as on_cpu

        images = input.permute(0, 2, 3, 1).float().contiguous()
        taps = taps_of_axes(boxes, input.shape, output_hw, sampling, by_numba=True)
        return on_cpu(images, *taps).to(input.dtype).to(dtype)
    rows = input.permute(0, 2, 3, 1).reshape(n_images * height * width, channels)
    out = []
    for chunk in boxes.split(_ROIS_PER_CHUNK if input.device.type == "cpu" else _ROIS_PER_LAUNCH):
        index, weight = _taps_of_samples(chunk, input.shape, output_hw, sampling)
        values = F.embedding_bag(
            index.view(-1, 4), rows, per_sample_weights=weight.view(-1, 4).to(rows.dtype), mode="sum"
        ).view(len(chunk) * bins, samples, channels)
        # amax splits the gradient between ties and is faster; max sends it to one winner.
        out.append(values.max(dim=1).values if needs_gradient else values.amax(dim=1))
    flat = torch.cat(out) if out else rows.new_empty(0, channels)
    return flat.view(len(boxes), *output_hw, channels).permute(0, 3, 1, 2).to(dtype)


def sample_maxima_ref(input: Tensor, boxes: Tensor, output_hw: tuple[int, int], sampling: Sampling) -> Tensor:
    """The same in plain indexing, for any dtype and device, differentiable."""
    channels = input.shape[1]
    index, weight = _taps_of_samples(boxes.detach(), input.shape, output_hw, sampling)
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)[index]  # [K, bins, samples, 4, C]
    values = (pixels * weight.to(pixels.dtype)[..., None]).sum(dim=3)
    best = values.max(dim=2).values  # [K, bins, C]
    return best.view(len(boxes), *output_hw, channels).permute(0, 3, 1, 2)


def _taps_of_samples(
    boxes: Tensor, input_shape: torch.Size, output_hw: tuple[int, int], sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Rows of the flattened [N * H * W] map and weights of every sample's taps, both [K, PH * PW, n * n, 4]."""
    height, width = input_shape[2:]
    image, (y_index, y_weight), (x_index, x_weight) = taps_of_axes(boxes, input_shape, output_hw, sampling)
    # [K, PH, PW, n, n, 2, 2] = y [K, PH, 1, n, 1, 2, 1] by x [K, 1, PW, 1, n, 1, 2]
    index = (y_index * width)[:, :, None, :, None, :, None] + x_index[:, None, :, None, :, None, :]
    index = index + (image * (height * width)).view(-1, 1, 1, 1, 1, 1, 1)
    weight = y_weight[:, :, None, :, None, :, None] * x_weight[:, None, :, None, :, None, :]
    shape = (len(boxes), output_hw[0] * output_hw[1], sampling.per_bin**2, 4)
    return index.reshape(shape), weight.reshape(shape)


def taps_of_axes(
    boxes: Tensor, input_shape: torch.Size, output_hw: tuple[int, int], sampling: Sampling, by_numba: bool = False
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images [K] of the RoIs, and cells and weights of every sample's taps along y and along x.

    A RoI of no image is the first one's, with weights of 0.
    """
    n_images, _, height, width = input_shape
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    axis_taps = _axis_taps
    if by_numba and sampling.taps == "clamped" and boxes.dtype == torch.float32:
        from .cpu.roi_taps import clamped_taps as axis_taps
    number, x1, y1, x2, y2 = boxes.T.contiguous()  # one layout, whatever the number of boxes: Numba compiles for each
    y_index, y_weight = axis_taps(y1, y2, height, output_hw[0], sampling.divisions[0], sampling)
    columns = axis_taps(x1, x2, width, output_hw[1], sampling.divisions[1], sampling)
    in_batch = (number >= 0) & (number < n_images)
    image = torch.where(in_batch, number, 0.0).long()
    return image, (y_index, y_weight * in_batch.view(-1, 1, 1, 1)), columns


def _axis_taps(
    low: Tensor, high: Tensor, size: int, bins: int, divisions: int, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Cells and weights of the taps on one axis: both [K, bins, n, 2].

    Where a RoI's edges are NaN or infinite, or a sample lies outside, the weights are 0.
    """
    start = low * sampling.spatial_scale + sampling.shift
    extent = (high - low) * sampling.spatial_scale + sampling.extend
    # A box that ends at -inf gives zeros like any other infinite one: it is not made wider.
    extent = torch.where((extent < sampling.min_extent) & (extent != -torch.inf), sampling.min_extent, extent)
    spacing = (extent / divisions)[:, None, None]
    bin_index, sample_index = (torch.arange(n, device=low.device, dtype=low.dtype) for n in (bins, sampling.per_bin))
    position = start[:, None, None] + spacing * (bin_index[:, None] * sampling.step + sample_index + sampling.offset)
    if sampling.taps == "clamped":
        valid = (position >= -1) & (position <= size)
        position = torch.where(valid, position, 0.0).clamp(0, size - 1)
        first = position.floor()
        second = (first + 1).clamp(max=size - 1)
        fraction = position - first
        weights = torch.stack((1 - fraction, fraction), dim=-1)
    else:
        valid = (position >= 0) & (position < size)
        position = torch.where(valid, position, 0.0)
        first = position.floor().clamp(max=size - 2)
        if sampling.taps == "extrapolated":
            fraction = position - first
            weights = torch.stack((1 - fraction, fraction), dim=-1)
            second = first + 1
        else:
            stride = torch.where(spacing.isfinite(), spacing + 0.5, 1.0).floor().clamp(min=1)  # rounds half up, as C
            second = first + stride
            taps = torch.stack((first, second), dim=-1)
            weights = 1 - (position[..., None] - taps).abs() / stride[..., None]
            weights = torch.where((taps >= 0) & (taps < size), weights, 0.0)
    cells = torch.stack((first, second), dim=-1).clamp(0, size - 1).long()
    return cells, torch.where(valid[..., None], weights, 0.0)
