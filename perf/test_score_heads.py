"""Scoring candidates under one and several heads on the CPU against the plain reference."""

from __future__ import annotations

import pytest
import torch
from cases import CANDIDATES

from fdn_triton.kernels import score_heads, score_heads_ref

PROVIDERS = {"fdn_triton": score_heads, "reference": score_heads_ref}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("targets", [1, 4])
@pytest.mark.benchmark(group="score_heads, 256 candidates a target")
def test_score_heads(benchmark, generator: torch.Generator, targets: int, provider: str) -> None:
    sizes = [(512, 4608), (512, 512), (2, 512)]
    weights = [torch.randn(targets, *size, generator=generator) * 0.01 for size in sizes]
    biases = [torch.full((targets, size[0]), 0.1) for size in sizes]
    features = torch.randn(targets, CANDIDATES, 4608, generator=generator).relu() * 10
    operation = PROVIDERS[provider]
    expected = score_heads_ref(features, weights, biases)
    torch.testing.assert_close(operation(features, weights, biases), expected, rtol=1e-4, atol=1e-4)
    benchmark(operation, features, weights, biases)
