"""Convolutions by fewer multiplications against PyTorch's, in float64."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdn_triton import winograd as module
from fdn_triton.winograd import WinogradConvolution, _matrices

TOLERANCE = 1e-5  # of the largest value


def make(kernel: int, stride: int, channels: int = 64, out_channels: int = 72, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(kernel)
    return nn.Conv2d(channels, out_channels, kernel, stride, bias=bias).requires_grad_(False)


def image(convolution: nn.Conv2d, height: int, width: int, spare: int = 0) -> Tensor:
    """Channels-last, for so many outputs, with rows and columns to spare that make no further output."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    sides = ((n - 1) * stride + kernel + spare for n in (height, width))
    x = torch.randn(1, convolution.in_channels, *sides).relu()
    return x.contiguous(memory_format=torch.channels_last)


def check(convolution: nn.Conv2d, x: Tensor, fast: WinogradConvolution | None = None) -> None:
    """That it gives PyTorch's result, and does so in its own way."""
    fast = fast or WinogradConvolution(convolution)
    with mock.patch.object(F, "conv2d", side_effect=AssertionError("the direct way")):
        actual = fast(x)
    bias = None if convolution.bias is None else convolution.bias.double()
    expected = F.conv2d(x.double(), convolution.weight.double(), bias, convolution.stride)
    assert actual.shape == expected.shape
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert (actual - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 2), (6, 2), (7, 3), (9, 3)])
@pytest.mark.parametrize("size", [(24, 28), (25, 30), (27, 23)])
def test_every_kernel_of_three_taps_a_stride_gives_the_direct_result(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    convolution = make(kernel, stride)
    assert WinogradConvolution.fits(convolution)
    check(convolution, image(convolution, *size))


@pytest.mark.parametrize("size", [(100, 50), (66, 79), (10, 1100), (1030, 9)])
def test_more_tiles_than_are_worked_on_at_once(size: tuple[int, int]) -> None:
    convolution = make(3, 1)
    check(convolution, image(convolution, *size))


def test_pixels_that_make_no_further_output_change_nothing() -> None:
    convolution = make(5, 2)
    check(convolution, image(convolution, 22, 25, spare=1))


def test_without_bias() -> None:
    convolution = make(5, 2, bias=False)
    check(convolution, image(convolution, 24, 24))


def test_a_window_of_a_larger_map_and_channels_first() -> None:
    convolution = make(3, 1)
    x = image(convolution, 30, 40)
    check(convolution, x[:, :, 3:-2, 4:-1])
    check(convolution, x.contiguous())


def test_a_call_does_not_depend_on_those_before() -> None:
    convolution = make(5, 2)
    fast = WinogradConvolution(convolution)
    x = image(convolution, 24, 26)
    first = fast(x)
    fast(torch.full_like(image(convolution, 40, 44), float("nan")))
    torch.testing.assert_close(fast(x), first, rtol=0, atol=0)
    check(convolution, x, fast)


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (8, 8), (9, 13), (5, 40)])
def test_few_or_badly_filled_tiles_go_the_direct_way(size: tuple[int, int]) -> None:
    convolution = make(5, 2)
    x = image(convolution, *size)
    expected = F.conv2d(x, convolution.weight, convolution.bias, convolution.stride)
    torch.testing.assert_close(WinogradConvolution(convolution)(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "convolution",
    [
        make(7, 2),
        make(1, 1),
        make(3, 2),
        nn.Conv2d(3, 96, 3),
        nn.Conv2d(64, 64, 3, dtype=torch.bfloat16),
        nn.Conv2d(64, 64, 3, device="meta"),
    ],
    ids=["four taps", "one tap", "two taps", "three channels", "bf16", "another device"],
)
def test_others_do_not_fit(convolution: nn.Conv2d) -> None:
    assert not WinogradConvolution.fits(convolution)


@pytest.mark.parametrize("taps", [1, 2, 3])
def test_the_matrices_give_a_filter_of_an_axis(taps: int) -> None:
    inputs_to_points, taps_to_points, to_outputs = _matrices(taps)
    inputs, weights = np.random.default_rng(taps).normal(size=taps + 3), np.arange(1.0, taps + 1)
    outputs = to_outputs @ ((taps_to_points @ weights) * (inputs_to_points @ inputs))
    np.testing.assert_allclose(outputs, np.convolve(inputs, weights[::-1], "valid"), atol=1e-12)


def test_fewer_taps_use_the_first_points_of_more() -> None:
    for taps in (1, 2):
        n = taps + 3
        np.testing.assert_array_equal(_matrices(taps)[2], _matrices(3)[2][:, :n])


def test_multiplications_are_those_that_the_text_promises() -> None:
    three, five = WinogradConvolution(make(3, 1)), WinogradConvolution(make(5, 2))
    assert [phase.weight.shape[:2] for phase in three._phases] == [(6, 6)]
    assert [phase.weight.shape[:2] for phase in five._phases] == [(6, 6), (6, 5), (5, 6), (5, 5)]
    assert module._TILE == 4
