"""The first FC layer's products in fp32 on the CPU, by this package's function against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fdn_triton.kernels.onednn import linear

PROVIDERS = {"fdn_triton": linear, "PyTorch": F.linear}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("rows", [128, 1024])
def test_linear(benchmark, generator: torch.Generator, rows: int, provider: str) -> None:
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((rows, 4608), (512, 4608), (512,)))
    operation = PROVIDERS[provider]
    torch.testing.assert_close(operation(x, weight, bias), F.linear(x, weight, bias), rtol=1e-4, atol=1e-2)
    benchmark.group = f"linear, {rows} rows"
    benchmark(operation, x, weight, bias)
