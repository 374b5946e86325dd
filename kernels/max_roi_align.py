"""Max-RoIAlign: bilinear samples on a regular grid inside every bin of a RoI, and their maximum.

Forward, for bin b of RoI r and channel c, over the n x n samples (y, x) of the bin::

    out[r, c, b] = max over (y, x) of  sum over the four neighbours (i, j) of  w_ij(y, x) * input[batch(r), c, i, j]

with bilinear weights w. Backward: only the sample that won passes the bin's gradient, to its four neighbours with
the same four weights. On a tie the first sample in row-major order wins.

Source: paper section 3.2 ("max RoIAlign"); it generalises ``torchvision.ops.roi_align``, whose rules for the RoI's
extent (``aligned``, at least one cell wide without it) and for the border (a sample further than one cell outside the
map gives 0, else it is clamped to the map) are kept, from the mean of a bin's samples to their maximum.

The samples and their maxima are :mod:`.roi_sampling`'s; on a GPU :mod:`.gpu.max_roi_align` does both in one pass, on a
CPU :mod:`.cpu.roi_taps` and :mod:`.cpu.max_roi_align` do one each.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .roi_sampling import Sampling, check_roi_arguments, sample_maxima, sample_maxima_ref

Grid = Literal["midpoint", "interior"]

_MOST_SAMPLES = 16  # per axis: the winner of 16 x 16 is kept as one byte


def max_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
    grid: Grid = "midpoint",
    extend: float = 0.0,
    deterministic: bool | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Maximum of bilinear samples in each bin of each RoI.

    Args:
        input: [N, C, H, W] feature map, fp32, fp16, bf16 or fp64; contiguous and channels-last maps are read without
            a copy (on a CPU: fp32 and channels-last).
        boxes: [K, 5] (batch_index, x1, y1, x2, y2) in input pixels, a floating type; kept in at least fp32, because
            fp16 loses pixels above 1024. A box with NaN or infinite coordinates gives zeros.
        output_size: bins (PH, PW), or one number for both.
        spatial_scale: feature cells per input pixel.
        sampling_ratio: samples per bin and axis, n from 1 to 16.
        aligned: shift by half a cell and allow RoIs smaller than a cell, as torchvision.
        grid: position of sample j of n inside a bin: "midpoint" (j+0.5)/n, "interior" (j+1)/(n+1).
        extend: feature cells added to the RoI at its right and bottom.
        deterministic: the backward on a GPU repeats bit for bit: it sums per cell in a fixed order, without atomic
            additions and without memory beyond the gradient; None follows
            ``torch.use_deterministic_algorithms``. The forward, and everything on a CPU, repeats anyway.
        dtype: of the result; None for the input's. On a GPU, without a gradient, a wider one is not rounded to the
            input's before, and spares a pass over the result.

    Returns:
        [K, C, PH, PW] of that dtype, channels-last in memory (so that ``permute(0, 2, 3, 1).flatten(1)`` is
        a view); [0, C, PH, PW] without boxes. Gradients flow to ``input`` only; they are summed in fp32 on a GPU.

    Raises:
        ValueError: wrong shapes or parameters, tensors on two devices, or, on a CPU, a batch index outside [0, N).
            Elsewhere looking at it would stall the device: such a box gives zeros.
    """
    output_hw = check_roi_arguments(input, boxes, output_size)
    sampling = samples_in_bins(output_hw, spatial_scale, sampling_ratio, aligned, grid, extend)
    return sample_maxima(input, boxes, output_hw, sampling, deterministic, dtype)


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
    output_hw = check_roi_arguments(input, boxes, output_size)
    sampling = samples_in_bins(output_hw, spatial_scale, sampling_ratio, aligned, grid, extend)
    return sample_maxima_ref(input, boxes, output_hw, sampling)


def samples_in_bins(
    output_hw: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool, grid: str, extend: float
) -> Sampling:
    """Where :func:`max_roi_align` takes its samples; its arguments. ValueError for what it cannot use."""
    if not 1 <= sampling_ratio <= _MOST_SAMPLES:
        raise ValueError(f"sampling_ratio must lie between 1 and {_MOST_SAMPLES}, got {sampling_ratio}")
    if grid not in ("midpoint", "interior"):
        raise ValueError(f"grid must be 'midpoint' or 'interior', got {grid!r}")
    # On the interior grid n samples divide a bin into n + 1 spacings, and every bin's last one has no sample.
    spacings = sampling_ratio + (grid == "interior")
    return Sampling(
        spatial_scale=spatial_scale,
        shift=-0.5 if aligned else 0.0,
        extend=extend,
        min_extent=float("-inf") if aligned else 1.0,
        divisions=(output_hw[0] * spacings, output_hw[1] * spacings),
        per_bin=sampling_ratio,
        step=spacings,
        offset=1.0 if grid == "interior" else 0.5,
        taps="clamped",
    )
