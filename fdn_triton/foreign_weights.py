"""Readers of other projects' weight files: MatConvNet ``.mat`` and py-MDNet / RT-MDNet ``.pth``.

They bring names and orders into the form of :mod:`fdn_triton.weights`, which then checks shapes and values.
Nothing stored in a file is ever executed. What the files' own programs do:

================= ===================================== ===================================================
file              mean subtracted from RGB 0..255       their network beyond the tensors
================= ===================================== ===================================================
VGG-M ``.mat``    ``averageImage`` of ``meta``          ours, with other padding
MDNet ``.mat``    128                                   ours, without padding
FDN release       ``averageImage`` if any, else nothing ours; ``roialign`` samples at 1/3 and 2/3 of a bin
py-MDNet ``.pth`` 128                                   no padding; normalisation over 2 channels, from 1
RT-MDNet ``.pth`` 128                                   other normalisation, stride 8, dilated conv3
================= ===================================== ===================================================
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .config import ROI_BINS
from .errors import InputError

MDNET_MEAN = (128.0, 128.0, 128.0)
"""What MDNet and its PyTorch descendants subtract from every channel."""

_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc4", "fc5")
"""Layers worth reading. ``fc6`` is fresh for every target, and VGG-M's ``fc6``..``fc8`` are a classifier."""

_STATE_NAME = re.compile(r"(conv[1-5]|fc[4-6])(?:\.\d+)?\.(weight|bias)")
"""A layer's parameter inside its ``Sequential``, whose index differs from version to version."""


@dataclass(frozen=True)
class ForeignWeights:
    """What a file of another project holds.

    ``tensors`` have the names and orders of :class:`fdn_triton.weights.NetworkWeights`, unchecked; a
    tensor that cannot be brought into that order has a shape that no check accepts. ``lacks`` says what of
    the layout is absent.
    """

    tensors: dict[str, Tensor]
    mean: tuple[float, float, float]
    roi_grid: Literal["midpoint", "interior"] | None
    provenance: str
    lacks: str | None = None


