"""Weight files of every layout, written here, read back by value; and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from fdn_triton import weights as weights_module
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.weights import (
    DEFAULT_WEIGHTS,
    NetworkWeights,
    load_weights,
    save_weights,
    tensor_shapes,
    untrained_weights,
)

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
    base = NetworkWeights("x", tensors, (1.5, 2.25, 1 / 3), 0.7, "interior", "made by a test", "")
    return replace(base, **changes)


def _refused(path: Path | str, network: NetworkConfig = NET) -> str:
    with pytest.raises(InputError) as caught:
        load_weights(path, network)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


# ------------------------------------------------------------------------------------------------ own format


@pytest.mark.parametrize("grid", [None, "midpoint", "interior"])
def test_round_trip_is_bitwise(tmp_path: Path, full: dict[str, Tensor], grid: str | None) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, _weights(full, roi_grid=grid))
    loaded = load_weights(str(path), NET)
    assert list(loaded.tensors) == list(tensor_shapes(NET))
    for name, tensor in full.items():
        assert loaded.tensors[name].dtype == torch.float32
        assert loaded.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert (loaded.mean, loaded.feature_scale, loaded.roi_grid) == ((1.5, 2.25, 1 / 3), 0.7, grid)
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path: Path, trunk: dict[str, Tensor], dtype: torch.dtype) -> None:
    own, other = tmp_path / "w.safetensors", tmp_path / "w.pth"
    stored = {name: tensor.to(dtype) for name, tensor in trunk.items()}
    _save_raw(own, stored)
    _save_pth(other, stored)
    for path in (own, other):
        loaded = load_weights(path, NET).tensors
        for name, tensor in stored.items():
            assert loaded[name].dtype == torch.float32
            assert torch.equal(loaded[name], tensor.float())


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


# ------------------------------------------------------------------------------------- py-MDNet and RT-MDNet

PTH_NAMES = {
    "as published": ("conv1.0", "conv2.0", "conv3.0", "fc4.0", "fc5.1"),
    "dropout first": ("conv1.0", "conv2.0", "conv3.0", "fc4.1", "fc5.1"),
}


def _channels_first(fc4: Tensor) -> Tensor:
    """fc4's inputs from (y, x, channel) to (channel, y, x), one index at a time."""
    out = torch.empty_like(fc4)
    for y in range(3):
        for x in range(3):
            out[:, torch.arange(512) * 9 + y * 3 + x] = fc4[:, (y * 3 + x) * 512 : (y * 3 + x + 1) * 512]
    return out


def _save_pth(path: Path, tensors: dict[str, Tensor], names: str = "as published", **torch_save: Any) -> None:
    table = {name.split(".")[0]: name for name in PTH_NAMES[names]}
    state = {f"{table[name.split('.')[0]]}.{name.split('.')[1]}": t for name, t in tensors.items()}
    torch.save({"shared_layers": state}, path, **torch_save)


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


# ----------------------------------------------------------------------------------------------- MatConvNet


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


