"""ReLU, LRN and pooling in one pass against PyTorch's layers, on the CPU and on the GPU if there is one."""

from __future__ import annotations

import pytest
import torch
from cases import CONV1_MAP, CONV2_MAP, channels_last
from formulations import lrn_by_band_convolution
from measure import DEVICES, waited_for

from fdn_triton.kernels import lrn_max_pool, lrn_max_pool_ref

PROVIDERS = {"fdn_triton": lrn_max_pool, "band convolution": lrn_by_band_convolution, "reference": lrn_max_pool_ref}
MAPS = {"conv1": CONV1_MAP, "conv2": CONV2_MAP}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("layer", MAPS)
@pytest.mark.parametrize("device", DEVICES)
def test_lrn_max_pool(benchmark, generator: torch.Generator, device: str, layer: str, provider: str) -> None:
    x = channels_last(MAPS[layer], generator, 80.0).to(device)
    operation = PROVIDERS[provider]
    # cuDNN multiplies the band in TF32: a term of the denominator, which is small beside its constant.
    tolerance = 1e-4 if device == "cpu" else 1e-3
    torch.testing.assert_close(operation(x), lrn_max_pool_ref(x), rtol=tolerance, atol=tolerance)
    benchmark.group = f"lrn_max_pool, {layer}, {device}"
    benchmark(waited_for(operation, device), x)
