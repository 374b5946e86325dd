"""What oneDNN does faster on a CPU than PyTorch's own functions, by the operators that ``torch.compile`` makes use of.

PyTorch gives products of fp32 matrices to MKL, which leaves half of the vectors' width unused on CPUs of other makers
than Intel: on an AMD EPYC of the fifth generation oneDNN is 2.2 times as fast. Convolutions are oneDNN's already, but
PyTorch lays out the filters anew in each call.

The operators are private ones of PyTorch's: where a release lacks them, its own functions are called.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WORTHWHILE = 1 << 20  # multiplications: smaller products are done sooner than oneDNN has prepared for theirs


@lru_cache
def multiplies_faster() -> bool:
    """Whether MKL leaves this CPU's vectors half empty; not where PyTorch cannot tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    other_maker = "intel" not in str(capabilities.get("cpu_name", "intel")).lower()
    return other_maker and bool(capabilities.get("avx512_f")) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, faster for large fp32 matrices where oneDNN :func:`multiplies_faster`.

    Args:
        x: [n, in].
        weight: [out, in]; either may be a transposed view.
        bias: [out].

    Returns:
        ``x @ weight.T + bias``, [n, out].
    """
    plain = type(x) is Tensor and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    large = len(x) * weight.numel() >= _WORTHWHILE
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not (plain and large and not learns and multiplies_faster()):
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class PackedConvolution:
    """A convolution without padding whose filters are laid out once; for inference.

    Args:
        convolution: one that :meth:`fits`; its padding is left to the caller. The filters are taken as they are now.
    """

    _USUAL_SIDE = 32  # outputs; the layout is made for an input that gives so many along each axis, and serves others

    def __init__(self, convolution: nn.Conv2d) -> None:
        weight, kernel, stride = convolution.weight.detach(), convolution.kernel_size, convolution.stride
        self._bias = None if convolution.bias is None else convolution.bias.detach()
        self._geometry = [0, 0], list(stride), list(convolution.dilation), convolution.groups
        sides = [self._USUAL_SIDE * step + size - step for step, size in zip(stride, kernel, strict=True)]
        size = [1, weight.shape[1] * convolution.groups, *sides]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._geometry, size)

    @staticmethod
    def fits(convolution: nn.Conv2d) -> bool:
        """Whether it is one of fp32 or bf16 on a CPU, and this PyTorch has the operators."""
        weight, operators = convolution.weight, ("_reorder_convolution_weight", "_convolution_pointwise")
        known = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)
        return known and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of the filters' type, best channels-last in memory, to what the convolution makes of it."""
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *self._geometry, "none", [], "")
