"""Choosing the device from its name."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .errors import InputError


def choose_device(name: str | torch.device) -> torch.device:
    """The torch device of ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: another name, or a GPU that is not there.
    """
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"device {name!r} asked for, but torch {torch.__version__} sees no GPU: use --device cpu")
        if device.index is not None and device.index >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise InputError(f"device {name!r} asked for, but the last GPU is cuda:{last}")
    return device


@lru_cache
def cpu_multiplies_bf16() -> bool:
    """Whether this is an x86 CPU with instructions for bf16; one without takes several times as long as for fp32, for
    the FC layers' products up to a hundred times."""
    probes = "_is_avx512_bf16_supported", "_is_amx_tile_supported"  # private: a release may lack them
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def convolution_dtype(name: str, device: torch.device) -> torch.dtype:
    """What ``conv_precision`` means on a device."""
    if name == "auto":
        name = "fp32" if device.type == "cpu" else "fp16"
    if name == "half":
        return feature_dtype("half", device) if device.type == "cpu" else torch.float16
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def feature_dtype(name: str, device: torch.device) -> torch.dtype:
    """What ``feature_precision`` means on a device."""
    wanted = name == "bf16" or (name == "half" and cpu_multiplies_bf16())
    return torch.bfloat16 if wanted and device.type == "cpu" else torch.float32


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; from the host to a GPU through pinned memory: the host does not wait for that."""
    if device.type == "cpu":
        return tensor.to(device)  # what comes from a GPU is read next: that has to be waited for
    pins = device.type == "cuda" and tensor.device.type == "cpu"
    return (tensor.contiguous().pin_memory() if pins else tensor).to(device, non_blocking=True)
