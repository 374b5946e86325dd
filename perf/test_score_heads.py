"""Scoring candidates under one and several heads against the reference, on the CPU and on the GPU if there is one."""

from __future__ import annotations

import pytest
import torch
from cases import CANDIDATES
from measure import DEVICES, waited_for

from fdn_triton.kernels import score_heads, score_heads_ref

PROVIDERS = {"fdn_triton": score_heads, "reference": score_heads_ref}
LAYERS = ((512, 4608), (512, 512), (2, 512))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("targets", [1, 4])
@pytest.mark.parametrize("device", DEVICES)
def test_score_heads(benchmark, generator: torch.Generator, device: str, targets: int, provider: str) -> None:
    weights = [(torch.randn(targets, *layer, generator=generator) * 0.01).to(device) for layer in LAYERS]
    biases = [torch.full((targets, layer[0]), 0.1, device=device) for layer in LAYERS]
    features = (torch.randn(targets, CANDIDATES, 4608, generator=generator).relu() * 10).to(device)
    operation = PROVIDERS[provider]
    expected = score_heads_ref(features, weights, biases)
    torch.testing.assert_close(operation(features, weights, biases), expected, rtol=1e-4, atol=1e-4)
    benchmark.group = f"score_heads, {CANDIDATES} candidates a target, T = {targets}, {device}"
    benchmark(waited_for(operation, device), features, weights, biases)