def read_checkpoint(path: Path) -> ForeignWeights:
    """Reads a py-MDNet or RT-MDNet ``.pth`` file.

    Its ``shared_layers`` is a state dict with names such as ``conv1.0.weight`` and ``fc5.1.weight``; the
    inputs of ``fc4`` are ordered (channel, y, x) and are reordered to (y, x, channel).

    Raises:
        InputError: the file is damaged, holds more than plain tensors, or has one parameter twice.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from EOFError to RuntimeError
        # torch's own text is long and recommends weights_only=False: executing the file, which nobody should
        text = str(error)
        if (isinstance(error, pickle.UnpicklingError) and "global" in text.lower()) or "TorchScript" in text:
            found = re.search(r"GLOBAL ([\w.]+)", text)
            raise InputError(
                f"{str(path)!r} holds more than plain tensors{f' ({found[1]})' if found else ''} and only "
                "plain tensors are read, for the rest is a program: where you trust it, save it anew by "
                "torch.save({'shared_layers': model.layers.state_dict()}, file)"
            ) from None
        raise InputError(
            f"{str(path)!r} cannot be read as a PyTorch file ({type(error).__name__}): it is truncated, "
            "damaged or of another format, get it anew"
        ) from None
    shared = content.get("shared_layers") if isinstance(content, dict) else None
    if not isinstance(shared, dict):
        return ForeignWeights({}, MDNET_MEAN, None, "", lacks="it has no 'shared_layers' dictionary")
    tensors: dict[str, Tensor] = {}
    for key, value in shared.items():
        if not isinstance(value, Tensor):
            continue
        match = _STATE_NAME.fullmatch(str(key))
        name = f"{match[1]}.{match[2]}" if match else str(key)
        if name.startswith("fc6."):
            continue
        if name in tensors:
            raise InputError(f"{str(path)!r} has {name} twice: give a file with one network")
        tensors[name] = value.detach()
    fc4 = tensors.get("fc4.weight")
    if fc4 is not None and fc4.layout is torch.strided and fc4.dim() == 2:
        channels, rest = divmod(fc4.shape[1], ROI_BINS**2)
        if rest == 0:
            grid = fc4.reshape(fc4.shape[0], channels, ROI_BINS, ROI_BINS)
            tensors["fc4.weight"] = grid.permute(0, 2, 3, 1).reshape(fc4.shape)
    return ForeignWeights(tensors, MDNET_MEAN, None, "py-MDNet or RT-MDNet checkpoint")


def read_matconvnet(path: Path) -> ForeignWeights:
    """Reads a MatConvNet ``.mat`` file: VGG-M, MDNet's or the FDN release's.

    Layers are found by name in the cell array ``layers``, at top level or inside ``net``; a layer has
    ``filters`` [height, width, inputs, outputs] and ``biases``, or both in a cell ``weights``.

    Raises:
        InputError: scipy is missing, the file is damaged or of MATLAB's version 7.3, has one layer twice, or
            has a mean image of no RGB shape.
    """
    root = _load_mat(path)
    if "net" in root:
        root = _struct(root["net"])
    layers = _unpack(root.get("layers"))
    if isinstance(layers, dict):
        layers = [layers]
    if not isinstance(layers, list):
        return ForeignWeights({}, MDNET_MEAN, None, "", lacks="it has no cell array 'layers'")
    tensors: dict[str, Tensor] = {}
    types = set()
    for layer in map(_struct, layers):
        types.add(_unpack(layer.get("type")))
        name = _unpack(layer.get("name"))
        if name not in _LAYERS:
            continue
        if f"{name}.weight" in tensors:
            raise InputError(f"{str(path)!r} has the layer {name} twice: give a file with one network")
        filters, biases = layer.get("filters"), layer.get("biases")
        pair = _unpack(layer.get("weights"))
        if isinstance(pair, list) and len(pair) == 2:
            filters, biases = pair
        weight, bias = _tensor(filters), _tensor(biases)
        if weight is not None:
            tensors[f"{name}.weight"] = _to_our_order(str(name), weight)
        if bias is not None:
            tensors[f"{name}.bias"] = bias.reshape(-1)

    # Only the FDN release has a RoI layer among the layers; without `meta` its programs subtract nothing.
    of_release = bool(types & {"roialign", "roipool"})
    default_mean = (0.0, 0.0, 0.0) if of_release else MDNET_MEAN
    return ForeignWeights(
        tensors,
        mean=_average_image(path, root) or default_mean,
        roi_grid="interior" if "roialign" in types else None,
        provenance="MatConvNet file of the FDN release" if of_release else "MatConvNet file",
    )


def _load_mat(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        head = file.read(520)
    # HDF5's signature comes at once or behind MATLAB's header of 512 bytes
    if head.startswith((b"\x89HDF", b"MATLAB 7.3")) or head[512:].startswith(b"\x89HDF"):
        raise InputError(f"{str(path)!r} is a version 7.3 (HDF5) file: save it again in MATLAB with save(..., '-v7')")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise InputError("reading .mat files needs scipy: pip install 'fdn-triton[eval]'") from None
    try:
        return dict(loadmat(path, struct_as_record=True, squeeze_me=False, chars_as_strings=True))
    except Exception as error:  # scipy's parser meets damage with whatever it trips over
        raise InputError(
            f"{str(path)!r} cannot be read as a MATLAB file ({type(error).__name__}): it is truncated, "
            "damaged or of another format, get it anew"
        ) from None


def _unpack(value: Any) -> Any:
    """One level of scipy's wrapping: struct -> dict, struct array or cell -> list, char -> str."""
    if not isinstance(value, (np.ndarray, np.void)):
        return value
    if value.dtype.names is not None:
        records = [{n: record[n] for n in value.dtype.names} for record in np.ravel(value, order="F")]
        return records[0] if len(records) == 1 else records
    if value.dtype.kind == "O":
        return list(np.ravel(value, order="F"))
    if value.dtype.kind == "U" and value.size == 1:
        return str(value.reshape(-1)[0])
    return value


def _struct(value: Any) -> dict[str, Any]:
    unpacked = _unpack(value)
    return unpacked if isinstance(unpacked, dict) else {}


def _tensor(value: Any) -> Tensor | None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        return None
    # MATLAB's files are Fortran-ordered and may be big-endian; torch takes neither as it is
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _to_our_order(name: str, filters: Tensor) -> Tensor:
    if name.startswith("fc") and filters.dim() == 2:
        filters = filters[None, None]  # saved without MATLAB's singleton dimensions
    if filters.dim() != 4:
        return filters
    if name.startswith("conv"):
        return filters.permute(3, 2, 0, 1)
    # The order of inputs is known for the RoI's 3x3 grid only: any other stays 4-D, which no check accepts.
    grid = ROI_BINS if name == "fc4" else 1
    filters = filters.permute(3, 0, 1, 2)
    return filters.flatten(1) if filters.shape[1:3] == (grid, grid) else filters


def _average_image(path: Path, root: dict[str, Any]) -> tuple[float, float, float] | None:
    for holder in (_struct(root.get("meta")), root):
        image = _tensor(_struct(holder.get("normalization")).get("averageImage"))
        if image is None or image.numel() == 0:
            continue
        if image.numel() != 3 and image.shape[-1] != 3:
            raise InputError(
                f"{str(path)!r} has an averageImage of shape {list(image.shape)}: make it an RGB image or three numbers"
            )
        if not image.isfinite().all():
            raise InputError(f"{str(path)!r} has an averageImage with NaN or infinite values: get it anew")
        red, green, blue = image.double().reshape(-1, 3).mean(0).tolist()
        return red, green, blue
    return None
