"""MatConvNet's files: MDNet's, the release's and VGG-M's, their orders, spellings and means."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import weight_files
from torch import Tensor
from weight_files import CONV, NET, _cell, _mat_layers, _random, _refused

from fdn_triton.config import NetworkConfig
from fdn_triton.weights import load_weights, tensor_shapes

full, trunk, savemat = weight_files.full, weight_files.trunk, weight_files.savemat  # fixtures


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
