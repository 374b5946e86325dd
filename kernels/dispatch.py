"""Which tensors go to the Triton and Numba kernels, and on which device Triton launches."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
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
    """Whether there is a Numba kernel for tensors like this one; not while torch traces, compiles or transforms."""
    if tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
        return False
    return type(tensor) is Tensor and not is_watched() and _has_numba()


def is_watched() -> bool:
    """Whether somebody looks at torch's operations, of which a Numba kernel is none."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


@lru_cache
def _has_numba() -> bool:
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
