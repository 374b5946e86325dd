"""The boxes that the tracker draws around a target, with the configuration's numbers: candidates and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import iou
from .config import TrackerConfig
from .device import upload
from .sampling import BoxSampler, apart, first_accepted, overlapping


class Draws(NamedTuple):
    """What a frame's boxes around S targets are made from, drawn in the order in which :class:`TargetSampler` draws.

    Attributes:
        candidates: [S, candidates, 3].
        positives: [S, positive_draws, 3].
        negatives: [S, negative_draws, 3].
        before_samples: of each generator, its state before the samples were drawn: for those that are not used. None
            where every frame takes as many draws.
    """

    candidates: Tensor
    positives: Tensor
    negatives: Tensor
    before_samples: list[Tensor] | None

    @classmethod
    def of(cls, config: TrackerConfig, generators: Sequence[torch.Generator]) -> Draws:
        """From one generator for each target; nothing waits for the device."""
        counts = config.candidates, config.positive_draws, config.negative_draws
        device, before_samples = generators[0].device, []
        noise = [torch.empty(len(generators), n, 3, dtype=torch.float32, device=device) for n in counts]
        for candidates, positives, negatives, generator in zip(*noise, generators, strict=True):
            candidates.normal_(0, 0.5, generator=generator)
            before_samples.append(generator.get_state())
            positives.normal_(0, 0.5, generator=generator)
            negatives.uniform_(generator=generator)
        return cls(noise[0].clamp_(-1, 1), noise[1].clamp_(-1, 1), noise[2] * 2 - 1, before_samples)

    def part(self, targets: slice) -> Draws:
        """Those of some of the targets."""
        states = None if self.before_samples is None else self.before_samples[targets]
        return Draws(self.candidates[targets], self.positives[targets], self.negatives[targets], states)


class DrawTable:
    """:class:`Draws` for many targets by one launch for each kind, where generators of a device need one per target.

    Long columns are drawn once, and each target reads them from places that its generator on the host chooses: what it
    gets does not depend on the others (:class:`~.online.DropoutTable` has dropout so).

    Args:
        config: how many.
        device: of the draws.
        length: of the columns; many times what a frame reads.
    """

    def __init__(self, config: TrackerConfig, device: torch.device, length: int = 1 << 20) -> None:
        generator = torch.Generator(device).manual_seed(0)
        column = torch.empty(length, 3, dtype=torch.float32, device=device)
        gaussian = torch.empty_like(column).normal_(0, 0.5, generator=generator).clamp_(-1, 1)
        uniform = column.uniform_(-1, 1, generator=generator)
        # As rows that overlap: row i holds the n draws from the i-th on, one behind the other.
        self._rows = [
            table.as_strided((length - n + 1, 3 * n), (3, 1))
            for table, n in (
                (gaussian, config.candidates),
                (gaussian, config.positive_draws),
                (uniform, config.negative_draws),
            )
        ]

    def __call__(self, generators: Sequence[torch.Generator]) -> Draws:
        """One frame's, from one generator on the host for each target; nothing waits for the device."""
        most, device = min(len(rows) for rows in self._rows), self._rows[0].device
        chosen = [torch.randint(most, (3,), generator=generator, device="cpu") for generator in generators]
        places = upload(torch.stack(chosen, dim=1), device)
        candidates, positives, negatives = (
            rows.index_select(0, of).view(len(generators), -1, 3) for rows, of in zip(self._rows, places, strict=True)
        )
        return Draws(candidates, positives, negatives, None)


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
            box_xywh,
            config.bbox_regression_draws,
            config.bbox_regression_translation,
            config.bbox_regression_scale,
            smaller=config.bbox_regression_smaller,
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

    # For many targets at once, in shapes that do not depend on values

    def candidates_of(self, noise: Tensor, boxes_xywh: Tensor, translation: Tensor) -> Tensor:
        """[S, candidates, 4] around [S, 4], as :meth:`candidates`, from draws and the spreads [S, 1, 1]."""
        return self._sampler.around(boxes_xywh, noise, translation, self._config.search_scale)

    def samples_of(self, near_noise: Tensor, far_noise: Tensor, boxes_xywh: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`positives` and :meth:`negatives` around the targets [S, 4], from draws.

        Returns:
            [S, p + n, 4], p positives and then n negatives, and [S, 2]: so many of each are samples, the first ones.
        """
        config, target = self._config, boxes_xywh[:, None]
        near = self._sampler.around(boxes_xywh, near_noise, config.positive_translation, config.positive_scale)
        far = self._sampler.around(boxes_xywh, far_noise, config.negative_translation, config.negative_scale)
        near_iou, far_iou = iou(near, target), iou(far, target)
        positives, n_positives = first_accepted(
            near, near_iou > config.positive_iou, near_iou.argmax(dim=1), config.positives
        )
        negatives, n_negatives = first_accepted(
            far, far_iou < config.negative_iou, far_iou.argmin(dim=1), config.negatives
        )
        return torch.cat((positives, negatives), dim=1), torch.stack((n_positives, n_negatives), dim=1)

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
