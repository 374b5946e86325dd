"""The network's trained parameters: reading, writing, and random ones for a start without any.

Tensors have the names ``conv1.weight``, ``conv1.bias``, ... up to ``conv3`` (``conv5`` in the variant), and
either all or none of ``fc4`` (``fc4`` and ``fc5`` with three FC layers). The last layer, ``fc6``, is fresh
for every target and belongs to no file. Convolutions are [out, in, kernel height, kernel width].
``fc4.weight`` is [512, 4608]; its inputs are the 3x3x512 RoI features in the order **(y, x, channel)**:
channels last.

The own format is safetensors with one metadata entry, ``fdn_triton``: a JSON object with ``format_version``,
``mean``, ``feature_scale``, ``sampling_ratio``, ``roi_grid``, ``provenance`` and ``fc_input_order``. One entry, because
safetensors writes several in random order, and equal weights shall give equal files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from .config import ROI_BINS, NetworkConfig
from .errors import InputError
from .foreign_weights import read_checkpoint, read_matconvnet

UNTRAINED = "untrained"
UNTRAINED_WARNING = (
    "these weights are untrained: only distinct targets are followed well; leave --weights (weights=) out to have "
    "trained ones"
)
SHIPPED = "fdn"
DEFAULT_WEIGHTS = SHIPPED
"""What ``load_weights`` is given where the user names nothing: the trained weights that come with the package."""
_SHIPPED_FILE = Path(__file__).with_suffix("") / "fdn.safetensors"

FORMAT_VERSION = 1
FC_INPUT_ORDER = "y,x,channel"
IMAGENET_MEAN = (123.68, 116.779, 103.939)
"""Mean RGB pixel of ImageNet, 0..255."""

_CONV_SHAPES = ((96, 3, 7, 7), (256, 96, 5, 5), (512, 256, 3, 3), (512, 512, 3, 3), (512, 512, 3, 3))
_FC_WIDTH = 512
_UNTRAINED_FEATURE_STD = 10.0
"""Of the size of VGG-M's features: the learning rates of fine-tuning suit no other."""
_KINDS = {".safetensors": "own", ".mat": "mat", ".pth": "torch", ".pt": "torch"}
_RATIOS = (None, 1, 2, 3)
_GRIDS = (None, "midpoint", "interior")


@dataclass(frozen=True, eq=False)
class NetworkWeights:
    """A network's parameters and what belongs to them."""

    name: str
    """``fdn``, ``untrained`` or the file's name."""
    tensors: Mapping[str, Tensor]
    """float32 on the CPU, contiguous; names, shapes and orders as the module's docstring says."""
    mean: tuple[float, float, float]
    """RGB mean subtracted from the 0..255 input."""
    feature_scale: float
    """Factor on the last convolution's output (after its ReLU); 1 for files of other projects."""
    sampling_ratio: Literal[1, 2, 3] | None
    """Samples per bin and axis these were trained with; None: not fixed."""
    roi_grid: Literal["midpoint", "interior"] | None
    """``midpoint`` or ``interior``: the RoI samples' grid these were trained with; None: not fixed."""
    provenance: str
    """Where they come from, one line."""
    sha256: str
    """Of the file; for ``untrained`` of the tensors' bytes in the sorted order of their names."""


def trained_sampling_ratio(ratio: Literal["auto", 1, 2, 3], weights: NetworkWeights) -> Literal[1, 2, 3]:
    """Samples per bin and axis: where ``auto``, what the weights were trained with, or the paper's 2."""
    return (weights.sampling_ratio or 2) if ratio == "auto" else ratio


def network_as_trained(network: NetworkConfig, weights: NetworkWeights) -> NetworkConfig:
    """The network with what it leaves to the weights: ``auto`` becomes what these were trained with, or the paper's."""
    grid = network.roi_grid
    return replace(
        network,
        sampling_ratio=trained_sampling_ratio(network.sampling_ratio, weights),
        roi_grid=(weights.roi_grid or "midpoint") if grid == "auto" else grid,
    )


