"""The ways to draw boxes around a target (MDNet; the paper draws as MDNet does).

With r() a standard normal times 0.5 clipped to [-1, 1], u() uniform on [-1, 1] and m the mean of the target's width and
height:

======== ============================== ===========================================================================
kind     centre                         size
======== ============================== ===========================================================================
gaussian + t * m * r() per axis         * 1.05^(s * r()), one draw for both
uniform  + t * m * u() per axis         * 1.05^(s * u()), one draw for both
aspect   + t * (w, h) * u() per axis    per axis * 1.05^(2 u()), then both * 1.05^(s * U[0, 1]) (``smaller``: s * u())
whole    a grid over the whole frame    * 1.05^k, k in -5..5
======== ============================== ===========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .device import upload
from .kernels.boxes import centers
from .kernels.target_boxes import Limits, boxes_around, first_overlapping, within
from .noise import gaussian_

_WHOLE_EXPONENTS = 11  # -5 .. 5


@dataclass(frozen=True)
class BoxSampler:
    """Draws boxes in one frame from one generator.

    Attributes:
        frame_wh: width and height in pixels of the frame in which the boxes lie.
        generator: source of what is drawn here, on the host; boxes are made on their target's device.
        scale_step: base of the scale factors.
        min_size: pixels, least width and height, and how much smaller than the frame a box is at least.
        round_to: round to multiples of this width and height of an image's pixel; None does not round.
    """

    frame_wh: tuple[int, int]
    generator: torch.Generator
    scale_step: float = 1.05
    min_size: float = 10.0
    round_to: tuple[float, float] | None = None

    def gaussian(self, target_xywh: Tensor, count: int, translation: float, scale: float) -> Tensor:
        """[count, 4] boxes normally distributed around ``target_xywh`` [4]."""
        noise = gaussian_(torch.empty(count, 3, dtype=target_xywh.dtype, device="cpu"), self.generator)
        return self.around(target_xywh, upload(noise, target_xywh.device), translation, scale)

    def uniform(self, target_xywh: Tensor, count: int, translation: float, scale: float) -> Tensor:
        """[count, 4] boxes uniformly distributed around ``target_xywh`` [4]."""
        noise = self._rand(count, 3, target_xywh) * 2 - 1
        return self.around(target_xywh, noise, translation, scale)

    def aspect(
        self, target_xywh: Tensor, count: int, translation: float, scale: float, *, smaller: bool = False
    ) -> Tensor:
        """[count, 4] boxes of varying aspect ratio around ``target_xywh`` [4].

        MDNet's are smaller than it by their aspect at most; with ``smaller`` one exponent is as often below 0 as above.
        """
        noise = self._rand(count, 5, target_xywh)
        exponent = noise[:, 4:] * 2 - 1 if smaller else noise[:, 4:]
        wh = target_xywh[2:]
        center = centers(target_xywh) + translation * wh * (noise[:, :2] * 2 - 1)
        size = wh * self.scale_step ** (2 * (noise[:, 2:4] * 2 - 1)) * self.scale_step ** (scale * exponent)
        return within(self._limits, center, size, target_xywh)

    def whole(self, target_xywh: Tensor, count: int) -> Tensor:
        """At most ``count`` boxes [., 4] drawn without replacement from the grid over the frame and the scales.

        On the grid, boxes of the target's size fill the frame in steps of a fifth of the target, at least a pixel; a
        coarse grid may hold fewer than ``count``.
        """
        wh = target_xywh[2:]
        steps = (wh / 5).clamp(min=1).tolist()
        columns, rows = (
            max(1, int((side - length) / step) + 1)
            for side, length, step in zip(self.frame_wh, wh.tolist(), steps, strict=True)
        )
        total = columns * rows * _WHOLE_EXPONENTS
        drawn = torch.randperm(total, generator=self.generator, device="cpu")[:count]
        drawn = upload(drawn, target_xywh.device)
        cell = drawn // _WHOLE_EXPONENTS
        center = torch.stack((cell % columns * steps[0], cell // columns * steps[1]), dim=1) + wh / 2
        exponent = drawn % _WHOLE_EXPONENTS - _WHOLE_EXPONENTS // 2
        return within(self._limits, center, wh * (self.scale_step ** exponent.to(wh.dtype))[:, None], target_xywh)

    def _rand(self, count: int, columns: int, like: Tensor) -> Tensor:
        drawn = torch.empty(count, columns, dtype=like.dtype, device="cpu").uniform_(generator=self.generator)
        return upload(drawn, like.device)

    def around(self, target_xywh: Tensor, noise: Tensor, translation: float | Tensor, scale: float) -> Tensor:
        """What :meth:`gaussian` and :meth:`uniform` make of their draws, for any number of targets at once.

        Args:
            target_xywh: [..., 4].
            noise: [..., count, 3] in [-1, 1]: shifts along x and y, and the exponent.
            translation: spread of the shifts, target sizes; a number, or [..., 1, 1] for each target.
            scale: spread of the exponents.

        Returns:
            [..., count, 4].
        """
        return boxes_around(target_xywh, noise, translation, scale, self.scale_step, self._limits)

    @property
    def _limits(self) -> Limits:
        return Limits(self.frame_wh, self.min_size, self.round_to)


def overlapping(boxes_xywh: Tensor, target_xywh: Tensor, above: float, at_most: int) -> Tensor:
    """The first ``at_most`` of the boxes [N, 4] whose IoU with the target is greater than ``above``.

    Where none is, the one that overlaps most, so that a target of any size has a positive sample.
    """
    taken, count = first_overlapping(boxes_xywh, target_xywh, above, at_most, above=True)
    return taken[: int(count)]


def apart(boxes_xywh: Tensor, target_xywh: Tensor, below: float, at_most: int) -> Tensor:
    """The first ``at_most`` of the boxes [N, 4] whose IoU with the target is less than ``below``.

    Where none is, the one that overlaps least: a target as large as the frame has a negative sample too.
    """
    taken, count = first_overlapping(boxes_xywh, target_xywh, below, at_most, above=False)
    return taken[: int(count)]
