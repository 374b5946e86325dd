"""Max-RoIAlign against ``grid_sample`` and the plain reference, on the CPU and on the GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import CANDIDATES, FEATURE_MAP, channels_last, rois
from formulations import align_by_grid_sample
from measure import DEVICES, waited_for
from torch import Tensor

from fdn_triton.kernels import max_roi_align, max_roi_align_ref

PROVIDERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fdn_triton": lambda features, boxes: max_roi_align(features, boxes, 3, 1 / 16),
    "grid_sample": align_by_grid_sample,
    "reference": lambda features, boxes: max_roi_align_ref(features, boxes, 3, 1 / 16),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("device", DEVICES)
def test_max_roi_align(benchmark, generator: torch.Generator, device: str, provider: str) -> None:
    features = channels_last(FEATURE_MAP, generator, 10.0).to(device)
    boxes = rois(CANDIDATES, generator).to(device)
    operation = PROVIDERS[provider]
    expected = max_roi_align_ref(features.double(), boxes, 3, 1 / 16)
    # grid_sample takes positions as shares of the map, which cost it a digit.
    torch.testing.assert_close(operation(features, boxes).double(), expected, rtol=1e-4, atol=1e-3)
    benchmark.group = f"max_roi_align, {CANDIDATES} RoIs, {device}"
    benchmark(waited_for(operation, device), features, boxes)
