"""The boxes that the tracker draws around a target, with the configuration's numbers: candidates and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .config import TrackerConfig
from .device import upload
from .kernels.target_boxes import first_overlapping
from .noise import NoiseTable, gaussian_table, uniform_table
from .sampling import BoxSampler, apart, overlapping


class Draws(NamedTuple):
    """What a frame's boxes around S targets are made from, in [-1, 1]: shifts along x and y, and the size's exponent.

    Attributes:
        candidates: [S, candidates, 3], normally distributed.
        positives: [S, positive_draws, 3], normally distributed.
        negatives: [S, negative_draws, 3], uniformly distributed.
    """

    candidates: Tensor
    positives: Tensor
    negatives: Tensor

    @staticmethod
    def tables(config: TrackerConfig, device: torch.device) -> tuple[NoiseTable, NoiseTable]:
        """What they are read from, of normal and of uniform numbers; made where that has not been done yet."""
        size = 3 * max(config.candidates, config.positive_draws, config.negative_draws)
        return gaussian_table(size, device), uniform_table(size, device)

    @classmethod
    def places(cls, config: TrackerConfig, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
        """[3, S] on the host: where one frame's are read from the device's tables.

        Args:
            config: how many are read.
            generators: one on the host for each target.
            device: whose tables; it is not waited for.
        """
        counts = config.candidates, config.positive_draws, config.negative_draws
        table, _ = cls.tables(config, device)  # both are equally long
        return table.places(len(counts), 3 * max(counts), generators)

    @classmethod
    def at(cls, config: TrackerConfig, places: Tensor) -> Draws:
        """What is read from the places [3, S], on their device; nothing waits for it."""
        counts = config.candidates, config.positive_draws, config.negative_draws
        gaussian, uniform = cls.tables(config, places.device)
        return cls(
            *(
                table.read(places_of, 3 * count).view(-1, count, 3)
                for table, places_of, count in zip((gaussian, gaussian, uniform), places, counts, strict=True)
            )
        )

    @classmethod
    def of(cls, config: TrackerConfig, generators: Sequence[torch.Generator]) -> Draws:
        """One frame's on the host, one generator for each target."""
        return cls.at(config, cls.places(config, generators, torch.device("cpu")))

    def part(self, targets: list[int]) -> Draws:
        """Those of some of the targets."""
        return Draws(*(noise[targets] for noise in self))


class TargetSampler:
    """Draws boxes around targets in the frames of one video (paper 3.4; MDNet).

    All boxes are in pixels of the resized frame. On the first frame they are [n, 4] around one target's, ``box_xywh``
    [4], and drawn from its generator; on further frames they are made from :class:`Draws`.

    Args:
        config: how many, how far away and how different.
        frame_wh: pixels.
        generator: of the first frame's draws, on the host.
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

    def regression_samples(self, box_xywh: Tensor) -> Tensor:
        """What the box regressor learns from."""
        config = self._config
        drawn = self._sampler.aspect(
            box_xywh,
            config.bbox_regression_draws,
            config.bbox_regression_translation,
            config.bbox_regression_scale,
            smaller=config.bbox_regression_smaller,
        )
        return overlapping(drawn, box_xywh, config.bbox_regression_iou, config.bbox_regression_samples)

    def first_positives(self, box_xywh: Tensor) -> Tensor:
        """Boxes of the first frame that overlap the target well."""
        config = self._config
        drawn = self._sampler.gaussian(
            box_xywh, config.first_positive_draws, config.positive_translation, config.positive_scale
        )
        return overlapping(drawn, box_xywh, config.positive_iou, config.first_positives)

    def first_negatives(self, box_xywh: Tensor) -> Tensor:
        """What the first fine-tuning tells the target from: boxes around it and all over the frame, in random order."""
        config = self._config
        near = self._sampler.uniform(
            box_xywh, config.first_negative_draws // 2, config.first_negative_translation, config.first_negative_scale
        )
        drawn = torch.cat((near, self._sampler.whole(box_xywh, config.first_negative_draws // 2)))
        order = torch.randperm(len(drawn), generator=self._sampler.generator, device="cpu")
        return apart(drawn[upload(order, drawn.device)], box_xywh, config.first_negative_iou, config.first_negatives)

    def remembered_negatives(self, box_xywh: Tensor) -> Tensor:
        """Boxes of the first frame's surroundings of the target, to be remembered for later."""
        config = self._config
        drawn = self._sampler.uniform(
            box_xywh, config.negative_draws, config.negative_translation, config.negative_scale
        )
        return apart(drawn, box_xywh, config.first_negative_iou, config.negatives)

    # Further frames, in shapes that do not depend on values

    def candidates(self, boxes_xywh: Tensor, noise: Tensor, translation: float | Tensor) -> Tensor:
        """Where the targets may be in the next frame.

        Args:
            boxes_xywh: [..., 4], the last ones.
            noise: [..., candidates, 3], of :class:`Draws`.
            translation: spread of the centres, target sizes; a number, or [..., 1, 1].

        Returns:
            [..., candidates, 4].
        """
        return self._sampler.around(boxes_xywh, noise, translation, self._config.search_scale)

    def positives(self, boxes_xywh: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes that overlap the targets well.

        Args:
            boxes_xywh: [..., 4], of the targets.
            noise: [..., positive_draws, 3], of :class:`Draws`.

        Returns:
            [..., p, 4], and [...] int64: so many of each are positives, the first ones.
        """
        config = self._config
        near = self._sampler.around(boxes_xywh, noise, config.positive_translation, config.positive_scale)
        return first_overlapping(near, boxes_xywh, config.positive_iou, config.positives, above=True)

    def negatives(self, boxes_xywh: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes of the targets' surroundings: as :meth:`positives`, of [..., negative_draws, 3]."""
        config = self._config
        far = self._sampler.around(boxes_xywh, noise, config.negative_translation, config.negative_scale)
        return first_overlapping(far, boxes_xywh, config.negative_iou, config.negatives, above=False)
