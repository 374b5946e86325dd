"""The shapes that the tracker really uses, shared by all benchmarks.

A 640x360 video is resized to 1000x562 pixels: its conv1 map is 281x500x96, its feature map 36x63x512.
"""

from __future__ import annotations

import torch

TRITON_MODULES = "roi_sampling", "lrn_pool", "resize_subtract_mean", "score_heads", "target_boxes", "ring_rows"
"""Of ``kernels``: where a GPU's tensors are sent to Triton."""
FEATURE_MAP = (1, 512, 36, 63)
CONV1_MAP = (1, 96, 281, 500)
CONV2_MAP = (1, 256, 71, 125)
CANDIDATES = 256
IMAGES = ((360, 640, 562, 1000), (2160, 3840, 562, 1000))
"""(H, W) of a video and (h, w) of the network's input: one that grows, and 4K."""


def channels_last(shape: tuple[int, ...], generator: torch.Generator, scale: float) -> torch.Tensor:
    """Normal numbers of this standard deviation, channels-last in memory as behind a convolution."""
    x = torch.randn(shape, generator=generator) * scale
    return x.contiguous(memory_format=torch.channels_last)


def rois(count: int, generator: torch.Generator) -> torch.Tensor:
    """[count, 5] boxes of about 90x100 pixels around one place, as candidates are."""
    xy = torch.tensor([400.0, 200.0]) + 60 * torch.randn((count, 2), generator=generator)
    wh = torch.tensor([90.0, 100.0]) * 1.05 ** torch.randn((count, 1), generator=generator)
    return torch.cat((torch.zeros(count, 1), xy, xy + wh), dim=1)
