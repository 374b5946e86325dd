"""From an image and boxes to the network's input: checks, size rule, bilinear resize, mean.

The short side becomes ``short_side`` unless the long side would pass ``max_side`` (the rule of Fast R-CNN, whose
whole-image convolution the paper takes over).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .errors import InputError
from .kernels import resize_subtract_mean

_LARGEST_PIXEL, _SMALLEST_PIXEL = 1e6, 1e-3  # what fp32 holds with its area, and places to a fraction of a pixel


def network_size(height: int, width: int, short_side: float, max_side: float) -> tuple[int, int]:
    """Height and width in pixels of the frame that the network sees, each at least 1."""
    scale = min(short_side / min(height, width), max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def check_image(image: NDArray[np.uint8] | Tensor) -> Tensor:
    """The image as a uint8 [H, W, 3] tensor that shares its memory where it can.

    Raises:
        InputError: not uint8, not [H, W, 3], or empty; the message says how to convert.
    """
    dtype_name = str(getattr(image, "dtype", type(image).__name__)).removeprefix("torch.")
    if dtype_name != "uint8":
        raise InputError(f"image is of type {dtype_name}: give uint8 RGB values from 0 to 255")
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"image has the shape {tuple(image.shape)}: give height x width x 3 in RGB order (cv2.cvtColor converts)"
        )
    if min(image.shape) == 0:
        raise InputError(f"image has the shape {tuple(image.shape)}: it is empty")
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.require(image, requirements=["C", "W"]))


def check_boxes(boxes_xywh: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """The boxes as [T, 4] float64.

    Raises:
        InputError: not [4] or [T, 4], not numbers, NaN or infinite, without area, or outside the frame.
    """
    try:
        boxes = np.atleast_2d(np.asarray(boxes_xywh, dtype=np.float64))
    except (TypeError, ValueError):
        raise InputError("boxes must be numbers: give x, y, w, h in pixels") from None
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) == 0:
        raise InputError(f"boxes have the shape {boxes.shape}: give one x, y, w, h or several as [T, 4]")
    for x, y, w, h in boxes:
        text = f"box {x:g},{y:g},{w:g},{h:g}"
        if not np.isfinite([x, y, w, h]).all() or max(abs(x), abs(y), abs(w), abs(h)) > _LARGEST_PIXEL:
            raise InputError(f"{text} is not finite or far too large: give x, y, w, h in pixels")
        if min(w, h) < _SMALLEST_PIXEL:
            raise InputError(f"{text} has no area: give a positive width and height")
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise InputError(f"{text} lies outside the frame of {width}x{height} pixels: give one that overlaps it")
    return boxes


def network_input(
    image: Tensor,
    size_hw: tuple[int, int],
    mean: Tensor,
    dtype: torch.dtype = torch.float32,
    part: tuple[slice, slice] | None = None,
    out: Tensor | None = None,
    channels: int = 3,
) -> Tensor:
    """Resize and subtract the mean, on the device of ``mean``.

    Args:
        image: uint8 [H, W, 3], RGB.
        size_hw: of the resized frame, pixels.
        mean: [3] per channel, of the 0..255 range.
        dtype: of the result.
        part: rows and columns of the resized frame that are wanted; None is all of it.
        out: written to instead of fresh memory, if given.
        channels: of the result; those behind the third are 0.

    Returns:
        [1, channels, h, w], channels-last in memory. Enlarging is bilinear interpolation with pixel centres at
        half-integers; shrinking widens the filter (antialiasing), so that a 4K frame keeps its texture.
    """
    return resize_subtract_mean(image.to(mean.device), size_hw, mean, dtype, part, out, channels)