def tensor_shapes(network: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors the network takes from a file, in the order of the layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, shape in enumerate(_CONV_SHAPES[: network.conv_layers], start=1):
        shapes |= {f"conv{i}.weight": shape, f"conv{i}.bias": shape[:1]}
    inputs = ROI_BINS**2 * shape[0]
    for i in range(4, 3 + network.fc_layers):
        shapes |= {f"fc{i}.weight": (_FC_WIDTH, inputs), f"fc{i}.bias": (_FC_WIDTH,)}
        inputs = _FC_WIDTH
    return shapes


def load_weights(name_or_path: str | Path, network: NetworkConfig) -> NetworkWeights:
    """Reads the parameters of a network, tensor for tensor, executing nothing that a file contains.

    A file of another project without FC layers (VGG-M) may have more convolutions than the network, which are
    left out; every other surplus tensor is refused.

    Args:
        name_or_path: ``"fdn"`` for the package's own (3 convolutions, 3 FC layers; weights/README.md says how they were
            made), ``"untrained"`` for :func:`untrained_weights`, or the path of a ``.safetensors`` file of
            :func:`save_weights`, a MatConvNet ``.mat`` file (VGG-M, MDNet, the FDN release) or a py-MDNet or
            RT-MDNet ``.pth`` or ``.pt`` file. A file with another suffix is recognised by its first bytes.
        network: the network they are for: ``conv_layers`` and ``fc_layers`` count.

    Returns:
        Tensors converted to float32, whatever floating-point type is stored.

    Raises:
        InputError: the file is missing, unreadable, damaged, of no known format, or not of this network (each
            missing, surplus and misshapen tensor is named), or has NaN or infinite values; or it is a
            ``.mat`` file and scipy is missing.
    """
    if name_or_path == UNTRAINED:
        return untrained_weights(network)
    shipped = name_or_path == SHIPPED
    if shipped and (network.conv_layers, network.fc_layers) != (3, 3):
        raise InputError(
            f"the weights {SHIPPED!r} are of 3 convolutions and 3 FC layers, not of {network.conv_layers} and "
            f"{network.fc_layers}: give 'untrained', or a file made for this network"
        )
    path = _SHIPPED_FILE if shipped else Path(name_or_path)
    try:
        sha256, kind = _sha256(path), _kind(path)
    except OSError as error:
        raise InputError(
            f"cannot read {str(path)!r}: {error.strerror}: give the path of a .safetensors, .mat or .pth "
            "file, 'fdn' or 'untrained'"
        ) from None
    if kind == "own":
        return _load_own(path, network, sha256, SHIPPED if shipped else path.name)
    foreign = read_matconvnet(path) if kind == "mat" else read_checkpoint(path)
    found = foreign.tensors
    if not any(name.startswith("fc") for name in found):
        # a classifier's trunk, whose first layers serve; FC layers belong to exactly those convolutions
        extra = [f"conv{i}.{part}" for i in range(network.conv_layers + 1, 6) for part in ("weight", "bias")]
        found = {name: tensor for name, tensor in found.items() if name not in extra}
    return NetworkWeights(
        name=path.name,
        tensors=_checked(path, network, found, foreign.lacks),
        mean=foreign.mean,
        feature_scale=1.0,
        sampling_ratio=None,
        roi_grid=foreign.roi_grid,
        provenance=foreign.provenance,
        sha256=sha256,
    )


def save_weights(path: str | Path, weights: NetworkWeights, dtype: torch.dtype = torch.float32) -> None:
    """Writes the own format, atomically: at every moment ``path`` is as it was or complete.

    Tensors are stored as ``dtype``; fp16 halves the file and keeps three digits. The same weights give the same bytes.
    ``name`` and ``sha256`` are not stored: they are the file's.

    Raises:
        InputError: the path does not end in ``.safetensors`` or cannot be written, or a tensor has NaN or
            infinite values, or another field holds what :func:`load_weights` would refuse.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"weights are written as safetensors: let {str(path)!r} end in .safetensors")
    fields = {
        "format_version": FORMAT_VERSION,
        "mean": [float(value) for value in weights.mean],
        "feature_scale": float(weights.feature_scale),
        "sampling_ratio": weights.sampling_ratio,
        "roi_grid": weights.roi_grid,
        "provenance": " ".join(weights.provenance.split()),
        "fc_input_order": FC_INPUT_ORDER,
    }
    metadata = json.dumps(fields, sort_keys=True)
    _parse_metadata(path, metadata)
    tensors = {
        name: _require_finite(path, name, tensor.detach().cpu().to(dtype)).to(dtype)
        for name, tensor in weights.tensors.items()
    }
    content = to_safetensors(tensors, {"fdn_triton": metadata})
    # beside the target, because a rename is atomic on one file system only
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}: give another path") from None
    finally:
        temporary.unlink(missing_ok=True)


def untrained_weights(network: NetworkConfig, seed: int = 0) -> NetworkWeights:
    """Random convolutions (Kaiming-normal by fan-in, zero biases) without FC tensors.

    ``feature_scale`` gives the last convolution's ReLU output a standard deviation of 10 on a synthetic image
    with the 1/f spectrum of photographs. Draws from a generator of its own; equal seeds give equal tensors.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in tensor_shapes(network).items():
        if name.startswith("fc"):
            continue
        if name.endswith("bias"):
            tensors[name] = torch.zeros(shape, dtype=torch.float32, device="cpu")
        else:
            noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
            tensors[name] = noise * math.sqrt(2 / math.prod(shape[1:]))
    image = _synthetic_image(generator)
    std = _trunk(tensors, image - torch.tensor(IMAGENET_MEAN, device="cpu").view(3, 1, 1)).std().item()
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return NetworkWeights(
        name=UNTRAINED,
        tensors=tensors,
        mean=IMAGENET_MEAN,
        # rounded, so that it does not depend on the order in which a machine adds
        feature_scale=float(f"{_UNTRAINED_FEATURE_STD / std:.4g}"),
        sampling_ratio=None,
        roi_grid=None,
        provenance=f"untrained: Kaiming-normal convolutions, seed {seed}",
        sha256=digest.hexdigest(),
    )


def _synthetic_image(generator: torch.Generator, size: int = 224) -> Tensor:
    """[3, size, size], 0..255: noise with an amplitude of 1/frequency about the mean pixel, deviation 60."""
    noise = torch.randn(3, size, size, generator=generator, dtype=torch.float32, device="cpu")
    rows = torch.fft.fftfreq(size, dtype=torch.float32, device="cpu")[:, None]
    columns = torch.fft.rfftfreq(size, dtype=torch.float32, device="cpu")
    frequency = torch.hypot(rows, columns)
    frequency[0, 0] = math.inf  # no constant part: the mean is set below
    image = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(size, size))
    mean = torch.tensor(IMAGENET_MEAN, device="cpu").view(3, 1, 1)
    return (image * (60 / image.std()) + mean).clamp(0, 255)


