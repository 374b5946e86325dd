"""The same operations from PyTorch's and torchvision's parts: what a tracker without this project's kernels runs.

All for 3x3 bins of 2x2 midpoint samples on a map with 16 pixels a cell, VGG-M's normalisation and three-layer heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BINS, SAMPLES, SCALE = 3, 2, 1 / 16


def align_by_grid_sample(features: Tensor, boxes: Tensor) -> Tensor:
    """``grid_sample`` on the finer grid, then ``max_pool2d``; like max-RoIAlign only for RoIs inside one map."""
    n, (channels, height, width) = len(boxes), features.shape[1:]
    points = BINS * SAMPLES
    steps = (torch.arange(points, device=boxes.device) + 0.5) / points
    corners = boxes[:, 1:] * SCALE
    extent = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    x = corners[:, :1] + steps * extent[:, :1]
    y = corners[:, 1:2] + steps * extent[:, 1:]
    x, y = 2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1
    grid = torch.stack((x[:, None].expand(n, points, points), y[:, :, None].expand(n, points, points)), dim=-1)
    samples = F.grid_sample(features, grid.view(1, n * points, points, 2).to(features.dtype), align_corners=True)
    return F.max_pool2d(samples, SAMPLES).view(channels, n, BINS, BINS).transpose(0, 1)


def align_by_torchvision(features: Tensor, boxes: Tensor) -> Tensor:
    """``torchvision.ops.roi_align`` with one sample a bin on the finer grid, then ``max_pool2d``."""
    from torchvision.ops import roi_align

    samples = roi_align(features, boxes.to(features.dtype), BINS * SAMPLES, SCALE, sampling_ratio=1)
    return F.max_pool2d(samples, SAMPLES)


def resize_by_interpolate(image: Tensor, size: tuple[int, int], mean: Tensor, dtype: torch.dtype) -> Tensor:
    """``F.interpolate`` in fp32, then the mean, the type and the layout."""
    frame = image.permute(2, 0, 1)[None].float()
    resized = F.interpolate(frame, size=size, mode="bilinear", antialias=True)
    return (resized - mean[:, None, None]).to(dtype).contiguous(memory_format=torch.channels_last)


def lrn_by_layers(x: Tensor) -> Tensor:
    """PyTorch's three layers in x's dtype; squares pass fp16's range where x passes 255."""
    return F.max_pool2d(F.local_response_norm(x.relu(), 5, 5e-4, 0.75, 2.0), 3, 2, 1)


def lrn_by_band_convolution(x: Tensor) -> Tensor:
    """The sum over channels as a 1x1 convolution with a band matrix, then pow."""
    channels = x.shape[1]
    index = torch.arange(channels, device=x.device)
    band = ((index[:, None] - index).abs() <= 2).to(x.dtype) * 1e-4
    positive = x.relu()
    denominator = F.conv2d(positive.square(), band[:, :, None, None], torch.full_like(band[0], 2.0))
    return F.max_pool2d(positive * denominator.pow(-0.75), 3, 2, 1)


def heads_by_loop(features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """One head after the other, one ``addmm`` a layer."""
    scores = []
    for t in range(len(features)):
        hidden = features[t]
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = torch.addmm(bias[t], hidden, weight[t].T)
            if i + 1 < len(weights):
                hidden = hidden.relu_()
        scores.append(hidden[:, 1])
    return torch.stack(scores)


def heads_by_baddbmm(features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """All heads at once, one ``baddbmm`` a layer."""
    hidden = features
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.baddbmm(bias[:, None], hidden, weight.transpose(1, 2))
        if i + 1 < len(weights):
            hidden = hidden.relu_()
    return hidden[..., 1]
