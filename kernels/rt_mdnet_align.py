"""RT-MDNet's two RoI layers as functions, so that its weights and its forks run on current PyTorch.

For an aligned size P, both lay ``A = P + 4`` points along each axis over the RoI, whose extent is one cell longer than
its box, read each point from the map and take the maximum over windows of 3 points, 2 apart: ``(P + 1) // 2 + 1`` bins.

- ``RoIAlignMax``: points from edge to edge, ``extent / (A - 1)`` apart, bilinear.
- ``RoIAlignAdaMax``: points ``extent / A`` apart; a point at p is read from the cells ``floor(p)`` and
  ``floor(p) + s``, ``s = max(1, round(extent / A))``, with weights ``1 - |d| / s``, d the distance; taps outside the
  map are dropped.

In both a point outside [0, size) is 0, and one behind the last cell's centre is read from the last two cells: on the
line through them in the first layer, by the weights above in the second.

Source: Jung, Son, Baek, Han, *Real-Time MDNet*, ECCV 2018, section 3.1, and its published layers (facts; the code is
our own). Where those read beside a map of one cell, that cell is read here. Backward, devices and determinism are
:mod:`.max_roi_align`'s; on a GPU the points are never written and pooled in a second pass.
"""

from __future__ import annotations

from torch import Tensor

from .roi_sampling import Sampling, check_roi_arguments, sample_maxima, sample_maxima_ref

_EXTRA_POINTS = 4
_WINDOW, _STRIDE = 3, 2


def roi_align_max(
    input: Tensor,
    boxes: Tensor,
    aligned_size: int | tuple[int, int],
    spatial_scale: float,
    deterministic: bool | None = None,
) -> Tensor:
    """What ``RoIAlignMax(aligned_height, aligned_width, spatial_scale)`` computes.

    Args:
        input: [N, C, H, W] feature map, fp32, fp16, bf16 or fp64.
        boxes: [K, 5] (batch_index, x1, y1, x2, y2) in input pixels, a floating type, used in at least fp32. A box with
            NaN or infinite coordinates gives zeros.
        aligned_size: P per axis (height, width), or one number for both.
        spatial_scale: feature cells per input pixel.
        deterministic: as in :func:`max_roi_align`.

    Returns:
        [K, C, (P + 1) // 2 + 1, (P + 1) // 2 + 1] of the input's dtype, channels-last in memory: 3 x 3 for P = 3.
        Gradients flow to ``input`` only.

    Raises:
        ValueError: as :func:`max_roi_align`.
    """
    output_hw, sampling = _sampling(input, boxes, aligned_size, spatial_scale, adaptive=False)
    return sample_maxima(input, boxes, output_hw, sampling, deterministic)


def roi_align_ada_max(
    input: Tensor,
    boxes: Tensor,
    aligned_size: int | tuple[int, int],
    spatial_scale: float,
    deterministic: bool | None = None,
) -> Tensor:
    """What ``RoIAlignAdaMax(aligned_height, aligned_width, spatial_scale)`` computes, RT-MDNet's default.

    Arguments, result and errors are :func:`roi_align_max`'s.
    """
    output_hw, sampling = _sampling(input, boxes, aligned_size, spatial_scale, adaptive=True)
    return sample_maxima(input, boxes, output_hw, sampling, deterministic)


def roi_align_max_ref(
    input: Tensor, boxes: Tensor, aligned_size: int | tuple[int, int], spatial_scale: float
) -> Tensor:
    """:func:`roi_align_max` in plain indexing, for any dtype and device, differentiable: the oracle of the tests."""
    output_hw, sampling = _sampling(input, boxes, aligned_size, spatial_scale, adaptive=False)
    return sample_maxima_ref(input, boxes, output_hw, sampling)


def roi_align_ada_max_ref(
    input: Tensor, boxes: Tensor, aligned_size: int | tuple[int, int], spatial_scale: float
) -> Tensor:
    """:func:`roi_align_ada_max` in plain indexing, for any dtype and device, differentiable."""
    output_hw, sampling = _sampling(input, boxes, aligned_size, spatial_scale, adaptive=True)
    return sample_maxima_ref(input, boxes, output_hw, sampling)


def _sampling(
    input: Tensor, boxes: Tensor, aligned_size: int | tuple[int, int], spatial_scale: float, adaptive: bool
) -> tuple[tuple[int, int], Sampling]:
    aligned_h, aligned_w = check_roi_arguments(input, boxes, aligned_size)
    points_h, points_w = aligned_h + _EXTRA_POINTS, aligned_w + _EXTRA_POINTS
    output_hw = ((points_h - _WINDOW) // _STRIDE + 1, (points_w - _WINDOW) // _STRIDE + 1)
    return output_hw, Sampling(
        spatial_scale=spatial_scale,
        shift=0.0,
        extend=1.0,
        min_extent=0.0,
        divisions=(points_h, points_w) if adaptive else (points_h - 1, points_w - 1),
        per_bin=_WINDOW,
        step=_STRIDE,
        offset=0.0,
        taps="strided" if adaptive else "extrapolated",
    )
