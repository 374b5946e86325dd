"""The first FC layer on candidates' features in fp32 on the CPU: through the cells that they share, and by features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fdn_triton.kernels import max_roi_align, roi_linear, roi_linear_ref
from fdn_triton.kernels.onednn import linear

SCALE = 1 / 16


def by_features(cells: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    bins = max_roi_align(cells, boxes, 3, SCALE, sampling_ratio=1)
    return linear(bins.permute(0, 2, 3, 1).flatten(1), weight, bias)


def through_cells(cells: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return roi_linear(cells, boxes, 3, weight, bias, SCALE)


PROVIDERS = {"fdn_triton": through_cells, "features and product": by_features}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("candidates", [256, 1024])
def test_roi_linear(benchmark, generator: torch.Generator, candidates: int, provider: str) -> None:
    """Of a target of 80 pixels, drawn as the tracker does after a success."""
    cells = torch.randn(1, 512, 30, 40, generator=generator).contiguous(memory_format=torch.channels_last)
    weight, bias = 0.01 * torch.randn(512, 4608, generator=generator), torch.randn(512, generator=generator)
    noise = (torch.randn(candidates, 3, generator=generator) / 2).clamp(-1, 1)
    center, half = torch.tensor([320.0, 240]) + 0.6 * 80 * noise[:, :2], 40 * 1.05 ** noise[:, 2:]
    boxes = torch.cat((torch.zeros(candidates, 1), center - half, center + half), dim=1)
    arguments = cells, boxes, weight, bias
    operation = PROVIDERS[provider]
    torch.testing.assert_close(
        operation(*arguments), roi_linear_ref(cells, boxes, 3, weight, bias, SCALE), rtol=1e-4, atol=1e-4
    )
    benchmark.group = f"roi_linear, {candidates} candidates"
    benchmark(operation, *arguments)
