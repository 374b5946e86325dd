"""Scores of stacked heads against plain matrix products in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fdn_triton.kernels import score_heads, score_heads_ref


def _heads(n_heads: int, sizes: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of layers of the sizes (D, ..., 2), activations staying near 1."""
    generator = torch.Generator().manual_seed(0)
    pairs = list(pairwise(sizes))
    weights = [torch.randn(n_heads, out, into, generator=generator) / into**0.5 for into, out in pairs]
    biases = [torch.randn(n_heads, out, generator=generator) for _, out in pairs]
    return weights, biases


def _features(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _doubles(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("sizes", [(37, 2), (37, 19, 2), (37, 19, 23, 2)])
@pytest.mark.parametrize("count", [1, 13, 257])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("both_columns", [False, True])
def test_equals_matrix_products(
    n_heads: int, sizes: tuple[int, ...], count: int, shared: bool, both_columns: bool
) -> None:
    weights, biases = _heads(n_heads, sizes)
    features = _features(count, 37) if shared else _features(n_heads, count, 37)
    expected = []
    for t in range(n_heads):
        hidden = (features if shared else features[t]).double().numpy()
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = hidden @ weight[t].double().numpy().T + bias[t].double().numpy()
            hidden = np.maximum(hidden, 0) if i + 1 < len(weights) else hidden
        expected.append(hidden if both_columns else hidden[:, 1])
    # Scores near 0 are differences of numbers near 1: absolute errors of some 1e-7 there.
    actual = score_heads(features, weights, biases, both_columns)
    np.testing.assert_allclose(actual.numpy(), np.stack(expected), rtol=1e-5, atol=5e-6)
    reference = score_heads_ref(features.double(), _doubles(weights), _doubles(biases), both_columns)
    np.testing.assert_allclose(reference.numpy(), np.stack(expected), rtol=1e-12, atol=1e-12)


def test_hand_computed() -> None:
    """One value in, two hidden: relu(2 x + 1), relu(-x); background = -first, target = first - 3 second + 0.5."""
    weights = [torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[-1.0, 0.0], [1.0, -3.0]]])]
    biases = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])]
    features = torch.tensor([[3.0], [-2.0]])
    assert score_heads(features, weights, biases).tolist() == [[7.5, -5.5]]
    assert score_heads(features, weights, biases, both_columns=True).tolist() == [[[-7.0, 7.5], [0.0, -5.5]]]


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_the_trackers_sizes(n_heads: int, shared: bool) -> None:
    weights, biases = _heads(n_heads, (4608, 512, 512, 2))
    features = _features(101, 4608) if shared else _features(n_heads, 101, 4608)
    expected = score_heads_ref(features.double(), _doubles(weights), _doubles(biases))
    # Sums of 4608 products of size 1/68: fp32 keeps 1e-6 of the whole, not of scores near 0.
    torch.testing.assert_close(score_heads(features, weights, biases).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_no_candidates(n_heads: int, shared: bool) -> None:
    weights, biases = _heads(n_heads, (37, 19, 2))
    features = _features(0, 37) if shared else _features(n_heads, 0, 37)
    for op in (score_heads, score_heads_ref):
        assert op(features, weights, biases).shape == (n_heads, 0)
        assert op(features, weights, biases, both_columns=True).shape == (n_heads, 0, 2)


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(n_heads: int, dtype: torch.dtype) -> None:
    weights, biases = ([tensor.to(dtype) for tensor in tensors] for tensors in _heads(n_heads, (300, 65, 2)))
    features = _features(n_heads, 53, 300).to(dtype)
    out = score_heads(features, weights, biases)
    expected = score_heads_ref(features.double(), _doubles(weights), _doubles(biases))
    eager_error = (score_heads_ref(features, weights, biases).double() - expected).abs().max()
    assert out.dtype == dtype
    assert (out.double() - expected).abs().max() <= 2 * eager_error


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sizes", [(37, 2), (37, 19, 23, 2)])
def test_inputs_are_unchanged_and_no_gradient_is_kept(n_heads: int, shared: bool, sizes: tuple[int, ...]) -> None:
    weights, biases = _heads(n_heads, sizes)
    features = (_features(13, 37) if shared else _features(n_heads, 13, 37)).requires_grad_()
    tensors = [features, *weights, *biases]
    before = [tensor.detach().clone() for tensor in tensors]
    first = score_heads(features, weights, biases)
    assert not first.requires_grad
    assert torch.equal(score_heads(features, weights, biases), first)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tf32_changes_nothing_on_a_cpu(dtype: torch.dtype) -> None:
    weights, biases = ([tensor.to(dtype) for tensor in tensors] for tensors in _heads(2, (37, 19, 2)))
    features = _features(2, 13, 37).to(dtype)
    exact = score_heads(features, weights, biases)
    assert torch.equal(score_heads(features, weights, biases, allow_tf32=True), exact)


def test_strided_features() -> None:
    weights, biases = _heads(3, (37, 19, 2))
    features = _features(13, 3, 74).transpose(0, 1)[..., ::2]
    torch.testing.assert_close(
        score_heads(features, weights, biases), score_heads(features.contiguous(), weights, biases)
    )


def test_reference_is_differentiable() -> None:
    weights, biases = (_doubles(tensors) for tensors in _heads(2, (5, 4, 2)))
    features = _features(2, 3, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: score_heads_ref(x, weights, biases), (features,))


@pytest.mark.parametrize("op", [score_heads, score_heads_ref])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(37)}, r"features must be \[T, K, D\] or \[K, D\], got \(37,\)"),
        ({"features": torch.zeros(2, 13, 37)}, "features are for 2 heads, weights for 3"),
        ({"features": torch.zeros(13, 36)}, r"a weight must be \[3, out, 36\] here, got \(3, 19, 37\)"),
        ({"weights": [], "biases": []}, "one bias per weight is needed, got 0 weights and 0 biases"),
        ({"biases": [torch.zeros(3, 19)]}, "one bias per weight is needed, got 2 weights and 1 biases"),
        ({"weights": [torch.zeros(3, 19, 37), torch.zeros(2, 2, 19)]}, r"a weight must be \[3, out, 19\] here"),
        ({"weights": [torch.zeros(3, 19, 37), torch.zeros(2, 19)]}, r"a weight must be \[3, out, 19\] here"),
        ({"biases": [torch.zeros(3, 19), torch.zeros(1, 2)]}, r"a bias must be \(3, 2\) here, got \(1, 2\)"),
        (
            {"weights": [torch.zeros(3, 0, 37), torch.zeros(3, 2, 0)]},
            r"a weight must be \[3, out, 37\] here, got",
        ),
        ({"features": torch.zeros(3, 13, 37).half()}, r"must have one dtype, got \['torch.float16', 'torch.float32'\]"),
        ({"biases": [torch.zeros(3, 19).double(), torch.zeros(3, 2)]}, "must have one dtype"),
        ({"features": torch.zeros(3, 13, 37, device="meta")}, r"must be on one device, got \[.cpu., .meta.\]"),
        (
            {
                "weights": [torch.zeros(3, 19, 37), torch.zeros(3, 5, 19)],
                "biases": [torch.zeros(3, 19), torch.zeros(3, 5)],
            },
            "the last layer must have 2 outputs, got 5",
        ),
    ],
)
def test_what_is_refused(op: Any, changes: dict[str, Any], message: str) -> None:
    weights, biases = _heads(3, (37, 19, 2))
    with pytest.raises(ValueError, match=message):
        op(**{"features": _features(3, 13, 37), "weights": weights, "biases": biases, **changes})
