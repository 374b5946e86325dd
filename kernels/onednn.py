"""What oneDNN does faster on a CPU than PyTorch's own functions, by the operators that ``torch.compile`` makes use of.

PyTorch gives products of fp32 matrices to MKL, which leaves half of the vectors' width unused on AMD's CPUs: on an EPYC
of the fifth generation oneDNN is 2.2 times as fast (one thread and two, 2026-11-26). Convolutions are oneDNN's already,
but PyTorch lays out the filters anew in each call.

The operators are private ones of PyTorch's: where a release lacks them, its own functions are called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dispatch import is_watched

_WORTHWHILE = 1 << 20  # multiplications: so many take both 20 to 40 microseconds there, fewer take MKL less
_USUAL_SIDE = 32  # outputs along an axis that the filters' layout is made for; it serves others


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, faster for large fp32 matrices where oneDNN :func:`multiplies_faster`.

    Args:
        x: [n, in].
        weight: [out, in]; either may be a transposed view.
        bias: [out].

    Returns:
        ``x @ weight.T + bias``, [n, out].
    """
    if not (len(x) * weight.numel() >= _WORTHWHILE and multiplies_faster() and _are_plain(x, weight, bias)):
        return F.linear(x, weight, bias)
    if bias is not None:
        bias = bias.contiguous()  # the operator does not look at its strides
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`linear` of S matrices with a weight and a bias each: [S, n, in] -> [S, n, out]."""
    if len(x) == 1 and x.device.type == "cpu":  # one plain product is faster than a batch of one
        return linear(x[0], weight[0], None if bias is None else bias[0])[None]
    if bias is None:
        return x @ weight.transpose(1, 2)
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


@lru_cache
def multiplies_faster() -> bool:
    """Whether MKL leaves this CPU's vectors half empty; not where PyTorch cannot tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    wide_amd = "amd" in str(capabilities.get("cpu_name", "")).lower() and bool(capabilities.get("avx512_f"))
    return wide_amd and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _are_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether they are matrices of fp32 on a CPU that fit together, and nobody asks for more than their product."""
    given = [x, weight] if bias is None else [x, weight, bias]
    plain = all(type(each) is Tensor and each.device.type == "cpu" and each.dtype == torch.float32 for each in given)
    fit = x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[1]
    fit = fit and (bias is None or bias.shape == weight.shape[:1])
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in given)
    return plain and fit and not learns and not is_watched() and not torch.is_autocast_enabled("cpu")


class PackedConvolution:
    """A convolution without padding whose filters are laid out once; for inference.

    Args:
        convolution: one that :meth:`fits`; its padding is left to the caller. The filters are taken as they are now.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        weight, axes = convolution.weight.detach(), (convolution.kernel_size, convolution.stride, convolution.dilation)
        self._convolution = convolution
        self._bias = None if convolution.bias is None else convolution.bias.detach()
        self._geometry = [0, 0], list(convolution.stride), list(convolution.dilation), convolution.groups
        sides = [(_USUAL_SIDE - 1) * step + (kernel - 1) * apart + 1 for kernel, step, apart in zip(*axes, strict=True)]
        size = [1, weight.shape[1] * convolution.groups, *sides]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._geometry, size)

    def __reduce__(self) -> tuple[Callable[[nn.Conv2d], PackedConvolution], tuple[nn.Conv2d]]:
        """Copied and pickled as the convolution: filters in oneDNN's layout cannot be."""
        return PackedConvolution, (self._convolution,)

    @staticmethod
    def fits(convolution: nn.Conv2d) -> bool:
        """Whether it is one that does not learn, of fp32 on a CPU, or of bf16 where PyTorch has oneDNN multiply it."""
        weight, operators = convolution.weight, ("_reorder_convolution_weight", "_convolution_pointwise")
        if weight.device.type != "cpu" or weight.requires_grad or not torch.backends.mkldnn.is_available():
            return False
        known = all(hasattr(torch.ops.mkldnn, name) for name in operators)
        if weight.dtype == torch.bfloat16:  # elsewhere the operator refuses it
            return known and getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)()
        return known and weight.dtype == torch.float32

    def __call__(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of the filters' type, best channels-last in memory, to what the convolution makes of it."""
        step = self._convolution.stride[1]
        one_column = x.shape[3] - self._convolution.dilation[1] * (self._convolution.kernel_size[1] - 1) <= step
        if one_column and x.dtype == torch.bfloat16:
            # oneDNN leaves a single column unwritten on CPUs with AMX (conv1 and conv2; PyTorch 2.11, 2026-11-26).
            return self(F.pad(x, (0, step)))[..., :1].contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *self._geometry, "none", [], "")
