"""Weights that are given by name: the shipped ones, and untrained ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from weight_files import CONV, NET

from fdn_triton import weights as weights_module
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.weights import DEFAULT_WEIGHTS, load_weights, untrained_weights

# Shipped


def test_the_default_is_shipped_small_and_says_where_it_comes_from() -> None:
    shipped = load_weights(DEFAULT_WEIGHTS, NET)
    file = Path(weights_module.__file__).with_suffix("") / "fdn.safetensors"
    assert DEFAULT_WEIGHTS == "fdn" == shipped.name
    assert set(shipped.tensors) == {*CONV, "fc4.weight", "fc4.bias", "fc5.weight", "fc5.bias"}
    assert file.stat().st_size <= 10_000_000
    assert shipped.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert shipped.sha256 in (file.parent / "README.md").read_text(encoding="utf-8")
    assert "domains" in shipped.provenance


@pytest.mark.parametrize("other", [{"conv_layers": 5}, {"fc_layers": 2}])
def test_the_default_is_refused_by_other_networks(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"'fdn' are of 3 convolutions and 3 FC layers, .* give 'untrained'"):
        load_weights("fdn", NetworkConfig(**other))


# Untrained


def test_untrained_weights_repeat() -> None:
    first, again, other = (
        load_weights("untrained", NET),
        untrained_weights(NET),
        untrained_weights(NET, 1),
    )
    assert first.name == "untrained"
    assert list(first.tensors) == CONV
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in CONV)
    assert (first.sha256, first.feature_scale) == (again.sha256, again.feature_scale)
    assert not torch.equal(first.tensors["conv1.weight"], other.tensors["conv1.weight"])
    assert first.sha256 != other.sha256
    joined = b"".join(first.tensors[name].numpy().tobytes() for name in sorted(CONV))
    assert first.sha256 == hashlib.sha256(joined).hexdigest()
    assert first.mean == (123.68, 116.779, 103.939) and first.roi_grid is None and "seed 0" in first.provenance


def test_untrained_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    untrained_weights(NET)
    assert torch.equal(torch.get_rng_state(), before)


def test_untrained_is_kaiming_normal() -> None:
    tensors = untrained_weights(NetworkConfig(conv_layers=5)).tensors
    assert len(tensors) == 10
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            fan_in = tensor[0].numel()
            assert tensor.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
            assert abs(tensor.mean().item()) < 0.03 * tensor.std().item()


@pytest.mark.parametrize("conv_layers", [3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_untrained_features_have_deviation_10(conv_layers: Any, seed: int) -> None:
    """By an own forward pass, with the normalisation spelled out, on another image of the same kind."""
    weights = untrained_weights(NetworkConfig(conv_layers=conv_layers), seed)
    image = weights_module._synthetic_image(torch.Generator().manual_seed(99))
    assert image.shape == (3, 224, 224) and image.min() >= 0 and image.max() <= 255
    assert image.std().item() == pytest.approx(60, rel=0.1)
    x = (image - torch.tensor(weights.mean).view(3, 1, 1))[None]
    for i in range(1, conv_layers + 1):
        weight, bias = weights.tensors[f"conv{i}.weight"], weights.tensors[f"conv{i}.bias"]
        x = F.conv2d(x, weight, bias, stride=2 if i < 3 else 1, padding={1: 3, 2: 2}.get(i, 1)).clamp(min=0)
        if i < 3:
            squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
            channels = x.shape[1]
            sums = sum(squares[:, k : k + channels] for k in range(5))
            x = F.max_pool2d(x / (2 + 1e-4 * sums) ** 0.75, 3, 2, 1)
    assert x.shape == (1, 512, 14, 14)
    assert (x * weights.feature_scale).std().item() == pytest.approx(10, rel=0.2)
