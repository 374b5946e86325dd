"""Checkpoints of py-MDNet and RT-MDNet: read by value, never executed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import weight_files
from torch import Tensor
from weight_files import CONV, NET, PTH_NAMES, _refused, _save_pth

from fdn_triton.config import NetworkConfig
from fdn_triton.weights import load_weights, tensor_shapes

full, trunk = weight_files.full, weight_files.trunk  # fixtures


def _channels_first(fc4: Tensor) -> Tensor:
    """fc4's inputs from (y, x, channel) to (channel, y, x), one index at a time."""
    out = torch.empty_like(fc4)
    for y in range(3):
        for x in range(3):
            out[:, torch.arange(512) * 9 + y * 3 + x] = fc4[:, (y * 3 + x) * 512 : (y * 3 + x + 1) * 512]
    return out


@pytest.mark.parametrize("names", PTH_NAMES)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint(tmp_path: Path, full: dict[str, Tensor], names: str, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    stored = full | {"fc4.weight": _channels_first(full["fc4.weight"])}
    _save_pth(path, stored, names, _use_new_zipfile_serialization=zipped)
    loaded = load_weights(path, NET)
    assert (loaded.mean, loaded.feature_scale, loaded.roi_grid) == ((128.0, 128.0, 128.0), 1.0, None)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in full.items():
        assert torch.equal(loaded.tensors[name], tensor)
    features = torch.rand(2, 512, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = F.linear(features.flatten(1), stored["fc4.weight"])
    ours = F.linear(features.permute(0, 2, 3, 1).flatten(1), loaded.tensors["fc4.weight"])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


def test_checkpoint_saved_from_a_module(tmp_path: Path) -> None:
    """An OrderedDict of Parameters, with branches beside the shared layers, as training scripts write."""
    layers = torch.nn.Sequential()
    for name, block in {
        "conv1": torch.nn.Sequential(torch.nn.Conv2d(3, 96, 7), torch.nn.ReLU()),
        "conv2": torch.nn.Sequential(torch.nn.Conv2d(96, 256, 5), torch.nn.ReLU()),
        "conv3": torch.nn.Sequential(torch.nn.Conv2d(256, 512, 3), torch.nn.ReLU()),
        "fc4": torch.nn.Sequential(torch.nn.Linear(4608, 512), torch.nn.ReLU()),
        "fc5": torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(512, 512)),
        "fc6": torch.nn.Sequential(torch.nn.Linear(512, 2)),
    }.items():
        layers.add_module(name, block)
    path = tmp_path / "w.pt"
    torch.save({"shared_layers": layers.state_dict(keep_vars=True), "epoch": 3}, path)
    loaded = load_weights(path, NET).tensors
    assert list(loaded) == list(tensor_shapes(NET))  # fc6 is left out
    assert not any(tensor.requires_grad for tensor in loaded.values())
    assert torch.equal(loaded["fc5.weight"], layers.get_submodule("fc5.1").weight)


class _Program:
    """A pickle that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_is_never_executed(tmp_path: Path, trunk: dict[str, Tensor], zipped: bool) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "executed"
    content = {"shared_layers": trunk, "extra": _Program(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = _refused(path)
    assert not trace.exists()
    assert "only plain tensors are read" in message and "torch.save" in message
    assert "weights_only" not in message  # torch's own advice is to execute the file
    torch.load(path, weights_only=False)  # the trap is real
    assert trace.exists()


def test_whole_module_in_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    message = _refused(path)
    assert "torch.nn.modules.linear.Linear" in message and "only plain tensors are read" in message


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}
    torch.save(resnet, path)
    message = _refused(path)
    assert "is not weights of this network" in message and "no 'shared_layers' dictionary" in message
    assert f"missing {', '.join(CONV)}" in message
    torch.save({"shared_layers": resnet}, path)
    message = _refused(path)
    assert "conv1.weight is [64, 3, 7, 7], expected [96, 3, 7, 7]" in message
    assert "unexpected 'layer1.0.conv1.weight' [64, 64, 3, 3]" in message
    torch.save(torch.zeros(3), path)
    assert "no 'shared_layers' dictionary" in _refused(path)


def test_checkpoint_with_one_parameter_twice(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"
    torch.save({"shared_layers": trunk | {"conv1.0.bias": trunk["conv1.bias"]}}, path)
    assert "conv1.bias twice" in _refused(path)


def test_fc_layers_come_together(tmp_path: Path, full: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"
    _save_pth(path, {name: t for name, t in full.items() if not name.startswith("fc5")})
    assert "missing fc5.weight, fc5.bias" in _refused(path)
    assert "fc4.weight" in load_weights(path, NetworkConfig(fc_layers=2)).tensors
    _save_pth(path, full)
    assert "unexpected 'fc5.bias' [512], 'fc5.weight' [512, 512]" in _refused(path, NetworkConfig(fc_layers=2))
    _save_pth(path, full | {"fc4.weight": torch.zeros(512, 9216)})
    assert "fc4.weight is [512, 9216], expected [512, 4608]" in _refused(path)


def test_sparse_tensors_are_refused(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"
    _save_pth(path, trunk | {"conv1.bias": torch.ones(96).to_sparse()})
    assert "conv1.bias is no dense tensor" in _refused(path)
