"""ReLU, LRN and pooling on the CPU in one pass against PyTorch's layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import CONV1_MAP, CONV2_MAP, channels_last
from torch import Tensor

from fdn_triton.kernels import lrn_max_pool, lrn_max_pool_ref


def by_band_convolution(x: Tensor) -> Tensor:
    """The sum over channels as a 1x1 convolution with a band matrix, then pow."""
    channels = x.shape[1]
    index = torch.arange(channels)
    band = ((index[:, None] - index).abs() <= 2).float() * 1e-4
    positive = x.relu()
    denominator = F.conv2d(positive.square(), band[:, :, None, None], torch.full((channels,), 2.0))
    return F.max_pool2d(positive * denominator.pow(-0.75), 3, 2, 1)


PROVIDERS = {"fdn_triton": lrn_max_pool, "band convolution": by_band_convolution, "reference": lrn_max_pool_ref}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("shape", [CONV1_MAP, CONV2_MAP], ids=["conv1", "conv2"])
@pytest.mark.benchmark(group="lrn_max_pool")
def test_lrn_max_pool(benchmark, generator: torch.Generator, shape: tuple[int, ...], provider: str) -> None:
    x = channels_last(shape, generator, 80.0)
    operation = PROVIDERS[provider]
    torch.testing.assert_close(operation(x), lrn_max_pool_ref(x), rtol=1e-4, atol=1e-4)
    benchmark(operation, x)
