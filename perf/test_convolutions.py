"""The trunk's second and third convolution on the CPU: by Winograd's way, with filters laid out once, and PyTorch's."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from cases import CONV2_MAP, FEATURE_MAP, channels_last

from fdn_triton import NetworkConfig
from fdn_triton.backbone import Backbone
from fdn_triton.kernels.onednn import PackedConvolution
from fdn_triton.winograd import WinogradConvolution

LAYERS = {"conv2": 1, "conv3": 2}
OUTPUTS = {"conv2": CONV2_MAP[2:], "conv3": FEATURE_MAP[2:]}


@pytest.mark.parametrize("provider", ["Winograd", "packed filters", "PyTorch"])
@pytest.mark.parametrize("layer", LAYERS)
def test_convolution(benchmark, generator: torch.Generator, layer: str, provider: str) -> None:
    convolution = Backbone(NetworkConfig()).requires_grad_(False).convolutions()[LAYERS[layer]]
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    height, width = ((n - 1) * stride + kernel for n in OUTPUTS[layer])
    x = channels_last((1, convolution.in_channels, height, width), generator, 10.0).relu()
    weight = convolution.weight.contiguous(memory_format=torch.channels_last)
    direct = partial(F.conv2d, weight=weight, bias=convolution.bias, stride=stride)
    if provider == "packed filters" and not PackedConvolution.fits(convolution):
        pytest.skip("this torch has no operator for it")
    ways = {"Winograd": WinogradConvolution, "packed filters": PackedConvolution}
    operation = direct if provider == "PyTorch" else ways[provider](convolution)
    expected = direct(x)
    torch.testing.assert_close(operation(x), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    benchmark.group = f"{layer} of a 1000x562 frame"
    benchmark(operation, x)
