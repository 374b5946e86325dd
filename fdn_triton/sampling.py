"""The ways to draw boxes around a target (MDNet; the paper draws as MDNet does).

With r() a standard normal times 0.5 clipped to [-1, 1], u() uniform on [-1, 1] and m the mean of the target's width and
height:

======== ============================== ==========================================================
kind     centre                         size
======== ============================== ==========================================================
gaussian + t * m * r() per axis         * 1.05^(s * r()), one draw for both
uniform  + t * m * u() per axis         * 1.05^(s * u()), one draw for both
aspect   + t * (w, h) * u() per axis    per axis * 1.05^(2 u()), then both * 1.05^(s * U[0, 1])
whole    a grid over the whole frame    * 1.05^k, k in -5..5
======== ============================== ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import centers, from_centers, iou

_WHOLE_EXPONENTS = 11  # -5 .. 5
_FRAME_MARGIN = 10.0  # pixels: drawn boxes are smaller than the frame by this much


@dataclass(frozen=True)
class BoxSampler:
    """Draws boxes in one frame from one generator.

    Attributes:
        frame_wh: width and height in pixels of the frame in which the boxes lie.
        generator: source of all draws; the boxes are made on its device.
        scale_step: base of the scale factors.
        min_size: pixels, least width and height.
        round_boxes: round to whole pixels.
    """

    frame_wh: tuple[int, int]
    generator: torch.Generator
    scale_step: float = 1.05
    min_size: float = 10.0
    round_boxes: bool = False

    def gaussian(self, target_xywh: Tensor, count: int, translation: float, scale: float) -> Tensor:
        """[count, 4] boxes normally distributed around ``target_xywh`` [4]."""
        noise = (torch.randn((count, 3), generator=self.generator, device=target_xywh.device) * 0.5).clamp(-1, 1)
        return self._shifted_and_scaled(target_xywh, noise, translation, scale)

    def uniform(self, target_xywh: Tensor, count: int, translation: float, scale: float) -> Tensor:
        """[count, 4] boxes uniformly distributed around ``target_xywh`` [4]."""
        noise = self._rand(count, 3, target_xywh) * 2 - 1
        return self._shifted_and_scaled(target_xywh, noise, translation, scale)

    def aspect(self, target_xywh: Tensor, count: int, translation: float, scale: float) -> Tensor:
        """[count, 4] boxes of varying aspect ratio around ``target_xywh`` [4]."""
        noise = self._rand(count, 5, target_xywh)
        wh = target_xywh[2:]
        center = centers(target_xywh) + translation * wh * (noise[:, :2] * 2 - 1)
        size = wh * self.scale_step ** (2 * (noise[:, 2:4] * 2 - 1)) * self.scale_step ** (scale * noise[:, 4:])
        return self._inside(center, size, wh)

    def whole(self, target_xywh: Tensor, count: int) -> Tensor:
        """At most ``count`` boxes [., 4] drawn without replacement from the grid over the frame and the scales.

        The grid's step is a fifth of the target, at least a pixel; a coarse grid may hold fewer than ``count``.
        """
        wh = target_xywh[2:]
        steps = (wh / 5).clamp(min=1).tolist()
        columns, rows = (max(1, int(side / step)) for side, step in zip(self.frame_wh, steps, strict=True))
        total = columns * rows * _WHOLE_EXPONENTS
        drawn = torch.randperm(total, generator=self.generator, device=target_xywh.device)[:count]
        cell = drawn // _WHOLE_EXPONENTS
        center = torch.stack((cell % columns * steps[0], cell // columns * steps[1]), dim=1) + wh / 2
        exponent = drawn % _WHOLE_EXPONENTS - _WHOLE_EXPONENTS // 2
        return self._inside(center, wh * (self.scale_step ** exponent.to(wh.dtype))[:, None], wh)

    def _rand(self, count: int, columns: int, like: Tensor) -> Tensor:
        return torch.rand((count, columns), generator=self.generator, device=like.device)

    def _shifted_and_scaled(self, target_xywh: Tensor, noise: Tensor, translation: float, scale: float) -> Tensor:
        wh = target_xywh[2:]
        center = centers(target_xywh) + translation * wh.mean() * noise[:, :2]
        return self._inside(center, wh * self.scale_step ** (scale * noise[:, 2:]), wh)

    def _inside(self, center: Tensor, size: Tensor, target_wh: Tensor) -> Tensor:
        """Sizes within the limits, centres within the frame.

        The limits never exclude the target's own size: a target smaller than ``min_size`` or larger than the frame
        still has samples that overlap it well.
        """
        frame = torch.tensor(self.frame_wh, dtype=size.dtype, device=size.device)
        least = target_wh.clamp(max=self.min_size)
        largest = torch.maximum(frame - _FRAME_MARGIN, target_wh)
        size = torch.minimum(torch.maximum(size, least), largest)
        center = torch.minimum(center.clamp(min=0), frame)
        boxes = from_centers(center, size)
        if self.round_boxes:
            boxes = boxes.round()
            boxes[:, 2:].clamp_(min=1)
        return boxes


def overlapping(boxes_xywh: Tensor, target_xywh: Tensor, above: float, at_most: int) -> Tensor:
    """The first ``at_most`` of the boxes [N, 4] whose IoU with the target is greater than ``above``.

    Where none is, the one that overlaps most, so that a target of any size has a positive sample.
    """
    overlap = iou(boxes_xywh, target_xywh)
    kept = boxes_xywh[overlap > above][:at_most]
    return kept if len(kept) else boxes_xywh[overlap.argmax()][None]


def apart(boxes_xywh: Tensor, target_xywh: Tensor, below: float, at_most: int) -> Tensor:
    """The first ``at_most`` of the boxes [N, 4] whose IoU with the target is less than ``below``.

    Where none is, the one that overlaps least: a target as large as the frame has a negative sample too.
    """
    overlap = iou(boxes_xywh, target_xywh)
    kept = boxes_xywh[overlap < below][:at_most]
    return kept if len(kept) else boxes_xywh[overlap.argmin()][None]
