"""Convolutions by fewer multiplications against PyTorch's, in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdn_triton import winograd as module
from fdn_triton.winograd import WinogradConvolution, _at_once, _matrices

TOLERANCE = 1e-5  # of the largest value; measured: 2e-6 to 3e-6 with 100 times as many channels


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


@pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 2), (6, 2), (7, 3), (8, 3), (9, 3)])
@pytest.mark.parametrize("size", [(24, 28), (25, 30), (27, 23)])
def test_every_kernel_of_three_taps_a_stride_gives_the_direct_result(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    convolution = make(kernel, stride)
    assert WinogradConvolution.fits(convolution)
    check(convolution, image(convolution, *size))


@pytest.mark.parametrize("size", [(100, 50), (66, 79), (68, 120), (20, 400), (10, 1100), (1030, 11)])
def test_more_tiles_than_are_worked_on_at_once(size: tuple[int, int]) -> None:
    convolution = make(3, 1)
    check(convolution, image(convolution, *size))


def test_the_parts_hold_every_tile_once_and_are_small_enough() -> None:
    for rows, columns in product([*range(1, 40), 63, 257, 700], repeat=2):
        some_rows, some_columns = _at_once(rows, columns)
        assert [row for part in some_rows for row in part] == list(range(rows))
        assert [column for part in some_columns for column in part] == list(range(columns))
        assert max(map(len, some_rows)) * max(map(len, some_columns)) <= module._TILES_AT_ONCE


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


def test_threads_do_not_disturb_each_other() -> None:
    convolution = make(3, 1)
    fast = WinogradConvolution(convolution)
    inputs = [image(convolution, 40, 40) for _ in range(4)]
    expected = [fast(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for actual, right in zip(pool.map(fast, inputs), expected, strict=True):
                torch.testing.assert_close(actual, right, rtol=0, atol=0)


def test_inference_mode_leaves_nothing_behind() -> None:
    convolution = make(3, 1)
    x = image(convolution, 26, 26)

    def inside_then_outside() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            inside = WinogradConvolution(convolution)(x).clone()
        return inside, WinogradConvolution(convolution)(x)

    with ThreadPoolExecutor(1) as pool:  # a thread that has no scratch yet
        inside, outside = pool.submit(inside_then_outside).result()
    torch.testing.assert_close(outside, inside, rtol=0, atol=0)


@pytest.mark.parametrize("of", ["weight", "bias", "input"])
def test_gradients_take_the_direct_way(of: str) -> None:
    convolution = make(3, 1)
    x = image(convolution, 24, 24)
    tensor = {"weight": convolution.weight, "bias": convolution.bias, "input": x}[of]
    tensor.requires_grad_(True)
    fast = WinogradConvolution(convolution)
    fast(x).sum().backward()
    assert tensor.grad is not None and float(tensor.grad.abs().max()) > 0
    with torch.no_grad():
        check(convolution, x, fast)


def test_several_images_and_other_types_take_the_direct_way() -> None:
    convolution = make(3, 1)
    fast = WinogradConvolution(convolution)
    two = torch.cat([image(convolution, 24, 24)] * 2)
    torch.testing.assert_close(fast(two), convolution(two), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="type"):
        fast(two[:1].double())


def test_a_value_that_is_not_finite_reaches_its_tiles_only() -> None:
    convolution = make(3, 1)
    x = image(convolution, 24, 24)
    clean = WinogradConvolution(convolution)(x)
    x[0, 0, 10, 13] = float("nan")  # outputs 8 to 10 x 11 to 13 see it, and four tiles hold these
    out = WinogradConvolution(convolution)(x)
    assert bool(out[0, :, 8:11, 11:14].isnan().all())
    out[:, :, 8:12, 8:16] = clean[:, :, 8:12, 8:16]
    torch.testing.assert_close(out, clean, rtol=0, atol=0)


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
        nn.Conv2d(64, 64, 3, dilation=2),
        nn.Conv2d(64, 64, 3, stride=(1, 2)),
        nn.Conv2d(64, 64, (3, 5)),
        nn.Conv2d(128, 128, 3, groups=2),
    ],
    ids="four taps|one tap|two taps|three channels|bf16|device|dilated|stride|kernel|groups".split("|"),  # noqa: SIM905
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
