"""The trunk in training: what it exports computes the same in the tracker, and comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_training import start_weights
from torch import Tensor

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.training.trunk import TrainableTrunk, trunk_to_train
from fdn_triton.weights import load_weights, untrained_weights


def images(n: int = 4, side: int = 64) -> Tensor:
    """Smooth noise, about as photographs minus their mean."""
    noise = torch.randn(n, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    return 80 * F.interpolate(noise, size=(side, side), mode="bilinear")


def difference(one: Tensor, other: Tensor) -> float:
    return float(((one - other).norm() / other.norm()).detach())


@pytest.mark.parametrize("conv_layers", [3, 5])
def test_the_exported_trunk_computes_the_same(conv_layers: int) -> None:
    """With the tracker's LRN, after steps that moved weights, statistics, scales and shifts."""
    torch.manual_seed(0)
    trunk, x = TrainableTrunk(conv_layers), images()
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        (trunk(x) - 0.5).square().mean().backward()
        optimizer.step()
    trunk.eval()
    tensors, network = trunk.folded(), NetworkConfig(conv_layers=conv_layers)
    backbone = Backbone.with_weights(network, tensors, feature_scale=3.0)
    with torch.no_grad():
        features = trunk(x)
        assert difference(backbone(x), 3 * features) < 1e-2
        again = TrainableTrunk.from_folded(tensors, conv_layers).eval()
        assert difference(again(x), features) < 1e-5
    for name, tensor in again.folded().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=1e-5, atol=1e-7)


def test_folded_weights_are_not_trained_in_their_small_unit() -> None:
    """One learning rate serves all layers: the weights are of like size, whatever the exported ones are."""
    trunk = TrainableTrunk.from_folded(TrainableTrunk().folded())
    sizes = [
        float(convolution.weight.detach().std()) * convolution.weight[0].numel() ** 0.5
        for convolution, _ in trunk.layers()
    ]
    assert max(sizes) < 2 * min(sizes)


def frames() -> list[np.ndarray]:
    pixels = (images(2) + 120).clamp(0, 255).to(torch.uint8)
    return [frame.permute(1, 2, 0).contiguous().numpy() for frame in pixels]


def test_weights_of_classification_are_a_start(tmp_path: Path) -> None:
    network = NetworkConfig()
    weights = load_weights(start_weights(tmp_path / "start.safetensors"), network)
    trunk = trunk_to_train(weights, network, frames())
    assert difference(trunk(images()), Backbone.with_weights(network, weights.tensors, 1.0)(images())) < 1e-2


def test_weights_whose_activations_lrn_changes_are_refused(tmp_path: Path) -> None:
    """As VGG-M's, or the random ones, whose activations are in units of grey levels."""
    network = NetworkConfig()
    with pytest.raises(InputError, match=r"'untrained' has other features, by \d+%.*give weights of train classify"):
        trunk_to_train(untrained_weights(network), network, frames())
    weights = load_weights(start_weights(tmp_path / "start.safetensors"), network)
    with pytest.raises(InputError, match="other features"):
        trunk_to_train(replace(weights, mean=(0.0, 0.0, 0.0)), network, frames())
