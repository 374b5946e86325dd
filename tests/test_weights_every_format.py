"""What holds for weight files of every format: types, damage, values that are not finite, paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import weight_files
from torch import Tensor
from weight_files import NET, _mat_layers, _refused, _save_pth, _save_raw

from fdn_triton.weights import load_weights

full, trunk, savemat = weight_files.full, weight_files.trunk, weight_files.savemat  # fixtures


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
