"""ReLU + LRN + max-pool against the formula channel by channel, PyTorch's layers in float64, and autograd."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdn_triton.kernels import lrn_max_pool, lrn_max_pool_ref
from fdn_triton.kernels.cpu.bits import bits_of
from fdn_triton.kernels.cpu.lrn_pool import _part


def _input(shape: tuple[int, int, int, int], size: float = 100.0) -> Tensor:
    """Activations so large that the normalisation matters: 1e-4 * 5 * 100^2 = 5, against k = 2."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * size


def _normalised(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Tensor:
    """The formula, one channel after the other, in float64."""
    positive = x.double().clamp(min=0)
    channels = []
    for c in range(x.shape[1]):
        window = positive[:, max(c - size // 2, 0) : c + size // 2 + 1]
        channels.append(positive[:, c] / (k + alpha * (window**2).sum(dim=1)) ** beta)
    return torch.stack(channels, dim=1)


def _pooled(normalised: Tensor, pool: int, stride: int, sides: tuple[int, int, int, int]) -> Tensor:
    return F.max_pool2d(F.pad(normalised, sides, value=float("-inf")), pool, stride)


def test_hand_computed() -> None:
    """One cell, three channels: 100 and 200 beside each other, -50 cut off."""
    x = torch.tensor([100.0, 200.0, -50.0]).view(1, 3, 1, 1)
    out = lrn_max_pool(x, size=3, pool=1, stride=1, padding=0)
    expected = torch.tensor([100 / 7**0.75, 200 / 7**0.75, 0.0])  # 2 + 1e-4 * (100^2 + 200^2)
    torch.testing.assert_close(out.flatten(), expected, rtol=1e-6, atol=0)


def test_maximum_over_cells_by_hand() -> None:
    """Row of five cells, windows of three in steps of two with one cell of padding: cells 01, 123, 34."""
    x = torch.tensor([3.0, -1.0, 0.5, 2.0, 1.0]).view(1, 1, 1, 5)
    out = lrn_max_pool(x, size=1, alpha=0.0, k=1.0)
    torch.testing.assert_close(out.flatten(), torch.tensor([3.0, 2.0, 2.0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 4, 7, 3), (3, 13, 9, 11), (1, 96, 31, 17)])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0])
def test_equals_formula_and_reference(shape: tuple[int, int, int, int], size: int, beta: float) -> None:
    x = _input(shape)
    expected = _pooled(_normalised(x, size, beta=beta), 3, 2, (1, 1, 1, 1))
    torch.testing.assert_close(lrn_max_pool(x, size, beta=beta).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(lrn_max_pool_ref(x.double(), size, beta=beta), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("k", [1.0, 2.0])
@pytest.mark.parametrize("alpha", [1e-4, 2e-2])
def test_constants(alpha: float, k: float) -> None:
    x = _input((2, 9, 6, 7), size=10.0)
    expected = _pooled(_normalised(x, alpha=alpha, k=k), 3, 2, (1, 1, 1, 1))
    torch.testing.assert_close(lrn_max_pool(x, alpha=alpha, k=k).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.75, 1.0, 1.5])
@pytest.mark.parametrize("size", [3, 5])
def test_small_and_large_activations_beside_each_other(size: int, beta: float) -> None:
    """From 1e-8 of k to 1e4 times k, and none: the ways to compute it meet without a step."""
    x = _input((1, 40, 9, 31), size=1.0) * torch.logspace(-1, 4, 31)
    x[0, :, :, 0] = -0.0
    expected = _pooled(_normalised(x, size, beta=beta), 3, 2, (1, 1, 1, 1))
    torch.testing.assert_close(lrn_max_pool(x, size, beta=beta).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha, k", [(0.0, 2.0), (1e-4, 0.0), (0.0, 1.0)])
def test_constants_at_the_end_of_their_range(alpha: float, k: float) -> None:
    x = _input((2, 9, 6, 7)).abs()
    expected = _pooled(_normalised(x, alpha=alpha, k=k), 3, 2, (1, 1, 1, 1))
    torch.testing.assert_close(lrn_max_pool(x, alpha=alpha, k=k).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sides", list(itertools.product((0, 1), repeat=4)))
@pytest.mark.parametrize("map_hw", [(7, 9), (8, 5), (3, 3)])
def test_padding_of_each_side(sides: tuple[int, int, int, int], map_hw: tuple[int, int]) -> None:
    """(left, right, top, bottom)."""
    x = _input((2, 6, *map_hw))
    expected = _pooled(_normalised(x), 3, 2, sides)
    torch.testing.assert_close(lrn_max_pool(x, padding=sides).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(lrn_max_pool_ref(x.double(), padding=sides), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("pool", "stride", "padding"), [(2, 2, 0), (2, 2, 1), (3, 1, 1), (2, 3, 0), (5, 2, 2), (3, 3, 1)]
)
def test_poolings(pool: int, stride: int, padding: int) -> None:
    x = _input((2, 7, 13, 10))
    expected = _pooled(_normalised(x), pool, stride, (padding,) * 4)
    out = lrn_max_pool(x, pool=pool, stride=stride, padding=padding)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=0)


def test_where_nothing_is_positive_the_result_is_0() -> None:
    out = lrn_max_pool(-_input((1, 5, 7, 7)).abs())
    assert torch.equal(out, torch.zeros(1, 5, 4, 4))


@pytest.mark.parametrize("op", [lrn_max_pool, lrn_max_pool_ref])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(op: Any, dtype: torch.dtype) -> None:
    """Half types are rounded once, at the end: PyTorch's own layer has none on a CPU to compare with."""
    x = _input((2, 16, 9, 11)).to(dtype)
    out, expected = op(x), _pooled(_normalised(x), 3, 2, (1, 1, 1, 1))
    assert out.dtype == dtype
    rtol = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps / 2 + 1e-5
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_in_half_types(dtype: torch.dtype) -> None:
    """Without pooling, because rounding may choose another maximum."""
    x = _input((1, 12, 6, 7)).to(dtype)
    values = []
    for kind in (torch.float64, dtype):
        leaf = x.to(kind).requires_grad_()
        out = lrn_max_pool(leaf, pool=1, stride=1, padding=0)
        out.backward(torch.ones_like(out))
        assert leaf.grad is not None
        assert leaf.grad.dtype == kind
        values.append(leaf.grad.double())
    # The gradient is a sum over five channels that cancels in part: rounding of the largest one, not of each.
    largest = float(values[0].abs().max())
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=torch.finfo(dtype).eps * largest)


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_large_activations_in_fp16_do_not_overflow(beta: float) -> None:
    """Squares of 60,000 do not fit into fp16. Only the result is rounded: half of 2^-10, relative."""
    x = _input((1, 16, 9, 11), size=1.0).mul(20_000).clamp(max=60_000).half()
    out = lrn_max_pool(x, beta=beta)
    assert x.max() > 40_000
    torch.testing.assert_close(out.double(), lrn_max_pool_ref(x.double(), beta=beta), rtol=5e-4, atol=0)


def test_memory_layouts() -> None:
    x = _input((2, 6, 9, 11))
    expected = lrn_max_pool(x)
    wide = torch.zeros(2, 12, 9, 22)
    wide[:, ::2, :, ::2] = x
    for same in (x.contiguous(memory_format=torch.channels_last), wide[:, ::2, :, ::2]):
        assert torch.equal(lrn_max_pool(same), expected)
    assert expected.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("padding", [1, (0, 1, 1, 0)])
def test_gradient_equals_the_formulas(beta: float, padding: Any) -> None:
    gradients = []
    for op in (
        lambda x: _pooled(_normalised(x, beta=beta), 3, 2, (padding,) * 4 if padding == 1 else padding),
        lambda x: lrn_max_pool(x, beta=beta, padding=padding),
    ):
        x = _input((2, 7, 6, 9)).double().requires_grad_()
        out = op(x)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double())
        assert x.grad is not None
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)
    assert gradients[0].abs().sum() > 1


def test_gradient_path_gives_the_same_values() -> None:
    x = _input((2, 7, 6, 9))
    with_gradient = lrn_max_pool(x.clone().requires_grad_())
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient.detach(), lrn_max_pool(x), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padding", [0, 1, (1, 0, 0, 1), (0, 1, 1, 0)])
def test_threads_do_not_matter(threads: Callable[[int], None], padding: Any, dtype: torch.dtype) -> None:
    x = _input((2, 7, 17, 9)).to(dtype)
    results = []
    for n in (1, 2):
        threads(n)
        results.append(lrn_max_pool(x, padding=padding))
    assert torch.equal(*results)


def test_any_number_of_parts_covers_the_result() -> None:
    """More parts than the 9 rows, too."""
    x = _input((1, 7, 17, 9)).permute(0, 2, 3, 1).contiguous()
    expected = lrn_max_pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    for parts in (1, 2, 4, 9, 12):
        out = torch.full(expected.shape, -1.0)
        for part in range(parts):
            arguments = (*bits_of(out[0]), (9, 5), 5, (np.float32(1e-4), np.float32(0.75), np.float32(2)), (3, 2, 1, 1))
            _part(part, parts, bits_of(x[0])[0], (17, 9, 7), *arguments)
        assert torch.equal(out, expected)


def test_without_numba_pytorchs_layers_give_the_same(no_numba: Callable[[], None]) -> None:
    x = _input((2, 7, 17, 9))
    expected = lrn_max_pool(x)
    no_numba()
    out = lrn_max_pool(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=0)


def test_input_is_unchanged_and_results_repeat() -> None:
    x = _input((1, 8, 9, 11)).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    assert torch.equal(lrn_max_pool(x), lrn_max_pool(x))
    lrn_max_pool(x, size=1)
    assert torch.equal(x, before)


@pytest.mark.parametrize("op", [lrn_max_pool, lrn_max_pool_ref])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(3, 4, 5)}, r"x must be \[N, C, H, W\] of a floating type, got \(3, 4, 5\)"),
        ({"x": torch.zeros(1, 3, 4, 5, dtype=torch.uint8)}, "of a floating type, got .* of torch.uint8"),
        ({"x": torch.zeros(1, 3, 0, 5)}, "a map of 0x5 cells holds no window of 3x3 with padding 1"),
        ({"x": torch.zeros(1, 3, 4, 2), "padding": 0}, "a map of 4x2 cells holds no window of 3x3 with padding 0"),
        ({"stride": 0}, "pool and stride must be positive, got 3 and 0"),
        ({"size": 4}, "size must be odd and positive, got 4"),
        ({"size": -1}, "size must be odd and positive, got -1"),
        ({"padding": 2}, "padding must lie between 0 and half of pool, got padding 2 and pool 3"),
        ({"padding": -1}, "padding must lie between 0 and half of pool"),
        ({"padding": (0, 0, 0, 2)}, "padding must lie between 0 and half of pool"),
        ({"padding": (1, 1)}, "padding must lie between 0 and half of pool"),
        ({"pool": 0, "padding": 0}, "pool and stride must be positive, got 0 and 2"),
        ({"pool": 1}, "padding must lie between 0 and half of pool"),
        ({"alpha": -1e-4}, "alpha and k must not be negative, got -0.0001 and 2.0"),
        ({"k": -2.0, "beta": 1.0}, "alpha and k must not be negative, got 0.0001 and -2.0"),
        ({"alpha": float("nan")}, "alpha and k must not be negative, got nan"),
    ],
)
def test_what_is_refused(op: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op(**{"x": _input((1, 5, 7, 7)), **changes})


@pytest.mark.parametrize("size", [7, 9])
def test_wider_windows(size: int) -> None:
    x = _input((1, 20, 9, 8))
    expected = _pooled(_normalised(x, size), 3, 2, (1, 1, 1, 1))
    torch.testing.assert_close(lrn_max_pool(x, size).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("pool, stride, padding", [(2, 3, 1), (1, 2, 0), (4, 5, 2), (2, 2, 1)])
def test_windows_apart_and_padding(pool: int, stride: int, padding: int) -> None:
    x = _input((2, 6, 11, 10))
    expected = _pooled(_normalised(x), pool, stride, (padding,) * 4)
    torch.testing.assert_close(
        lrn_max_pool(x, pool=pool, stride=stride, padding=padding).double(), expected, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_what_is_not_finite_reaches_what_holds_it(value: float, dtype: torch.dtype) -> None:
    x = _input((1, 12, 9, 9)).to(dtype)
    clean = lrn_max_pool(x)
    x[0, 5, 4, 4] = value
    actual, expected = lrn_max_pool(x), lrn_max_pool_ref(x)
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=0, equal_nan=True)
    small = x / 100  # a series normalises these, but for the pixel
    torch.testing.assert_close(lrn_max_pool(small), lrn_max_pool_ref(small), rtol=1e-2, atol=0, equal_nan=True)
    touched = ~actual.isfinite() | (actual != clean)
    assert bool(touched.any()) and not bool(touched[:, [0, 1, 2, 8, 9, 10, 11]].any())
