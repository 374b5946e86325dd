"""Which tensors go to the Triton and Numba kernels, and on which device Triton launches."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_DEVICES = ("cuda", "xpu")  # "cuda" is also the name of AMD's
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def runs_on_triton(tensor: Tensor) -> bool:
    """Whether there is a Triton kernel for tensors like this one; all others go through plain PyTorch."""
    if tensor.device.type not in _DEVICES or tensor.dtype not in _DTYPES:
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def runs_on_numba(tensor: Tensor) -> bool:
    """Whether there is a Numba kernel for tensors like this one; while torch traces or compiles there is none."""
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.bfloat16):
        return False
    if type(tensor) is not Tensor or torch.compiler.is_compiling():
        return False
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: make it the tensor's, where it is another."""
    device = tensor.device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        return torch.cuda.device(device)
    if device.type == "xpu" and device.index != torch.xpu.current_device():
        return torch.xpu.device(device)
    return nullcontext()