@torch.no_grad()
def _trunk(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The convolutions in plain torch, for calibration only: :mod:`fdn_triton.backbone` owns the trunk."""
    x = x[None]
    for i in range(1, len(tensors) // 2 + 1):
        stride, pad = {1: (2, 3), 2: (2, 2)}.get(i, (1, 1))
        x = F.conv2d(x, tensors[f"conv{i}.weight"], tensors[f"conv{i}.bias"], stride, pad).relu_()
        if i <= 2:
            x = F.max_pool2d(F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2), 3, stride=2, padding=1)
    return x


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _kind(path: Path) -> str:
    if kind := _KINDS.get(path.suffix.lower()):
        return kind
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":  # safetensors: behind eight bytes of length, which may look like anything
        return "own"
    if head.startswith((b"MATLAB", b"\x89HDF")):
        return "mat"
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip, or a pickle as torch wrote before version 1.6
        return "torch"
    raise InputError(f"{str(path)!r} is of no known format: give a .safetensors, .mat, .pth or .pt file")


def _load_own(path: Path, network: NetworkConfig, sha256: str, name: str) -> NetworkWeights:
    wanted = tensor_shapes(network)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            stored = (file.metadata() or {}).get("fdn_triton")
            # Cloned, because the handle maps the file, which may be overwritten later. Of what is not wanted
            # the shape is enough: the file may be a huge one of something else.
            tensors = {
                name: file.get_tensor(name).clone()
                if name in wanted
                else torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118  the handle is no mapping
            }
    except SafetensorError as error:
        raise InputError(
            f"{str(path)!r} cannot be read as safetensors ({' '.join(str(error).split())}): it is truncated, "
            "damaged or of another format, get it anew"
        ) from None
    if stored is None:
        tensors = {name: tensor for name, tensor in tensors.items() if name in wanted}
        _checked(path, network, tensors, "it has no 'fdn_triton' metadata, which save_weights writes")
    fields = _parse_metadata(path, str(stored))
    return NetworkWeights(name=name, tensors=_checked(path, network, tensors), sha256=sha256, **fields)


def _parse_metadata(path: Path, stored: str) -> dict[str, Any]:
    """Fields of :class:`NetworkWeights`."""
    version, valid = None, False
    try:
        fields = json.loads(stored)
        version = fields["format_version"]
        red, green, blue = (float(value) for value in fields["mean"])
        scale, grid = float(fields["feature_scale"]), fields["roi_grid"]
        ratio = fields.get("sampling_ratio")  # which earlier files do not have
        provenance = " ".join(str(fields["provenance"]).split())
        finite = all(map(math.isfinite, (red, green, blue, scale)))
        valid = version == FORMAT_VERSION and fields["fc_input_order"] == FC_INPUT_ORDER
        valid = valid and finite and scale > 0 and grid in _GRIDS
        valid = valid and ratio in _RATIOS and (ratio is None or type(ratio) is int)  # JSON's true and 1.0 equal 1
    except (ValueError, TypeError, KeyError):
        pass
    if not valid:
        raise InputError(
            f"{str(path)!r} has metadata of format version {version!r} that cannot be used; this release "
            f"reads version {FORMAT_VERSION} with mean (three numbers), feature_scale (above 0), sampling_ratio "
            "(1, 2, 3 or null), roi_grid (midpoint, interior or null), provenance and fc_input_order "
            f"({FC_INPUT_ORDER}): update fdn-triton, or write the file anew with save_weights"
        )
    return {
        "mean": (red, green, blue),
        "feature_scale": scale,
        "sampling_ratio": ratio,
        "roi_grid": grid,
        "provenance": provenance,
    }


def check_weights(weights: NetworkWeights, network: NetworkConfig) -> None:
    """Make sure that the weights are this network's.

    Raises:
        InputError: names each missing, surplus or misshapen tensor, or one with NaN or infinite values.
    """
    _checked(Path(weights.name), network, weights.tensors)


def _checked(
    path: Path, network: NetworkConfig, tensors: Mapping[str, Tensor], lacks: str | None = None
) -> dict[str, Tensor]:
    """The tensors as float32, in the order of the layers, if they are exactly the network's."""
    shapes = tensor_shapes(network)
    has_fc = any(name.startswith("fc") for name in tensors)
    problems = [lacks] if lacks else []
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            problems.append(f"{name} is {list(tensor.shape)}, expected {list(shape)}")
        elif not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_meta:
            problems.append(f"{name} is no dense tensor of floating-point numbers but {tensor.dtype}")
    missing = [name for name in shapes if name not in tensors and (has_fc or name.startswith("conv"))]
    if missing:
        problems.append(f"missing {', '.join(missing)}")
    surplus = [f"{name!r} {list(tensors[name].shape)}" for name in sorted(tensors) if name not in shapes]
    if surplus:
        problems.append(f"unexpected {', '.join(surplus)}")
    if problems:
        raise InputError(
            f"{str(path)!r} is not weights of this network (conv_layers={network.conv_layers}, "
            f"fc_layers={network.fc_layers}): {'; '.join(problems)}: give a file made for this network"
        )
    return {name: _require_finite(path, name, tensors[name]) for name in shapes if name in tensors}


def _require_finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    """The tensor as float32, contiguous; a float64 value beyond float32 counts as infinite."""
    tensor = tensor.to(torch.float32).contiguous()
    bad = tensor.numel() - int(tensor.isfinite().sum())
    if bad:
        raise InputError(
            f"{str(path)!r}: {name} has {bad} NaN or infinite values: the file is damaged or its training "
            "diverged, use another one"
        )
    return tensor
