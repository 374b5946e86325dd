"""Max-RoIAlign on the CPU against sampling by ``grid_sample`` and the plain reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import CANDIDATES, FEATURE_MAP, channels_last, rois
from torch import Tensor

from fdn_triton.kernels import max_roi_align, max_roi_align_ref

Operation = Callable[[Tensor, Tensor], Tensor]


def by_grid_sample(features: Tensor, boxes: Tensor) -> Tensor:
    """3x3 bins of 2x2 midpoint samples with ``grid_sample``; like the operation only for RoIs inside the map."""
    n, (height, width) = len(boxes), features.shape[2:]
    steps = (torch.arange(6) + 0.5) / 6
    corners = boxes[:, 1:] / 16
    extent = (corners[:, 2:] - corners[:, :2]).clamp(min=1)
    x = corners[:, :1] + steps * extent[:, :1]
    y = corners[:, 1:2] + steps * extent[:, 1:]
    x, y = 2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1
    grid = torch.stack((x[:, None].expand(n, 6, 6), y[:, :, None].expand(n, 6, 6)), dim=-1)
    samples = F.grid_sample(features, grid.view(1, n * 6, 6, 2), align_corners=True)
    return F.max_pool2d(samples, 2).view(512, n, 3, 3).transpose(0, 1)


PROVIDERS: dict[str, Operation] = {
    "fdn_triton": lambda features, boxes: max_roi_align(features, boxes, 3, 1 / 16),
    "grid_sample": by_grid_sample,
    "reference": lambda features, boxes: max_roi_align_ref(features, boxes, 3, 1 / 16),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.benchmark(group="max_roi_align, 256 RoIs")
def test_max_roi_align(benchmark, generator: torch.Generator, provider: str) -> None:
    features, boxes = channels_last(FEATURE_MAP, generator, 10.0), rois(CANDIDATES, generator)
    operation = PROVIDERS[provider]
    expected = max_roi_align_ref(features.double(), boxes, 3, 1 / 16)
    # grid_sample takes positions as shares of the map, which cost it a digit.
    torch.testing.assert_close(operation(features, boxes).double(), expected, rtol=1e-4, atol=1e-3)
    benchmark(operation, features, boxes)
