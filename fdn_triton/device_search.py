"""A frame's search and its samples, for all targets of a video at once, without waiting for the device: a GPU's way.

From draws to the boxes found, and on to the samples in the targets' memories, shapes do not depend on values; what
does, how many samples were accepted, is a number beside them. So the host gives one small matrix a frame and reads
another, the scores and all that it needs to know beside them, and the whole is captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .bbox_regression import BoxRegressor, search_from
from .config import TrackerConfig
from .cuda_graph import CapturedSequence
from .device import upload
from .frame_features import FrameFeatures
from .heads import Heads, best_candidates
from .kernels.boxes import rounded
from .kernels.ring_rows import append_to_rings
from .target import Target
from .target_sampling import Draws


class Found(NamedTuple):
    """What was found of S targets, on the device; valid until the next search where it is captured.

    Attributes:
        boxes_xywh: [S, 4], where to search from in the next frame, pixels of the resized frame.
        report: [S, 9]: mean score of the best candidates, 1 where that is a success and else 0, positives and negatives
            that were remembered, mean side of its row of ``boxes_xywh``, x, y, w, h of the result in pixels of the
            image.
    """

    boxes_xywh: Tensor
    report: Tensor


class DeviceSearch:
    """Searches for the same targets of one video in frame after frame of one size.

    Args:
        config: all numbers.
        targets: S of them.
        heads: theirs; they may change in place.
        capture: as a CUDA graph, where the features are one map in a fixed place.
    """

    def __init__(self, config: TrackerConfig, targets: Sequence[Target], heads: Heads, capture: bool) -> None:
        self._config = config
        self._targets = targets
        self._heads = heads
        self._view = view = targets[0].view
        self._sampler = targets[0].sampler(config)  # makes boxes of draws; whose does not matter
        regressors = [target.regressor for target in targets if target.regressor is not None]
        self._regressor = BoxRegressor.stacked(regressors) if regressors else None
        memories = [[target.positives for target in targets], [target.negatives for target in targets]]
        first_rows = torch.tensor([[one.first_row for one in kind] for kind in memories], device="cpu")
        self._first_rows = upload(first_rows, view.scale.device)
        self._capacities = [kind[0].capacity for kind in memories]
        self._pool = memories[0][0].pool
        self._told = torch.empty(7, len(targets), dtype=torch.float64, device="cpu", pin_memory=self._pool.is_cuda)
        self._capture = capture
        self._graph: CapturedSequence[Found] | None = None
        self._graph_map: Tensor | None = None
        self._last_xywh = torch.empty(0)
        self._last_rows: tuple[Tensor, ...] = ()  # which the targets have as long as nobody else moves them

    def __call__(self) -> Found:
        """Search in the view's current frame, and remember samples of the targets that are found.

        The device must have been waited for since the last search. Targets are where they were until :meth:`boxes_of`
        is asked.
        """
        targets, features, told = self._targets, self._view.features, self._tell()
        rows = self._last_rows
        if rows and all(target.box_xywh is row for target, row in zip(targets, rows, strict=True)):
            boxes_xywh = self._last_xywh
        else:
            boxes_xywh = torch.stack([target.box_xywh for target in targets])
        if not (self._capture and isinstance(features, FrameFeatures) and features.fixed_map is not None):
            return self._search(features.of_boxes, boxes_xywh, told.to(boxes_xywh.device, non_blocking=True))
        if self._graph is None or self._graph_map is not features.fixed_map:
            self._graph = None
            search = partial(self._search, partial(features.of_map, features.fixed_map))
            # Memories change, but what the runs before the capture write is what this frame's writes again.
            self._graph = CapturedSequence(search, (boxes_xywh, told), changed=())
            self._graph_map = features.fixed_map
        return self._graph(boxes_xywh, told)

    def boxes_of(self, found: Found) -> tuple[Tensor, ...]:
        """Where each target was found [4], to go on from there."""
        self._last_xywh = found.boxes_xywh.clone()
        self._last_rows = self._last_xywh.unbind()
        return self._last_rows

    def _tell(self) -> Tensor:
        """What the device is told of the targets: [7, S] float64 in memory that it can read.

        These are three places to read draws from, the spread of the candidates' centres in target sizes, the rows of
        the memories for positives and negatives where this frame's begin, and 1 where it gives negatives, else 0.
        """
        targets, told = self._targets, self._told.numpy()
        generators = [target.generator for target in targets]
        told[:3] = Draws.places(self._config, generators, self._first_rows.device).numpy()
        told[3] = [target.translation for target in targets]
        told[4] = [target.positives.next_row for target in targets]
        told[5] = [target.negatives.next_row for target in targets]
        told[6] = [target.next_gives_negatives(self._config) for target in targets]
        return self._told

    def _search(self, of_boxes: Callable[[Tensor], Tensor], boxes_xywh: Tensor, told: Tensor) -> Found:
        config = self._config
        draws = Draws.at(config, told[:3].long())
        candidates = self._sampler.candidates(boxes_xywh, draws.candidates, told[3, :, None, None].float())
        scores = self._heads.scores(of_boxes(candidates))
        best_xywh, found, score = best_candidates(candidates, scores, config.top_k)
        if config.round_boxes:
            found = rounded(found, self._view.pixel)
        success = score[:, None] > config.score_threshold
        refined = start = found
        if self._regressor is not None:
            refined = self._regressor.refine(of_boxes(best_xywh), best_xywh).mean(dim=1)
            refined = torch.where(success, refined, found)
            start = search_from(
                found, refined, config, self._view.frame_wh, lambda pairs: self._heads.scores(of_boxes(pairs))
            )
            if config.round_boxes:
                start = rounded(start, self._view.pixel)
        positives, n_positives = self._sampler.positives(start, draws.positives)
        negatives, n_negatives = self._sampler.negatives(start, draws.negatives)
        counts = torch.stack((n_positives, n_negatives * told[6].long())) * success[:, 0]
        features = of_boxes(torch.cat((positives, negatives), dim=1))
        kinds = features.split([positives.shape[1], negatives.shape[1]], dim=1)
        numbers = zip(kinds, counts, self._first_rows, told[4:6].long(), self._capacities, strict=True)
        for rows, count, first, next_rows, capacity in numbers:
            append_to_rings(self._pool, rows, count, first, next_rows, capacity)
        side = start[:, 2:].mean(dim=1, keepdim=True)
        report = torch.cat(
            (score[:, None], success.float(), counts.mT.float(), side, refined / self._view.scale), dim=1
        )
        return Found(start, report)
