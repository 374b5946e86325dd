"""The targets that are tracked on one device, of one video or of several: what is known of each, and how it grows.

Heads are stacked and sample memories lie in one pool, so that targets share launches: those of one video all of them,
those of videos that advance in lockstep what does not depend on the frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import geometric_mean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .backbone import ROI_FEATURES
from .bbox_regression import BoxRegressor
from .config import TrackerConfig
from .device import cpu_multiplies_bf16, feature_dtype, upload
from .device_search import DeviceSearch
from .fine_tuning import FineTuner
from .heads import HIDDEN, Heads
from .host_search import HostSearch
from .noise import dropout_table
from .online import Lesson, SampleMemory, Update, fine_tune
from .target import Target, TrackResult, stage
from .target_sampling import Draws
from .view import ShiftedFeatures, View
from .weights import NetworkWeights


class Targets:
    """All targets of a device.

    Args:
        config: all numbers; the seed is given with the targets.
        weights: what the heads start from, and the size of the features.
        device: of everything.
    """

    def __init__(self, config: TrackerConfig, weights: NetworkWeights, device: torch.device) -> None:
        self.config = config
        self._tensors = weights.tensors
        # Features k times as large need a penalty k * k times as large for the same regression.
        self._ridge = config.bbox_regression_ridge * weights.feature_scale**2
        self._device = device
        self._together = device.type != "cpu"  # fine-tune the heads of several targets at once
        self._capture = device.type == "cuda"
        self._searches: dict[View, tuple[object, DeviceSearch]] = {}
        self._targets: list[Target] = []
        self._heads = Heads([], [])
        self._tuner: FineTuner | None = None
        self._dtype = feature_dtype(config.feature_precision, device)
        # Elsewhere products in bf16 take longer than the exact ones that they save.
        self._rough = device.type == "cpu" and self._dtype == torch.float32 and cpu_multiplies_bf16()
        self._host_search = HostSearch(config, self._dtype, self._rough)
        self._pool = torch.empty((0, ROI_FEATURES), dtype=self._dtype, device=device)
        # Made here, not while a frame waits.
        Draws.tables(config, self._pool.device)
        if config.dropout:
            factors = (config.network.fc_layers - 1) * (config.batch_positives + config.batch_negatives) * HIDDEN
            dropout_table(config.dropout, factors, self._pool.device)
        self._expected: dict[View, Tensor] = {}
        self._results: dict[View, TrackResult | Exception] = {}
        self._positives = config.long_memory, config.positives, config.first_positives
        self._negatives = config.short_memory, config.negatives, config.negatives

    def of(self, view: View) -> list[Target]:
        """The targets of a view, in the order in which they were added."""
        return [target for target in self._targets if target.view is view]

    def begin(self, view: View, image: Tensor) -> None:
        """Turn a view to its next frame: uint8 [H, W, 3], RGB; sized anew where its targets have grown or shrunk."""
        targets = self.of(view)
        change = view.begin(image, geometric_mean([target.growth for target in targets]) if targets else 1.0)
        if change is not None:
            self._searches.pop(view, None)  # of frames of the size before, with a graph's memory
            factors = upload(torch.tensor(change * 2, dtype=torch.float32, device="cpu"), self._device)
            for target in targets:
                target.box_xywh = target.box_xywh * factors
                target.growth *= math.sqrt(change[0] * change[1])

    # Coming and going

    def add(self, view: View, ids: Sequence[int], boxes_xywh: Tensor, seed: int) -> tuple[Update, ...]:
        """Learn new targets from the view's current frame (paper 3.4).

        Args:
            view: turned to the frame.
            ids: of the targets, above those that the view has.
            boxes_xywh: [n, 4], pixels of the resized frame.
            seed: of what each of them draws.

        Returns:
            What the fine-tuning did, per target.
        """
        known, n_positives = len(self._targets), SampleMemory.capacity_of(*self._positives)
        sides = boxes_xywh[:, 2:].mean(dim=1).tolist()
        for id_, box_xywh, side, slot in zip(ids, boxes_xywh, sides, self._free_slots(len(ids)), strict=True):
            first_row = slot * self._rows
            self._targets.append(
                Target(
                    id=id_,
                    view=view,
                    box_xywh=box_xywh,
                    slot=slot,
                    generator=torch.Generator("cpu").manual_seed(seed),
                    positives=SampleMemory(self._pool, first_row, *self._positives),
                    negatives=SampleMemory(self._pool, first_row + n_positives, *self._negatives),
                    translation=self.config.search_translation,
                    learnt_side=side,
                )
            )
        new = range(known, len(self._targets))
        generators = [self._targets[t].generator for t in new]
        heads = Heads.for_targets(self.config.network, self._tensors, generators, self._device)
        self._set_heads(Heads.joined(self._heads, heads) if known else heads)
        with view.clock.stage("features"):
            features = view.shifted_features()
        return tuple(self._learn_first(t, features) for t in new)

    def remove(self, gone: Sequence[Target]) -> None:
        """Forget targets: their rows of the pool are free for the next ones."""
        kept = [t for t, target in enumerate(self._targets) if target not in gone]
        self._targets = [self._targets[t] for t in kept]
        if kept:
            self._set_heads(self._heads.of(kept))

    def release(self) -> None:
        """Give the pool's memory back where no target is left."""
        if not self._targets:
            self._pool, self._tuner = self._pool.new_empty(0, ROI_FEATURES), None
            self._heads = Heads([], [])

    @property
    def _rows(self) -> int:
        """Rows of the pool that a target needs."""
        return SampleMemory.capacity_of(*self._positives) + SampleMemory.capacity_of(*self._negatives)

    def _free_slots(self, count: int) -> list[int]:
        """Slots of the pool for so many more targets; the pool becomes another one where it does not fit."""
        used = {target.slot for target in self._targets}
        slots = len(self._pool) // self._rows
        wanted = max(slots, len(used) + count) if used else count
        if wanted != slots:
            pool = self._pool.new_empty(wanted * self._rows, ROI_FEATURES)
            for target in self._targets:
                rows = slice(target.slot * self._rows, (target.slot + 1) * self._rows)
                pool[rows] = self._pool[rows]
                target.positives.pool = target.negatives.pool = pool
            self._pool, self._tuner = pool, None
            self._searches.clear()  # they write to the old one
        return [slot for slot in range(wanted) if slot not in used][:count]

    def _set_heads(self, heads: Heads) -> None:
        self._heads = heads
        self._searches.clear()  # they score with other ones
        if self._tuner is not None and len(heads) <= self._tuner.capacity:
            self._tuner.heads = heads  # its graphs know only its own copies of heads, and the pool
        else:
            captured = self._pool if self._together else None
            self._tuner = FineTuner(
                heads,
                self.config,
                together=self._together,
                captured=captured,
                dtype=self._dtype,
                rough=self._rough,
            )

    def _learn_first(self, t: int, first: ShiftedFeatures) -> Update:
        """Box regressor, fine-tuning and memory of the first frame (paper 3.4; MDNet)."""
        config, target, box = self.config, self._targets[t], self._targets[t].box_xywh
        sampler, of_boxes = target.sampler(config), first.of_boxes
        with target.view.clock.stage("collect"):
            if config.bbox_regression:
                samples = sampler.regression_samples(box)
                target.regressor = BoxRegressor(of_boxes(samples), samples, box, self._ridge)
            positives, negatives = sampler.first_positives(box), sampler.first_negatives(box)
            features = of_boxes(torch.cat((positives, negatives))).to(self._dtype)
            target.positives.append(features[: len(positives)])
            target.negatives.append(of_boxes(sampler.remembered_negatives(box)).to(self._dtype))
        with target.view.clock.stage("update"):
            rows = torch.arange(len(features), device="cpu")
            assert self._tuner is not None
            ((iterations, loss),) = fine_tune(
                self._tuner,
                features,
                [Lesson(t, rows[: len(positives)], rows[len(positives) :], target.generator)],
                config.first_learning_rate,
                config.first_iterations,
                config.first_loss_threshold,
            )
        return Update("first", iterations, loss)

    # From frame to frame

    def expect(self, view: View, image: Tensor) -> None:
        """Take a view's next frame, uint8 [H, W, 3], RGB, for :meth:`result`."""
        self._expected[view] = image

    def expects(self, view: View) -> bool:
        """Whether :meth:`result` has something for the view."""
        return view in self._expected or view in self._results

    def result(self, view: View) -> TrackResult:
        """What :meth:`follow` finds in the frame that was given to :meth:`expect`.

        The first call follows all views whose frames are there, together; the others get what it has found for them.
        """
        if view in self._expected:
            images, self._expected = self._expected, {}
            try:
                self._results |= self.follow(images)
            except Exception as error:
                self._results |= dict.fromkeys(images, error)
        result = self._results.pop(view)
        if isinstance(result, Exception):
            raise result
        return result

    def forget(self, view: View) -> None:
        """Remove all of a view's targets, and what was expected for it."""
        self.remove(self.of(view))
        self._searches.pop(view, None)
        self._expected.pop(view, None)
        self._results.pop(view, None)

    def follow(self, images: Mapping[View, Tensor]) -> dict[View, TrackResult]:
        """Find the targets of some views in their next frames, and learn from these (paper 3.4).

        Args:
            images: the next frame of each view: uint8 [H, W, 3], RGB. Each has a target at least.
        """
        targets = {view: self.of(view) for view in images}
        followed = [target for of_view in targets.values() for target in of_view]
        with stage(images, "features"):
            for view, image in images.items():
                self.begin(view, image)
        if self._together:
            boxes_xywh, scores, success = self._find_together(followed)
        else:
            numbers = [self._targets.index(target) for target in followed]
            boxes_xywh, scores, success = self._host_search(followed, [self._heads[t : t + 1] for t in numbers])
        with stage(images, "update"):
            updates = self._learn(followed, success)
        results, first = {}, 0
        for view, of_view in targets.items():
            part = slice(first, first + len(of_view))
            results[view] = TrackResult(
                boxes_xywh[part],
                np.array(scores[part]),
                np.array(success[part]),
                tuple(updates[part]),
                tuple(target.id for target in of_view),
            )
            first = part.stop
        return results

    def _find_together(self, targets: Sequence[Target]) -> tuple[NDArray[np.float64], list[float], list[bool]]:
        """As :class:`HostSearch`, waiting for the device once."""
        config = self.config
        with stage({target.view for target in targets}, "score"):
            searches = [self._device_search(list(same)) for _, same in groupby(targets, key=lambda target: target.view)]
            found = [search() for search in searches]
            report = torch.cat([each.report for each in found]).cpu().double().numpy()
            success, counts_of = [bool(flag) for flag in report[:, 1]], report[:, 2:4].astype(int).tolist()
            boxes = [box for search, each in zip(searches, found, strict=True) for box in search.boxes_of(each)]
            sides = report[:, 4].tolist()
            for target, box, side, succeeded, counts in zip(targets, boxes, sides, success, counts_of, strict=True):
                target.move(box, side, succeeded, config)
                if succeeded:
                    target.positives.appended(counts[0])
                    if counts[1]:
                        target.negatives.appended(counts[1])
        return report[:, 5:], report[:, 0].tolist(), success

    def _device_search(self, targets: Sequence[Target]) -> DeviceSearch:
        """Of a view's targets; made anew where the frames have another size, or targets have come or gone anywhere."""
        view, first = targets[0].view, self._targets.index(targets[0])
        together = self._targets[first : first + len(targets)] == targets  # then their heads need no copies
        # Copies do not learn, and RoIPool's shapes depend on values: neither can be captured.
        key = (view.features, tuple(target.id for target in targets))
        if view not in self._searches or self._searches[view][0] != key or not together:
            numbers = [self._targets.index(target) for target in targets]
            heads = self._heads[first : first + len(targets)] if together else self._heads.of(numbers)
            capture = self._capture and together and self.config.network.roi_layer == "align"
            self._searches[view] = key, DeviceSearch(self.config, targets, heads, capture)
        return self._searches[view][1]

    def _learn(self, targets: Sequence[Target], success: Sequence[bool]) -> list[Update | None]:
        """Short-term updates after a failure, long-term updates at the regular interval (paper 3.4)."""
        config = self.config
        learning = [i for i, target in enumerate(targets) if not (success[i] and target.frames % config.long_interval)]
        lessons = [
            Lesson(
                self._targets.index(targets[i]),
                targets[i].positives.of_last(config.long_memory if success[i] else config.short_memory),
                targets[i].negatives.of_last(config.short_memory),
                targets[i].generator,
            )
            for i in learning
        ]
        assert self._tuner is not None
        results = fine_tune(
            self._tuner,
            self._pool,
            lessons,
            config.update_learning_rate,
            config.update_iterations,
            config.loss_threshold,
        )
        updates: list[Update | None] = [None] * len(targets)
        for i, result in zip(learning, results, strict=True):
            updates[i] = Update("long" if success[i] else "short", *result)
        return updates
