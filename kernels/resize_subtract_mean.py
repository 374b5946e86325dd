"""From an image as decoded to a network's input: bilinear resize, mean subtraction and layout in one pass.

On each axis, with ``m = max(in, out)``, output pixel i takes input pixel j with the weight::

    w_ij = max(0, 2 m - |(2 j + 1) out - (2 i + 1) in|),  divided by the sum of the weights over the image's pixels

which is the triangle filter between pixel centres at half-integers. Enlarging, that is bilinear interpolation with the
border repeated; shrinking, the filter is as wide as the step between outputs (antialiasing), so that a 4K frame keeps
its texture. An axis of unchanged size is copied. ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``
and Pillow's BILINEAR compute the same. ::

    out[c, y, x] = sum over (i, j) of  w_yi w_xj image[i, j, c]  -  mean[c]

Source: Fast R-CNN's whole-image input, which the paper (3.1) takes over. On a GPU :mod:`.gpu.resize_subtract_mean` does
it in one launch that reads the image once and writes what the first convolution reads; on a CPU
:mod:`.cpu.resize_subtract_mean` reads only what a part of the result is made from. Deterministic. No gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import runs_on_numba, runs_on_triton

_LARGEST_SIDE_ON_GPU = 1 << 14  # the products in a weight stay below 2^31


def resize_subtract_mean(
    image: Tensor,
    size: tuple[int, int],
    mean: Tensor,
    dtype: torch.dtype = torch.float32,
    part: tuple[slice, slice] | None = None,
    out: Tensor | None = None,
    channels: int = 3,
) -> Tensor:
    """Resize an image and subtract the mean.

    Args:
        image: uint8 [H, W, 3], any strides.
        size: (h, w) of the resized image, pixels.
        mean: [3] fp32 per channel, of the 0..255 range, on the image's device.
        dtype: of the result, a floating type; sums are in at least fp32.
        part: rows and columns of the resized image that are wanted, each from start to stop; None is all of it. On a
            CPU with Numba the rest is not computed.
        out: written to instead of fresh memory, if given; of the result's shape, type and device.
        channels: of the result, 3 or more; those behind the third are 0, for convolutions that want a number of them.

    Returns:
        [1, channels, h, w], or the part; channels-last in memory, unless ``out`` is not. An image with a side above
        16384 is resized on the CPU.

    Raises:
        ValueError: wrong shapes or types, or two devices.
    """
    _check(image, size, mean, dtype)
    rows, columns = part or (slice(0, size[0]), slice(0, size[1]))
    for side, length in zip((rows, columns), size, strict=True):
        whole = isinstance(side.start, int) and isinstance(side.stop, int) and side.step in (None, 1)
        if not whole or not 0 <= side.start < side.stop <= length:
            raise ValueError(f"part must be rows and columns within {size[0]}x{size[1]}, got {rows} and {columns}")
    if channels < 3:
        raise ValueError(f"channels must be 3 or more, got {channels}")
    shape = (1, channels, rows.stop - rows.start, columns.stop - columns.start)
    if out is not None and (out.shape, out.dtype, out.device) != (shape, dtype, image.device):
        got = f"{tuple(out.shape)} of {out.dtype} on {out.device}"
        raise ValueError(f"out must be {shape} of {dtype} on {image.device}, got {got}")
    if not runs_on_triton(mean) and runs_on_numba(mean) and channels == 3:
        from .cpu.resize_subtract_mean import resize_subtract_mean as on_cpu

        if out is None:
            out = torch.empty(shape, dtype=dtype, device="cpu", memory_format=torch.channels_last)
        return on_cpu(image, size, mean, (rows, columns), out)
    resized = _whole(image, size, mean, dtype, channels)[:, :, rows, columns]
    return resized if out is None else out.copy_(resized)


def _whole(image: Tensor, size: tuple[int, int], mean: Tensor, dtype: torch.dtype, channels: int) -> Tensor:
    """All of the resized image, by Triton or PyTorch."""
    largest = max(*image.shape, *size)
    if largest <= _LARGEST_SIDE_ON_GPU and runs_on_triton(mean):
        from .gpu.resize_subtract_mean import resize_subtract_mean as on_gpu

        return on_gpu(image, size, mean, dtype, channels)
    if largest > _LARGEST_SIDE_ON_GPU and image.device.type != "cpu":
        # PyTorch shrinks so far in no GPU's shared memory.
        return resize_subtract_mean(image.cpu(), size, mean.cpu(), dtype, channels=channels).to(image.device)
    planes = image.permute(2, 0, 1)[None].float()
    resized = F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=True)
    resized = F.pad((resized - mean[:, None, None]).to(dtype), (0, 0, 0, 0, 0, channels - 3))
    return resized.contiguous(memory_format=torch.channels_last)


def resize_subtract_mean_ref(
    image: Tensor, size: tuple[int, int], mean: Tensor, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The same function as two matrix products with the weights in float64: the oracle of the tests."""
    _check(image, size, mean, dtype)
    rows, columns = (_weights(old, new, image.device) for old, new in zip(image.shape[:2], size, strict=True))
    resized = torch.einsum("yi,ijc,xj->cyx", rows, image.double(), columns)
    out = resized - mean.double()[:, None, None]
    return out.to(dtype)[None].contiguous(memory_format=torch.channels_last)


def _weights(old: int, new: int, device: torch.device) -> Tensor:
    """[new, old], rows of sum 1."""
    i, j = torch.arange(new, device=device)[:, None], torch.arange(old, device=device)
    weights = (2 * max(old, new) - ((2 * j + 1) * new - (2 * i + 1) * old).abs()).clamp(min=0).double()
    return weights / weights.sum(dim=1, keepdim=True)


def _check(image: Tensor, size: tuple[int, int], mean: Tensor, dtype: torch.dtype) -> None:
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[2] != 3 or image.numel() == 0:
        raise ValueError(f"image must be uint8 [H, W, 3] and not empty, got {tuple(image.shape)} of {image.dtype}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be two positive integers, got {size}")
    if mean.shape != (3,) or mean.dtype != torch.float32:
        raise ValueError(f"mean must be fp32 [3], got {tuple(mean.shape)} of {mean.dtype}")
    if mean.device != image.device:
        raise ValueError(f"the image is on {image.device}, the mean on {mean.device}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating type, got {dtype}")