@pytest.mark.parametrize("spelling", ["filters", "weights"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_matconvnet(
    tmp_path: Path, savemat: Callable[..., None], full: dict[str, Tensor], spelling: str, wrapped: bool
) -> None:
    path = tmp_path / "w.mat"
    content = {"layers": _mat_layers(full, spelling)}
    savemat(path, {"net": content} if wrapped else content)
    loaded = load_weights(path, NET)
    for name, tensor in full.items():
        assert loaded.tensors[name].is_contiguous()
        assert torch.equal(loaded.tensors[name], tensor)
    assert (loaded.mean, loaded.feature_scale, loaded.roi_grid) == ((128.0, 128.0, 128.0), 1.0, None)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_matconvnet_orders(tmp_path: Path, savemat: Callable[..., None], full: dict[str, Tensor]) -> None:
    """Element by element, and fc4 as the convolution over the RoI features that it is in MatConvNet."""
    layers = _mat_layers(full, "filters")
    filters = {layer["name"]: layer["filters"] for layer in layers[0] if "filters" in layer}
    path = tmp_path / "w.mat"
    savemat(path, {"layers": layers}, do_compression=True)
    loaded = load_weights(path, NET).tensors
    assert loaded["conv2.weight"][7, 5, 1, 3] == filters["conv2"][1, 3, 5, 7]
    assert loaded["conv1.weight"][95, 2, 6, 0] == filters["conv1"][6, 0, 2, 95]
    features = np.random.default_rng(0).random((3, 3, 512), dtype=np.float32)  # y, x, channel
    expected = np.einsum("yxc,yxco->o", features, filters["fc4"])
    ours = loaded["fc4.weight"].numpy() @ features.reshape(-1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-3)
    vector = features[0, 0]
    np.testing.assert_allclose(
        loaded["fc5.weight"].numpy() @ vector, vector @ filters["fc5"][0, 0], rtol=1e-4, atol=1e-3
    )


def test_vgg_m_gives_its_first_layers(tmp_path: Path, savemat: Callable[..., None]) -> None:
    """Convolutions 4 and 5 where the network has them; the classifier never; the mean from `meta`."""
    tensors = _random({k: v for k, v in tensor_shapes(NetworkConfig(conv_layers=5)).items() if "conv" in k})
    layers = list(_mat_layers(tensors, "weights")[0])
    for name in ("fc6", "fc7", "fc8"):
        layers.append({"type": "conv", "name": name, "weights": _cell(np.zeros((1, 1, 4, 5)), np.zeros(5))})
    layers.append({"type": "lrn", "name": "conv3_norm", "param": [5.0, 2.0, 1e-4, 0.75]})
    image = np.broadcast_to(np.float32([120.0, 110.0, 100.0]), (4, 6, 3)).copy()
    image[0] += 6
    path = tmp_path / "vgg.mat"
    savemat(path, {"layers": _cell(*layers), "meta": {"normalization": {"averageImage": image}}})
    for conv_layers in (3, 5):
        loaded = load_weights(path, NetworkConfig(conv_layers=conv_layers))  # type: ignore[arg-type]
        assert sorted(loaded.tensors) == sorted(name for name in tensors if int(name[4]) <= conv_layers)
        assert all(torch.equal(loaded.tensors[name], tensors[name]) for name in loaded.tensors)
        assert loaded.mean == pytest.approx((121.5, 111.5, 101.5))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("place", ["meta", "top"])
def test_mean_of_matconvnet(
    tmp_path: Path, savemat: Callable[..., None], trunk: dict[str, Tensor], shape: tuple[int, ...], place: str
) -> None:
    normalization = {"normalization": {"averageImage": np.float64([3.0, 2.0, 1.0]).reshape(shape)}}
    net = {"layers": _mat_layers(trunk, "weights")} | ({"meta": normalization} if place == "meta" else normalization)
    path = tmp_path / "w.mat"
    savemat(path, {"net": net})
    assert load_weights(path, NET).mean == (3.0, 2.0, 1.0)


def test_mean_image_of_no_rgb_shape(tmp_path: Path, savemat: Callable[..., None], trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.mat"
    for image, fact in [
        (np.zeros((5, 4)), "averageImage of shape [5, 4]"),
        (np.full(3, np.nan), "averageImage"),
    ]:
        meta = {"normalization": {"averageImage": image}}
        savemat(path, {"layers": _mat_layers(trunk, "weights"), "meta": meta})
        assert fact in _refused(path)


@pytest.mark.parametrize(("kind", "grid"), [("roialign", "interior"), ("roipool", None)])
def test_release_file_is_known_by_its_roi_layer(
    tmp_path: Path, savemat: Callable[..., None], trunk: dict[str, Tensor], kind: str, grid: str | None
) -> None:
    path = tmp_path / "w.mat"
    savemat(path, {"layers": _mat_layers(trunk, "filters", (kind,))})
    loaded = load_weights(path, NET)
    assert (loaded.mean, loaded.roi_grid) == ((0.0, 0.0, 0.0), grid)
    assert "FDN release" in loaded.provenance


def test_fc_without_singleton_dimensions(tmp_path: Path, savemat: Callable[..., None], full: dict[str, Tensor]) -> None:
    layers = _mat_layers(full, "filters")
    path = tmp_path / "w.mat"
    for layer in layers[0]:
        if layer["name"] == "fc5":
            layer["filters"] = layer["filters"][0, 0]
    savemat(path, {"layers": layers})
    assert torch.equal(load_weights(path, NET).tensors["fc5.weight"], full["fc5.weight"])
    for flat in (full["fc4.weight"].numpy(), full["fc4.weight"].numpy().T[None, None]):
        for layer in layers[0]:
            if layer["name"] == "fc4":  # the order of its inputs cannot be known
                layer["filters"] = flat
        savemat(path, {"layers": layers})
        assert "fc4.weight is [" in _refused(path)


def test_matconvnet_of_another_network(tmp_path: Path, savemat: Callable[..., None], trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.mat"
    savemat(path, {"frames": np.zeros((3, 3))})
    message = _refused(path)
    assert "is not weights of this network" in message and "no cell array 'layers'" in message
    assert f"missing {', '.join(CONV)}" in message
    alex = {"conv1.weight": torch.zeros(96, 3, 11, 11), "conv1.bias": torch.zeros(96)}
    savemat(path, {"layers": _mat_layers(alex, "weights")})
    message = _refused(path)
    assert "conv1.weight is [96, 3, 11, 11], expected [96, 3, 7, 7]" in message
    assert "missing conv2.weight, conv2.bias, conv3.weight, conv3.bias" in message
    savemat(path, {"layers": _cell(*(list(_mat_layers(trunk, "weights")[0]) * 2))})
    assert "layer conv1 twice" in _refused(path)
    savemat(path, {"layers": _mat_layers(trunk, "weights")})
    assert "missing conv4.weight, conv4.bias, conv5.weight" in _refused(path, NetworkConfig(conv_layers=5))


@pytest.mark.parametrize("head", [b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512), b""])
def test_matlab_7_3(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "w.mat"
    path.write_bytes(head + b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    message = _refused(path)
    assert "7.3" in message and "-v7" in message


def test_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(128))
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert _refused(path) == "reading .mat files needs scipy: pip install 'fdn-triton[eval]'"


# ------------------------------------------------------------------------------------------- any damaged file


@pytest.fixture
def writers(savemat: Callable[..., None]) -> dict[str, Callable[[Path, dict[str, Tensor]], None]]:
    return {
        ".safetensors": lambda path, tensors: _save_raw(path, tensors),
        ".mat": lambda path, tensors: savemat(path, {"layers": _mat_layers(tensors, "filters")}),
        ".pth": lambda path, tensors: _save_pth(path, tensors),
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".mat", ".pth"])
def test_damaged_files(tmp_path: Path, trunk: dict[str, Tensor], writers: Any, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    writers[suffix](path, trunk)
    whole = path.read_bytes()
    pieces = {
        "half": whole[: len(whole) // 2],
        "head": whole[:40],
        "empty": b"",
        "text": b"version https://git-lfs",
    }
    for content in pieces.values():
        path.write_bytes(content)
        message = _refused(path)
        assert str(path) in message and "get it anew" in message


@pytest.mark.parametrize("suffix", [".safetensors", ".mat", ".pth"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite(tmp_path: Path, trunk: dict[str, Tensor], writers: Any, suffix: str, value: float) -> None:
    path = tmp_path / f"w{suffix}"
    bad = trunk["conv2.bias"].clone()
    bad[3:5] = value
    writers[suffix](path, trunk | {"conv2.bias": bad})
    message = _refused(path)
    assert "conv2.bias has 2 NaN or infinite values" in message and "use another one" in message


def test_float64_beyond_float32_is_infinite(tmp_path: Path, trunk: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    _save_raw(path, trunk | {"conv1.bias": torch.full((96,), 1e300, dtype=torch.float64)})
    assert "conv1.bias has 96 NaN or infinite values" in _refused(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".mat", ".pth"])
def test_format_is_known_without_suffix(tmp_path: Path, trunk: dict[str, Tensor], writers: Any, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    writers[suffix](path, trunk)
    bare = path.rename(tmp_path / "weights")
    assert torch.equal(load_weights(bare, NET).tensors["conv3.weight"], trunk["conv3.weight"])
    shouting = bare.rename(tmp_path / f"W{suffix.upper()}")
    assert load_weights(shouting, NET).name == f"W{suffix.upper()}"


def test_paths_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = _refused(tmp_path / "absent.pth")
    assert "absent.pth" in message and "No such file" in message and "'untrained'" in message
    assert "directory" in _refused(tmp_path)
    assert "absent" in _refused(str(tmp_path / "absent\nname.mat"))
    (tmp_path / "notes.txt").write_text("hello, this is no weights file")
    assert "of no known format: give a .safetensors, .mat, .pth or .pt file" in _refused(tmp_path / "notes.txt")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert "Permission denied" in _refused(tmp_path / "notes.txt")


# -------------------------------------------------------------------------------------------------- shipped


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


# -------------------------------------------------------------------------------------------------- untrained


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
