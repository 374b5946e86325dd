"""Parts of the resized frame from the image, on a CPU: only the pixels that are needed, each as in the whole frame.

Resizing is separable: a row of the resized frame is a weighted sum of a few rows of the image, a column of columns. The
weights are those of :func:`~fdn_triton.frame.network_input`. They stand in small dense matrices, one for every
:data:`BLOCK` rows and one for every ``BLOCK`` columns, so that a part is a few matrix products, and only the part's own
surroundings are read from the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .rectangle import Rectangle

BLOCK = 16
"""Parts begin and end at multiples of this, or at the frame's border."""


_BAND_BLOCKS = 8  # of rows, worked on while they are in the cache


class _Block(NamedTuple):
    """Up to BLOCK rows or columns of the resized frame from those of the image."""

    source: slice
    weights: Tensor


class FrameResampler:
    """Resizes images of one size.

    Args:
        image_hw: pixels of the images.
        frame_hw: pixels of the resized frame.
        mean: [3] per channel, subtracted; of the 0..255 range.
    """

    def __init__(self, image_hw: tuple[int, int], frame_hw: tuple[int, int], mean: Tensor) -> None:
        self._rows = _blocks(image_hw[0], frame_hw[0])
        # A column is three numbers of a row: the weights of columns are those of each channel, in turns.
        self._columns = [
            _Block(slice(3 * source.start, 3 * source.stop), _per_channel(weights.T))
            for source, weights in _blocks(image_hw[1], frame_hw[1])
        ]
        self._mean = mean

    def part(self, image: Tensor, pixels: Rectangle) -> Tensor:
        """[1, 3, h, w] fp32, channels-last in memory: the resized frame's ``pixels`` minus the mean.

        Args:
            image: uint8 [H, W, 3].
            pixels: not empty, made of whole blocks.
        """
        rows = self._rows[pixels.top // BLOCK : -(-pixels.bottom // BLOCK)]
        columns = self._columns[pixels.left // BLOCK : -(-pixels.right // BLOCK)]
        left, right = columns[0].source.start, columns[-1].source.stop
        part = torch.empty(
            (pixels.bottom - pixels.top, pixels.right - pixels.left, 3), dtype=torch.float32, device="cpu"
        )
        for first in range(0, len(rows), _BAND_BLOCKS):
            band = rows[first : first + _BAND_BLOCKS]
            strips = [
                weights @ image[source, left // 3 : right // 3].reshape(-1, right - left).float()
                for source, weights in band
            ]
            tall = torch.cat(strips)
            out = part[first * BLOCK :][: len(tall)].view(len(tall), -1)
            for i, (source, weights) in enumerate(columns):
                at = slice(3 * i * BLOCK, 3 * i * BLOCK + weights.shape[1])
                torch.mm(tall[:, source.start - left : source.stop - left], weights, out=out[:, at])
        return part.sub_(self._mean).permute(2, 0, 1)[None]


def _blocks(image_side: int, frame_side: int) -> list[_Block]:
    """Triangle filter along one axis, as wide as two pixels of the image or of the frame, whichever are larger.

    Pixel centres lie at half-integers; weights beyond the image are left out and the others sum to 1.
    """
    factor = image_side / frame_side
    reach = max(factor, 1.0)
    blocks = []
    for first in range(0, frame_side, BLOCK):
        last = min(first + BLOCK, frame_side)
        source = slice(
            max(0, int((first + 0.5) * factor - reach)), min(image_side, int((last - 0.5) * factor + reach) + 1)
        )
        centers = (torch.arange(first, last, dtype=torch.float64, device="cpu") + 0.5) * factor
        pixels = torch.arange(source.start, source.stop, dtype=torch.float64, device="cpu") + 0.5
        weights = (1 - (pixels - centers[:, None]).abs() / reach).clamp(min=0)
        blocks.append(_Block(source, (weights / weights.sum(dim=1, keepdim=True)).float()))
    return blocks


def _per_channel(weights: Tensor) -> Tensor:
    """[3 n, 3 m] of weights [n, m]: the same for each of three interleaved channels."""
    n, m = weights.shape
    return torch.einsum("nm,cd->ncmd", weights, torch.eye(3, dtype=weights.dtype, device=weights.device)).reshape(
        3 * n, 3 * m
    )
