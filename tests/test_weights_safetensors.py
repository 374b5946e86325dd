"""Weight files of the project's own format: bit for bit, and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import weight_files
from safetensors.torch import save_file
from torch import Tensor
from weight_files import NET, _random, _refused, _save_raw, _weights

from fdn_triton import weights as weights_module
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.weights import load_weights, save_weights, tensor_shapes, untrained_weights

full, trunk = weight_files.full, weight_files.trunk  # fixtures


@pytest.mark.parametrize("ratio, grid", [(None, None), (1, "midpoint"), (3, "interior")])
def test_round_trip_is_bitwise(tmp_path: Path, full: dict[str, Tensor], ratio: int | None, grid: str | None) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, _weights(full, sampling_ratio=ratio, roi_grid=grid))
    loaded = load_weights(str(path), NET)
    assert list(loaded.tensors) == list(tensor_shapes(NET))
    for name, tensor in full.items():
        assert loaded.tensors[name].dtype == torch.float32
        assert loaded.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert (loaded.mean, loaded.feature_scale) == ((1.5, 2.25, 1 / 3), 0.7)
    assert (loaded.sampling_ratio, loaded.roi_grid) == (ratio, grid)
    assert (loaded.name, loaded.provenance) == ("w.safetensors", "made by a test")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_loaded_tensors_survive_the_file_being_overwritten(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, _weights(trunk))
    loaded = load_weights(path, NET)
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    for name, tensor in trunk.items():
        assert torch.equal(loaded.tensors[name], tensor)


def test_equal_weights_give_equal_files_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from fdn_triton.weights import *; from fdn_triton.config import NetworkConfig;"
        "save_weights(sys.argv[1], untrained_weights(NetworkConfig()))"
    )
    here = tmp_path / "here.safetensors"
    there = tmp_path / "there.safetensors"
    save_weights(here, untrained_weights(NET))
    subprocess.run([sys.executable, "-c", code, str(there)], check=True, cwd=Path(__file__).parents[1])
    assert here.read_bytes() == there.read_bytes()


def test_metadata_names_the_order_of_the_fc_inputs(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, _weights(trunk, provenance="two\nlines"))
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    metadata = json.loads(header["__metadata__"]["fdn_triton"])
    assert metadata["fc_input_order"] == "y,x,channel"
    assert metadata["format_version"] == 1
    assert load_weights(path, NET).provenance == "two lines"


@pytest.mark.parametrize("network", [NetworkConfig(conv_layers=5), NetworkConfig(fc_layers=2)])
def test_variants_have_their_own_tensors(tmp_path: Path, network: NetworkConfig) -> None:
    tensors = _random(tensor_shapes(network))
    assert ("conv5.weight" in tensors) == (network.conv_layers == 5)
    assert ("fc5.weight" in tensors) == (network.fc_layers == 3)
    path = tmp_path / "w.safetensors"
    save_weights(path, _weights(tensors))
    loaded = load_weights(path, network).tensors
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    message = _refused(path)  # for the default network
    if network.conv_layers == 5:
        assert "unexpected 'conv4.bias' [512], 'conv4.weight' [512, 512, 3, 3], 'conv5.bias'" in message
    else:
        assert "missing fc5.weight, fc5.bias" in message


def test_every_wrong_tensor_is_named(tmp_path: Path, full: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    tensors = dict(full)
    tensors["conv2.weight"] = torch.zeros(256, 48, 5, 5)
    tensors["conv3.bias"] = torch.zeros(512, dtype=torch.int64)
    tensors["fc6.weight"] = torch.zeros(2, 512)
    del tensors["conv1.bias"], tensors["fc5.weight"]
    _save_raw(path, tensors)
    message = _refused(path)
    assert "conv2.weight is [256, 48, 5, 5], expected [256, 96, 5, 5]" in message
    assert "conv3.bias is no dense tensor of floating-point numbers but torch.int64" in message
    assert "missing conv1.bias, fc5.weight" in message
    assert "unexpected 'fc6.weight' [2, 512]" in message
    assert "conv_layers=3, fc_layers=3" in message


def test_arbitrary_safetensors_are_refused(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"embed": torch.zeros(4, 4), "conv1.weight": torch.zeros(64, 3, 7, 7)}, path, {"format": "pt"})
    message = _refused(path)
    assert "is not weights of this network" in message
    assert "no 'fdn_triton' metadata, which save_weights writes" in message
    assert "conv1.weight is [64, 3, 7, 7], expected [96, 3, 7, 7]" in message
    assert "missing conv1.bias, conv2.weight, conv2.bias, conv3.weight, conv3.bias" in message
    save_file(trunk, path)  # the right tensors, but nothing known of the mean
    assert "no 'fdn_triton' metadata" in _refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 2},
        {"mean": [1, 2]},
        {"mean": [1, 2, float("nan")]},
        {"mean": None},
        {"feature_scale": 0},
        {"feature_scale": "big"},
        {"sampling_ratio": "auto"},
        {"sampling_ratio": 4},
        {"sampling_ratio": True},
        {"sampling_ratio": 1.0},
        {"roi_grid": "auto"},
        {"fc_input_order": "channel,y,x"},
    ],
    ids=str,
)
def test_unusable_metadata(tmp_path: Path, trunk: dict[str, Tensor], change: dict[str, Any]) -> None:
    path = tmp_path / "w.safetensors"
    _save_raw(path, trunk, **change)
    message = _refused(path)
    assert f"metadata of format version {change.get('format_version', 1)} that cannot be used" in message
    assert "reads version 1" in message and "save_weights" in message


@pytest.mark.parametrize("stored", ["{", "[]", "{}"])
def test_damaged_metadata(tmp_path: Path, trunk: dict[str, Tensor], stored: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(trunk, path, {"fdn_triton": stored})
    assert "save_weights" in _refused(path)


def test_save_refuses_what_load_would_refuse(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"before")
    bad = trunk | {"conv1.bias": torch.full((96,), torch.inf)}
    for weights, fact in [
        (_weights(bad), "conv1.bias has 96 NaN or infinite"),
        (_weights(trunk, roi_grid="auto"), "roi_grid"),
        (_weights(trunk, sampling_ratio=0), "sampling_ratio"),
    ]:
        with pytest.raises(InputError, match=fact):
            save_weights(path, weights)
    with pytest.raises(InputError, match=r"end in \.safetensors"):
        save_weights(tmp_path / "w.pth", _weights(trunk))
    with pytest.raises(InputError, match=r"cannot write .*No such file or directory"):
        save_weights(tmp_path / "absent" / "w.safetensors", _weights(trunk))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_save_leaves_the_old_file_when_the_rename_fails(
    tmp_path: Path, trunk: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_module.os, "replace", fail)
    with pytest.raises(InputError, match="No space left on device"):
        save_weights(path, _weights(trunk))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_half_precision_halves_the_file(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    save_weights(tmp_path / "full.safetensors", _weights(trunk))
    save_weights(tmp_path / "half.safetensors", _weights(trunk), torch.float16)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.51 * full
    for name, tensor in load_weights(tmp_path / "half.safetensors", NET).tensors.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, trunk[name], rtol=1e-3, atol=1e-7)
    too_large = {**trunk, "conv1.bias": torch.full((96,), 1e5)}
    with pytest.raises(InputError, match=r"conv1\.bias has 96 NaN or infinite"):
        save_weights(tmp_path / "w.safetensors", _weights(too_large), torch.float16)
