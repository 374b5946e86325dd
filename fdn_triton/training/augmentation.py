"""Training images changed: random crops of them, mirrored, lit and coloured anew; and frames blurred as by motion."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_SMALLEST_AREA = 0.25  # of the image
_ASPECT = 4 / 3
_LIGHT = 0.3
_GREY = 0.1  # share of views without colours: many videos have none
_LUMA = (0.299, 0.587, 0.114)


def random_views(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One random view of each image.

    Args:
        pixels: [N, 3, h, w] uint8 or float, 0..255.
        side: pixels, of the views.
        generator: of all draws, on the device of the images.

    Returns:
        [N, 3, side, side] fp32, 0..255.
    """
    n, device = len(pixels), pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=device).uniform_(low, high, generator=generator)

    area, aspect = uniform(_SMALLEST_AREA, 1), _ASPECT ** uniform(-1, 1)
    size = torch.stack((area * aspect, area / aspect), dim=1).sqrt().clamp(max=1)  # [N, 2]
    shift = (1 - size) * uniform(-1, 1, 2)
    mirrored = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = size[:, 0] * mirrored, size[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
    views = F.grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)

    grey = (views * views.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    colour = torch.where(uniform(0, 1) < _GREY, 0.0, uniform(1 - _LIGHT, 1 + _LIGHT))[:, None, None, None]
    views = grey + (views - grey) * colour
    middle = views.mean(dim=(1, 2, 3), keepdim=True)
    contrast, light = uniform(1 - _LIGHT, 1 + _LIGHT, 1, 1, 1), uniform(1 - _LIGHT, 1 + _LIGHT, 1, 1, 1)
    return ((views - middle) * contrast + middle * light).clamp(0, 255)


def motion_blur(pixels: NDArray[np.uint8], length: float, angle: float) -> NDArray[np.uint8]:
    """An image as it looks when all of it moves that far along a line while the shutter is open.

    Args:
        pixels: [H, W, 3].
        length: pixels; less than 1 changes little.
        angle: radians, from the x to the y axis.
    """
    reach = int(np.ceil(length / 2))
    along = np.linspace(-length / 2, length / 2, 4 * reach + 1)[:, None]
    places = np.arange(-reach, reach + 1)
    # Each point of the line counts for the pixels around it as bilinear interpolation has it.
    rows, columns = (np.maximum(1 - abs(along * part - places), 0) for part in (np.sin(angle), np.cos(angle)))
    kernel = (rows.T @ columns / len(along)).astype(np.float32)
    return cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT)  # type: ignore[return-value]
