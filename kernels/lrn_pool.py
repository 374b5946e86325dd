"""ReLU, local response normalisation across channels and max-pooling in one pass.

::

    r = max(x, 0)
    d[c] = k + alpha * sum over the `size` channels around c of r^2
    out = max_pool2d(r / d^beta, pool, stride, padding)

Source: paper section 3.2 (VGG-M's norm and pool layers). ``alpha`` multiplies the plain sum, as in MatConvNet;
PyTorch's ``LocalResponseNorm(size, alpha * size, beta, k)`` is the same function.

On a GPU :mod:`.gpu.lrn_pool` and on a CPU :mod:`.cpu.lrn_pool` do it in one pass over the map, so that the normalised
map, four times as large as the result, is never written out. Deterministic. With a gradient to compute, and where
there is neither Triton nor Numba, PyTorch's layers do it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import runs_on_numba, runs_on_triton

_MOST_CHANNELS_ON_GPU = 5  # in the window


def lrn_max_pool(
    x: Tensor,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    pool: int = 3,
    stride: int = 2,
    padding: int | tuple[int, int, int, int] = 1,
) -> Tensor:
    """ReLU, then LRN over ``size`` channels, then max-pooling.

    Args:
        x: [N, C, H, W], a floating type; channels-last is read without a copy.
        size: channels in the window, odd.
        alpha, beta, k: of the normalisation; ``alpha`` is not divided by ``size``; it and ``k`` are not negative.
        pool, stride: of the pooling, cells.
        padding: of the pooling, cells on every side, or (left, right, top, bottom) for the window of a larger map
            whose border it touches on some sides only; at most half of ``pool``.

    Returns:
        [N, C, (H + top + bottom - pool) // stride + 1, ...] of x's dtype, channels-last in memory; empty where N or C
        is 0. Gradients flow to ``x``; NaN and infinity reach the channels and windows that hold them, as in PyTorch.

    Raises:
        ValueError: wrong shapes or parameters.
    """
    left, right, above, below = _check(x, size, alpha, k, pool, stride, padding)
    if torch.is_grad_enabled() and x.requires_grad:
        return lrn_max_pool_ref(x, size, alpha, beta, k, pool, stride, padding)
    height, width = x.shape[2:]
    out_h = (height + above + below - pool) // stride + 1
    out_w = (width + left + right - pool) // stride + 1
    if size <= _MOST_CHANNELS_ON_GPU and runs_on_triton(x):
        from .gpu.lrn_pool import lrn_max_pool as on_gpu

        return on_gpu(x, (out_h, out_w), size, alpha, beta, k, pool, stride, left, above)
    if runs_on_numba(x):
        from .cpu.lrn_pool import lrn_max_pool as on_cpu

        return on_cpu(x, (out_h, out_w), size, alpha, beta, k, pool, stride, left, above)
    out = lrn_max_pool_ref(x, size, alpha, beta, k, pool, stride, padding)
    return out.contiguous(memory_format=torch.channels_last)


def lrn_max_pool_ref(
    x: Tensor,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    pool: int = 3,
    stride: int = 2,
    padding: int | tuple[int, int, int, int] = 1,
) -> Tensor:
    """The same function from PyTorch's own layers, differentiable: the oracle of the tests."""
    sides = _check(x, size, alpha, k, pool, stride, padding)
    # At least fp32: squares overflow fp16, and on a CPU the layer has no half types.
    positive = x.relu().to(torch.promote_types(x.dtype, torch.float32))
    normalised = F.local_response_norm(positive, size, alpha * size, beta, k).to(x.dtype)
    return F.max_pool2d(F.pad(normalised, sides, value=float("-inf")), pool, stride)


def _check(
    x: Tensor, size: int, alpha: float, k: float, pool: int, stride: int, padding: int | tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """The padding as (left, right, top, bottom)."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be [N, C, H, W] of a floating type, got {tuple(x.shape)} of {x.dtype}")
    if pool < 1 or stride < 1:
        raise ValueError(f"pool and stride must be positive, got {pool} and {stride}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, got {size}")
    if not (alpha >= 0 and k >= 0):  # a denominator below 0 would make numbers negative, and the pooling counts on it
        raise ValueError(f"alpha and k must not be negative, got {alpha} and {k}")
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    if len(sides) != 4 or min(sides) < 0 or max(sides) * 2 > pool:
        raise ValueError(f"padding must lie between 0 and half of pool, got padding {padding} and pool {pool}")
    height, width = x.shape[2:]
    if min(height, width) < 1 or height + sides[2] + sides[3] < pool or width + sides[0] + sides[1] < pool:
        raise ValueError(f"a map of {height}x{width} cells holds no window of {pool}x{pool} with padding {padding}")
    return sides
