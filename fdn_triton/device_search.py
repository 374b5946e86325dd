"""A frame's search and its samples, for all targets of a video at once, without waiting for the device: a GPU's way.

From draws to the boxes found, and on to the features of the samples to be remembered, shapes do not depend on values;
what does, how many samples were accepted, is a number beside them. So the host reads one small matrix a frame, the
scores and all that it needs to know beside them, and the whole is captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .bbox_regression import BoxRegressor
from .config import TrackerConfig
from .cuda_graph import CapturedSequence
from .frame_features import Features, FrameFeatures
from .heads import Heads, best_candidates
from .sampling import rounded
from .target_sampling import Draws, TargetSampler


class Found(NamedTuple):
    """What was found of S targets, on the device; valid until the next search where it is captured.

    Attributes:
        boxes_xywh: [S, 4], where to search from in the next frame, pixels of the resized frame.
        report: [S, 8]: mean score of the best candidates, 1 where that is a success and else 0, positives and negatives
            among the samples, x, y, w, h of the result in pixels of the image.
        samples: [S, p + n, 4608], features around ``boxes_xywh``: p positives, then n negatives, of each as many as the
            report says, and rows that mean nothing behind them.
    """

    boxes_xywh: Tensor
    report: Tensor
    samples: Tensor


class DeviceSearch:
    """Searches for the same targets in frame after frame of one size.

    Args:
        config: all numbers.
        features: of the current frame.
        heads: of the S targets: they may change in place.
        regressors: of the S targets; none refines nothing.
        sampler: makes boxes of draws; whose does not matter.
        scale: [4] pixels of the resized frame per pixel of the image.
        pixel: of the image, in pixels of the resized frame: found boxes are rounded to it; None does not round.
        capture: as a CUDA graph, where the features are one map of a fixed shape.

    Attributes:
        count: S.
    """

    def __init__(
        self,
        config: TrackerConfig,
        features: Features,
        heads: Heads,
        regressors: Sequence[BoxRegressor],
        sampler: TargetSampler,
        scale: Tensor,
        pixel: tuple[float, float] | None,
        capture: bool,
    ) -> None:
        self.count = len(heads)
        self._config = config
        self._features = features
        self._heads = heads
        self._regressor = BoxRegressor.stacked(regressors) if regressors else None
        self._sampler = sampler
        self._scale = scale
        self._pixel = pixel
        self._capture = capture
        self._graph: CapturedSequence[Found] | None = None

    def __call__(self, boxes_xywh: Tensor, translation: Tensor, draws: Draws) -> Found:
        """Search around the last boxes.

        Args:
            boxes_xywh: [S, 4], pixels of the resized frame.
            translation: [S, 1, 1], spread of the candidates' centres, target sizes.
            draws: of the S targets.
        """
        features, inputs = self._features, (boxes_xywh, translation, *draws)
        if not (self._capture and isinstance(features, FrameFeatures) and features.whole_map is not None):
            return self._search(features.of_boxes, *inputs)
        if self._graph is None:
            of_map = features.of_map
            self._graph = CapturedSequence(
                lambda whole_map, *inputs: self._search(partial(of_map, whole_map), *inputs),
                (features.whole_map, *inputs),
                changed=(),
            )
        return self._graph(features.whole_map, *inputs)

    def _search(
        self,
        of_boxes: Callable[[Tensor], Tensor],
        boxes_xywh: Tensor,
        translation: Tensor,
        noise: Tensor,
        near_noise: Tensor,
        far_noise: Tensor,
    ) -> Found:
        config = self._config
        candidates = self._sampler.candidates(boxes_xywh, noise, translation)
        scores = self._heads.scores(of_boxes(candidates))
        best_xywh, found, score = best_candidates(candidates, scores, config.top_k)
        if self._pixel is not None:
            found = rounded(found, self._pixel)
        success = score[:, None] > config.score_threshold
        refined = found
        if self._regressor is not None:
            refined = self._regressor.refine(of_boxes(best_xywh), best_xywh).mean(dim=1)
            refined = torch.where(success, refined, found)
        start = refined if config.search_from_refined else found
        *samples, counts = self._sampler.samples(start, near_noise, far_noise)
        report = torch.cat((score[:, None], success.float(), counts.float(), refined / self._scale), dim=1)
        return Found(start, report, of_boxes(torch.cat(samples, dim=1)))
