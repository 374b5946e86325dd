"""A frame's search and its samples, target by target: a CPU's way.

Each head computes what it computes alone, to the last bit, on features that are in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bbox_regression import search_from
from .config import TrackerConfig
from .heads import Heads, best_candidates
from .kernels.boxes import rounded
from .ranking import scores_exact_where_highest
from .target import Target, by_view, stage
from .target_sampling import Draws


class HostSearch:
    """Finds targets in the current frames of their views, and remembers samples around those that it finds.

    Args:
        config: all numbers.
        dtype: of the features that heads see and memories hold.
        rough: find the best candidates by way of bf16 (:mod:`.ranking`).
    """

    def __init__(self, config: TrackerConfig, dtype: torch.dtype, rough: bool) -> None:
        self._config = config
        self._dtype = dtype
        self._rough = rough

    def __call__(
        self, targets: Sequence[Target], heads: Sequence[Heads]
    ) -> tuple[NDArray[np.float64], list[float], list[bool]]:
        """Search around the last boxes.

        Args:
            targets: S of them, those of a view side by side.
            heads: of each target its own.

        Returns:
            Boxes [S, 4] in pixels of the images, scores and successes.
        """
        with stage({target.view for target in targets}, "features"):
            draws = Draws.of(self._config, [target.generator for target in targets])
            candidates = self._candidates(targets, draws)
            for view, boxes in by_view(targets, candidates):
                view.features.require(boxes)
        with stage({target.view for target in targets}, "score"):
            scores = torch.cat([self._scores(*each) for each in zip(targets, heads, candidates, strict=True)])
            best_xywh, found, score = best_candidates(candidates, scores, self._config.top_k)
            found = self._on_pixels(targets, found)
            success = [value > self._config.score_threshold for value in score.tolist()]
            refined = self._refined(targets, found, best_xywh, success)
            start = torch.cat(
                [
                    self._start(target, head, found[i : i + 1], refined[i : i + 1]) if success[i] else found[i : i + 1]
                    for i, (target, head) in enumerate(zip(targets, heads, strict=True))
                ]
            )
            start = self._on_pixels(targets, start)
        sides = start[:, 2:].mean(dim=1).tolist()
        give_negatives = [target.next_gives_negatives(self._config) for target in targets]
        for target, box, side, succeeded in zip(targets, start, sides, success, strict=True):
            target.move(box, side, succeeded, self._config)
        followed = [i for i, succeeded in enumerate(success) if succeeded]
        self._collect([targets[i] for i in followed], draws.part(followed), [give_negatives[i] for i in followed])
        in_images = torch.cat([boxes / view.scale for view, boxes in by_view(targets, refined)])
        return in_images.double().numpy(), score.tolist(), success

    def _candidates(self, targets: Sequence[Target], draws: Draws) -> Tensor:
        """[S, K, 4] boxes around the last ones, in pixels of the resized frames."""
        return torch.stack(
            [
                target.sampler(self._config).candidates(target.box_xywh, noise, target.translation)
                for target, noise in zip(targets, draws.candidates, strict=True)
            ]
        )

    def _scores(self, target: Target, head: Heads, candidates: Tensor) -> Tensor:
        """[1, K] of a target's candidates [K, 4]; where ``rough``, of the best ones exactly."""
        features = target.view.features
        if self._rough:
            return scores_exact_where_highest(head, features.of_boxes(candidates[None]), self._config.top_k)
        if self._dtype == torch.float32:
            return head.scores_behind_first(
                features.linear_of_boxes(candidates, head.weights[0][0], head.biases[0][0])[None]
            )
        return head.scores(features.of_boxes(candidates[None]).to(self._dtype))

    def _refined(self, targets: Sequence[Target], found: Tensor, best_xywh: Tensor, success: Sequence[bool]) -> Tensor:
        """[S, 4]: where a target was found, the mean of its best candidates' regressed boxes; else ``found``."""
        refined = found.clone()
        for i, target in enumerate(targets):
            if success[i] and target.regressor is not None:
                features = target.view.features.of_boxes(best_xywh[i : i + 1])
                refined[i] = target.regressor.refine(features[0], best_xywh[i]).mean(dim=0)
        return refined

    def _start(self, target: Target, head: Heads, found: Tensor, refined: Tensor) -> Tensor:
        """[1, 4]: where the search for a target that was found [1, 4] goes on from."""
        if target.regressor is None:
            return found
        view, dtype = target.view, self._dtype
        return search_from(
            found,
            refined,
            self._config,
            view.frame_wh,
            lambda pairs: head.scores(view.features.of_boxes(pairs).to(dtype)),
        )

    def _on_pixels(self, targets: Sequence[Target], boxes_xywh: Tensor) -> Tensor:
        """The boxes [S, 4] in whole pixels of the images, where they are to be."""
        if not self._config.round_boxes:
            return boxes_xywh
        return torch.cat([rounded(boxes, view.pixel) for view, boxes in by_view(targets, boxes_xywh)])

    def _collect(self, targets: Sequence[Target], draws: Draws, give_negatives: Sequence[bool]) -> None:
        """Remember positives, and negatives of those that give them, around the targets that were found (MDNet)."""
        with stage({target.view for target in targets}, "collect"):
            drawn = []
            for target, near, far, gives in zip(targets, draws.positives, draws.negatives, give_negatives, strict=True):
                sampler = target.sampler(self._config)
                positives, n_positives = sampler.positives(target.box_xywh, near)
                kinds = [positives[: int(n_positives)]]
                if gives:
                    negatives, n_negatives = sampler.negatives(target.box_xywh, far)
                    kinds.append(negatives[: int(n_negatives)])
                drawn.append((target, kinds))
        for view, same in groupby(drawn, key=lambda each: each[0].view):
            samples = list(same)
            with view.clock.stage("features"):
                view.features.require(torch.cat([boxes for _, kinds in samples for boxes in kinds]))
            with view.clock.stage("collect"):
                for target, kinds in samples:
                    features = view.features.of_boxes(torch.cat(kinds)).to(self._dtype)
                    of_kinds = features.split([len(boxes) for boxes in kinds])
                    for memory, of_kind in zip((target.positives, target.negatives), of_kinds, strict=False):
                        memory.append(of_kind)
