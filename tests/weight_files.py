"""Tensors of the default network for the tests of weight files, and files of every layout written from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.weights import NetworkWeights, load_weights, tensor_shapes

NET = NetworkConfig()
CONV = [name for name in tensor_shapes(NET) if name.startswith("conv")]


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def full() -> dict[str, Tensor]:
    """All tensors of the default network, in our orders."""
    return _random(tensor_shapes(NET))


@pytest.fixture(scope="module")
def trunk(full: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: full[name] for name in CONV}


def _weights(tensors: dict[str, Tensor], **changes: Any) -> NetworkWeights:
    base = NetworkWeights("x", tensors, (1.5, 2.25, 1 / 3), 0.7, 1, "interior", "made by a test", "")
    return replace(base, **changes)


def _refused(path: Path | str, network: NetworkConfig = NET) -> str:
    with pytest.raises(InputError) as caught:
        load_weights(path, network)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


def _save_raw(path: Path, tensors: dict[str, Tensor], **changes: Any) -> None:
    metadata = {
        "format_version": 1,
        "mean": [1, 2, 3],
        "feature_scale": 1,
        "roi_grid": None,
        "provenance": "",
        "fc_input_order": "y,x,channel",
    } | changes
    save_file(tensors, path, {"fdn_triton": json.dumps(metadata)})


PTH_NAMES = {
    "as published": ("conv1.0", "conv2.0", "conv3.0", "fc4.0", "fc5.1"),
    "dropout first": ("conv1.0", "conv2.0", "conv3.0", "fc4.1", "fc5.1"),
}


def _save_pth(path: Path, tensors: dict[str, Tensor], names: str = "as published", **torch_save: Any) -> None:
    table = {name.split(".")[0]: name for name in PTH_NAMES[names]}
    state = {f"{table[name.split('.')[0]]}.{name.split('.')[1]}": t for name, t in tensors.items()}
    torch.save({"shared_layers": state}, path, **torch_save)


def _cell(*values: Any) -> np.ndarray:
    out = np.empty((1, len(values)), dtype=object)
    for i, value in enumerate(values):
        out[0, i] = value
    return out


def _mat_layers(tensors: dict[str, Tensor], spelling: str, types: tuple[str, ...] = ()) -> np.ndarray:
    """Our tensors as MatConvNet stores them: [h, w, in, out], a ReLU after each, then layers of `types`."""
    layers = []
    for name in dict.fromkeys(key.split(".")[0] for key in tensors):
        weight, bias = tensors[f"{name}.weight"].numpy(), tensors[f"{name}.bias"].numpy()
        if name.startswith("fc"):
            grid = 3 if name == "fc4" else 1
            weight = weight.reshape(weight.shape[0], grid, grid, -1).transpose(1, 2, 3, 0)
        else:
            weight = weight.transpose(2, 3, 1, 0)
        layer: dict[str, Any] = {"type": "conv", "name": name, "stride": 1.0}
        if spelling == "filters":
            layer |= {"filters": weight, "biases": bias[None]}  # 1 x out, as MDNet
        else:
            layer |= {"weights": _cell(weight, bias[:, None])}  # out x 1, as VGG-M
        layers += [layer, {"type": "relu", "name": f"relu{name[-1]}"}]
    return _cell(*layers, *({"type": kind, "name": kind} for kind in types))


@pytest.fixture
def savemat() -> Callable[..., None]:
    return pytest.importorskip("scipy.io").savemat
