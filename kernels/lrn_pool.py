"""ReLU, local response normalisation across channels and max-pooling in one pass.

::

    r = max(x, 0)
    d[c] = k + alpha * sum over the `size` channels around c of r^2
    out = max_pool2d(r / d^beta, pool, stride, padding)

Source: paper section 3.2 (VGG-M's norm and pool layers). ``alpha`` multiplies the plain sum, as in MatConvNet;
PyTorch's ``LocalResponseNorm(size, alpha * size, beta, k)`` is the same function.

On a GPU :mod:`.gpu.lrn_pool` does it in one pass over the map, for windows of up to 5 channels. On a CPU the map is
worked through in bands of rows, in memory that is kept and stays in the cache. In both ways the normalised map, four
times as large as the result, is never written out. Deterministic. With a gradient to compute, the reference is used
instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import runs_on_triton
from .scratch import scratch

_BAND_BYTES = 2 << 20  # of the input, per band


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
        alpha, beta, k: of the normalisation; ``alpha`` is not divided by ``size``.
        pool, stride: of the pooling, cells.
        padding: of the pooling, cells on every side, or (left, right, top, bottom) for the window of a larger map
            whose border it touches on some sides only; at most half of ``pool``.

    Returns:
        [N, C, (H + top + bottom - pool) // stride + 1, ...] of x's dtype, channels-last in memory; empty where N or C
        is 0. Gradients flow to ``x``; NaN and infinity reach the channels and windows that hold them, as in PyTorch.

    Raises:
        ValueError: wrong shapes or parameters.
    """
    left, right, above, below = _check(x, size, pool, stride, padding)
    if torch.is_grad_enabled() and x.requires_grad:
        return lrn_max_pool_ref(x, size, alpha, beta, k, pool, stride, padding)
    n_images, channels, height, width = x.shape
    out_h = (height + above + below - pool) // stride + 1
    out_w = (width + left + right - pool) // stride + 1
    if size <= 5 and runs_on_triton(x):
        from .gpu.lrn_pool import lrn_max_pool as on_gpu

        return on_gpu(x, (out_h, out_w), size, alpha, beta, k, pool, stride, left, above)
    rows = x.permute(0, 2, 3, 1).contiguous()  # [N, H, W, C], a view of a channels-last map
    out = torch.empty((n_images, out_h, out_w, channels), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out.permute(0, 3, 1, 2)
    band_row_bytes = n_images * stride * width * channels * x.element_size()
    step = max(1, _BAND_BYTES // band_row_bytes) if x.device.type == "cpu" else out_h
    for top in range(0, out_h, step):
        bottom = min(top + step, out_h)
        first, last = top * stride - above, (bottom - 1) * stride - above + pool
        normalised = _lrn(rows[:, max(first, 0) : min(last, height)], size, alpha, beta, k)
        of_rows = scratch("pooled rows", (n_images, bottom - top, width, channels), normalised)
        _pool(normalised, 1, pool, stride, max(-first, 0), out=of_rows)
        of_band = scratch("pooled", (n_images, bottom - top, out_w, channels), normalised)
        _pool(of_rows, 2, pool, stride, left, out=of_band)
        out[:, top:bottom] = of_band
    return out.permute(0, 3, 1, 2)


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
    sides = _check(x, size, pool, stride, padding)
    # At least fp32: squares overflow fp16, and on a CPU the layer has no half types.
    positive = x.relu().to(torch.promote_types(x.dtype, torch.float32))
    normalised = F.local_response_norm(positive, size, alpha * size, beta, k).to(x.dtype)
    return F.max_pool2d(F.pad(normalised, sides, value=float("-inf")), pool, stride)


def _check(
    x: Tensor, size: int, pool: int, stride: int, padding: int | tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """The padding as (left, right, top, bottom)."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be [N, C, H, W] of a floating type, got {tuple(x.shape)} of {x.dtype}")
    if pool < 1 or stride < 1:
        raise ValueError(f"pool and stride must be positive, got {pool} and {stride}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, got {size}")
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    if len(sides) != 4 or min(sides) < 0 or max(sides) * 2 > pool:
        raise ValueError(f"padding must lie between 0 and half of pool, got padding {padding} and pool {pool}")
    height, width = x.shape[2:]
    if min(height, width) < 1 or height + sides[2] + sides[3] < pool or width + sides[0] + sides[1] < pool:
        raise ValueError(f"a map of {height}x{width} cells holds no window of {pool}x{pool} with padding {padding}")
    return sides


def _lrn(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """[..., C] -> [..., C] in at least fp32: relu(x) / (k + alpha * neighbouring sum of squares) ^ beta.

    On a CPU the result is scratch, overwritten by the next call.
    """
    channels, radius = x.shape[-1], size // 2
    dtype = torch.promote_types(x.dtype, torch.float32)  # squares overflow fp16 above 255
    like = x.new_empty(0, dtype=dtype)
    positive = scratch("positive", x.shape, like)
    if x.dtype == dtype:
        torch.clamp(x, min=0, out=positive)
    else:
        positive.copy_(x).clamp_(min=0)
    # One long row of pixels with `radius` numbers between them, so that sums over channels are sums of shifted rows.
    # Every number is a share of k plus alpha times a square: the sum over a window is the whole denominator.
    share = k / size
    pixels, width = x.shape[:-1], channels + radius
    count = positive.numel() // channels * width
    row = scratch("squares", (count + 2 * radius,), like)
    row[:radius] = row[count + radius :] = share
    squares = row[radius : radius + count].view(*pixels, width)
    squares[..., channels:] = share
    torch.addcmul(like.new_tensor(share), positive, positive, value=alpha, out=squares[..., :channels])
    denominator = row
    if radius:
        # Pairs and one single: fewer sums than one by one.
        pairs = torch.add(row[:-1], row[1:], out=scratch("pairs", (len(row) - 1,), like))
        denominator = scratch("denominator", (count,), like)
        torch.add(row[2 * radius :], pairs[:count], out=denominator)
        for shift in range(2, 2 * radius, 2):
            denominator += pairs[shift : shift + count]
    if beta == 0.75:  # d^-0.75 = 1 / sqrt(d * sqrt(d)): no pow
        denominator.mul_(torch.sqrt(denominator, out=scratch("root", denominator.shape, like))).rsqrt_()
    else:
        denominator.pow_(-beta)
    return positive.mul_(denominator.view(*pixels, width)[..., :channels])


def _pool(x: Tensor, dim: int, pool: int, stride: int, before: int, out: Tensor) -> None:
    """Maximum along one axis of x [N, H, W, C], none of it negative, with zeros ``before`` and behind it."""
    size, outputs = x.shape[dim], out.shape[dim]
    taps = []  # of each place in the window: the outputs whose window has it on the map, and what they see there
    for place in range(pool):
        first = max(0, -((place - before) // stride))
        last = min(outputs, (size - 1 + before - place) // stride + 1)
        if first < last:
            start = first * stride - before + place
            seen = x.narrow(dim, start, (last - first - 1) * stride + 1)
            taps.append((first, last, seen[(slice(None),) * dim + (slice(None, None, stride),)]))
    taps.sort(key=lambda tap: tap[0] - tap[1])  # those with most outputs first
    if len(taps) > 1 and all(last - first == outputs for first, last, _ in taps[:2]):
        torch.maximum(taps[0][2], taps[1][2], out=out)
        taps = taps[2:]
    else:
        out.zero_()
    for first, last, seen in taps:
        part = out.narrow(dim, first, last - first)
        torch.maximum(part, seen, out=part)
