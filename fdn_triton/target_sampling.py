"""The boxes that the tracker draws around a target, with the configuration's numbers: candidates and samples."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import TrackerConfig
from .sampling import BoxSampler, apart, overlapping


class TargetSampler:
    """Draws boxes around one target in one frame (paper 3.4; MDNet).

    All boxes are [n, 4], pixels of the resized frame; ``box_xywh`` [4] is the target's.

    Args:
        config: how many, how far away and how different.
        frame_wh: pixels.
        generator: of all draws.
        round_to: as :class:`BoxSampler` has it.
    """

    def __init__(
        self,
        config: TrackerConfig,
        frame_wh: tuple[int, int],
        generator: torch.Generator,
        round_to: tuple[float, float] | None,
    ) -> None:
        self._config = config
        self._sampler = BoxSampler(frame_wh, generator, config.scale_step, config.min_box_size, round_to)

    def candidates(self, box_xywh: Tensor, translation: float) -> Tensor:
        """Where the target may be in the next frame."""
        return self._sampler.gaussian(box_xywh, self._config.candidates, translation, self._config.search_scale)

    def regression_samples(self, box_xywh: Tensor) -> Tensor:
        """What the box regressor learns from."""
        config = self._config
        drawn = self._sampler.aspect(
            box_xywh, config.bbox_regression_draws, config.bbox_regression_translation, config.bbox_regression_scale
        )
        return overlapping(drawn, box_xywh, config.bbox_regression_iou, config.bbox_regression_samples)

    def first_positives(self, box_xywh: Tensor) -> Tensor:
        """Boxes of the first frame that overlap the target well."""
        return self._overlapping(box_xywh, self._config.first_positive_draws, self._config.first_positives)

    def positives(self, box_xywh: Tensor) -> Tensor:
        """Boxes of a later frame that overlap the target well."""
        return self._overlapping(box_xywh, self._config.positive_draws, self._config.positives)

    def first_negatives(self, box_xywh: Tensor) -> Tensor:
        """What the first fine-tuning tells the target from: boxes around it and all over the frame, in random order."""
        config = self._config
        near = self._sampler.uniform(
            box_xywh, config.first_negative_draws // 2, config.first_negative_translation, config.first_negative_scale
        )
        drawn = torch.cat((near, self._sampler.whole(box_xywh, config.first_negative_draws // 2)))
        order = torch.randperm(len(drawn), generator=self._sampler.generator, device=drawn.device)
        return apart(drawn[order], box_xywh, config.first_negative_iou, config.first_negatives)

    def remembered_negatives(self, box_xywh: Tensor) -> Tensor:
        """Boxes of the first frame's surroundings of the target, to be remembered for later."""
        return self._surrounding(box_xywh, self._config.first_negative_iou)

    def negatives(self, box_xywh: Tensor) -> Tensor:
        """Boxes of a later frame's surroundings of the target."""
        return self._surrounding(box_xywh, self._config.negative_iou)

    def _overlapping(self, box_xywh: Tensor, draws: int, at_most: int) -> Tensor:
        config = self._config
        drawn = self._sampler.gaussian(box_xywh, draws, config.positive_translation, config.positive_scale)
        return overlapping(drawn, box_xywh, config.positive_iou, at_most)

    def _surrounding(self, box_xywh: Tensor, below: float) -> Tensor:
        config = self._config
        drawn = self._sampler.uniform(
            box_xywh, config.negative_draws, config.negative_translation, config.negative_scale
        )
        return apart(drawn, box_xywh, below, config.negatives)
