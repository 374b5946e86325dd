"""The tracker: a box on the first frame, one box for every further frame. Pure computation, no files, no printing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .backbone import ROI_FEATURES, Backbone
from .bbox_regression import BoxRegressor
from .config import TrackerConfig
from .device import choose_device
from .errors import InputError
from .fine_tuning import FineTuner
from .frame import check_boxes, check_image, network_input, network_size
from .frame_features import FeatureProvider, FrameFeatures
from .heads import Heads
from .online import Lesson, SampleMemory, Update, fine_tune
from .sampling import rounded
from .target_sampling import TargetSampler
from .timing import StageClock
from .weights import DEFAULT_WEIGHTS, NetworkWeights, check_weights, load_weights


@dataclass(frozen=True)
class TrackResult:
    """One frame's result for T targets.

    Attributes:
        boxes_xywh: [T, 4] float64, pixels of the given frame, 0-based.
        scores: [T] float64, mean target score of the best candidates, before softmax.
        success: [T] bool, score above ``score_threshold``.
        updates: per target what its update did on this frame, None where there was none.
    """

    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]
    success: NDArray[np.bool_]
    updates: tuple[Update | None, ...]


@dataclass
class _Target:
    """What differs per target besides its box and head."""

    generator: torch.Generator
    positives: SampleMemory
    negatives: SampleMemory
    translation: float
    regressor: BoxRegressor | None = None


class Tracker:
    """Tracks T targets through the frames of one video.

    ::

        tracker = Tracker()
        tracker.init(first_image, [x, y, w, h])
        for image in images:
            result = tracker.update(image)
            print(result.boxes_xywh, result.scores)

    Args:
        config: all numbers; ``TrackerConfig()`` is the paper's, ``TrackerConfig.from_preset`` gives others.
        weights: a name, a path (safetensors, .mat, .pth) or loaded weights; None for the
            trained ones that come with the package.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        features: what the features of boxes are taken from; the default convolves the frame once for all of them.

    Every target draws from a generator of its own, seeded with ``config.seed``: a target's track does not depend on
    which others are tracked with it, up to the rounding of batched matrix products.

    Raises:
        InputError: the weights or the device cannot be used.
    """

    def __init__(
        self,
        config: TrackerConfig | None = None,
        *,
        weights: str | Path | NetworkWeights | None = None,
        device: str | torch.device = "auto",
        features: FeatureProvider = FrameFeatures,
    ) -> None:
        config = config or TrackerConfig()
        weights = DEFAULT_WEIGHTS if weights is None else weights
        if isinstance(weights, NetworkWeights):
            check_weights(weights, config.network)
        else:
            weights = load_weights(weights, config.network)
        self.weights = weights
        grid = config.network.roi_grid
        if grid == "auto":
            grid = "interior" if self.weights.roi_grid == "interior" else "midpoint"
        self.config = replace(config, network=replace(config.network, roi_grid=grid))
        self.device = choose_device(device)
        self.clock = StageClock(self.device)
        self._backbone = Backbone.with_weights(
            self.config.network, self.weights.tensors, self.weights.feature_scale
        ).to(self.device)
        self._feature_provider = features
        self._mean = torch.tensor(self.weights.mean, dtype=torch.float32, device=self.device)
        self._together = self.device.type != "cpu"  # fine-tune the heads of several targets at once
        self._targets: list[_Target] = []
        self._pool = torch.empty((0, ROI_FEATURES), dtype=torch.float32, device=self.device)
        self._frame_number = 0

    @torch.inference_mode(False)  # what init makes, update writes to: both outside, whatever the caller is in
    @torch.no_grad()
    def init(self, image: NDArray[np.uint8] | Tensor, boxes_xywh: ArrayLike) -> tuple[Update, ...]:
        """Learn the targets from the first frame (paper 3.4); forgets what was tracked before.

        Args:
            image: uint8 [H, W, 3], RGB.
            boxes_xywh: [4] or [T, 4], 0-based pixels, floats allowed; partly outside the frame is fine.

        Returns:
            What the fine-tuning did, per target.

        Raises:
            InputError: an image or boxes that cannot be used.
        """
        frame = check_image(image)
        boxes = check_boxes(boxes_xywh, frame.shape[1], frame.shape[0])
        self._set_frame_size((frame.shape[1], frame.shape[0]))
        self._frame_number = 1
        with self.clock.stage("features"):
            self._begin(frame)
            height, width = self._features.frame_hw
            self._features.require(torch.tensor([0.0, 0.0, width, height], dtype=torch.float32, device=self.device))
        self._boxes = torch.tensor(boxes, dtype=torch.float32, device=self.device) * self._scale
        self._targets = self._new_targets(len(boxes))
        self._heads = Heads.for_targets(
            self.config.network, self.weights.tensors, [target.generator for target in self._targets]
        )
        captured = self._pool if self._together else None
        self._tuner = FineTuner(self._heads, self.config, together=self._together, captured=captured)
        return tuple(self._learn_first(t) for t in range(len(self._targets)))

    @torch.inference_mode(False)
    @torch.no_grad()
    def update(self, image: NDArray[np.uint8] | Tensor) -> TrackResult:
        """Find the targets in the next frame and learn from it (paper 3.4).

        Args:
            image: uint8 [H, W, 3], RGB. Its size may differ from the last frame's: the video is then taken to have
                been rescaled.

        Raises:
            InputError: called before :meth:`init`, or an image that cannot be used.
        """
        if not self._targets:
            raise InputError("the tracker has no target yet: call init(image, boxes_xywh) on the first frame")
        frame = check_image(image)
        self._frame_number += 1
        with self.clock.stage("features"):
            self._follow_frame_size((frame.shape[1], frame.shape[0]))
            self._begin(frame)
            candidates = self._candidates()
            self._features.require(candidates)
        with self.clock.stage("score"):
            found, best_xywh, scores = self._search(candidates)
            success = [score > self.config.score_threshold for score in scores]
            refined = self._refine(found, best_xywh, success)
        self._boxes = refined if self.config.search_from_refined else found
        for target, succeeded in zip(self._targets, success, strict=True):
            target.translation = (
                self.config.search_translation
                if succeeded
                else min(target.translation * self.config.search_growth, self.config.search_translation_max)
            )
        self._collect([t for t, succeeded in enumerate(success) if succeeded])
        with self.clock.stage("update"):
            updates = self._learn(success)
        return TrackResult((refined / self._scale).double().cpu().numpy(), np.array(scores), np.array(success), updates)

    # Frames

    def _begin(self, frame: Tensor) -> None:
        self._features.begin(network_input(frame, self._features.frame_hw, self._mean))

    def _set_frame_size(self, image_wh: tuple[int, int]) -> None:
        """Everything that depends on the image's size: boxes are kept in pixels of the resized frame."""
        self._image_wh = image_wh
        frame_hw = network_size(image_wh[1], image_wh[0], self.config.short_side, self.config.max_side)
        self._features = self._feature_provider(self._backbone, frame_hw)
        scale = (frame_hw[1] / image_wh[0], frame_hw[0] / image_wh[1])
        self._round_to = scale if self.config.round_boxes else None
        self._scale = torch.tensor(scale * 2, dtype=torch.float32, device=self.device)

    def _follow_frame_size(self, image_wh: tuple[int, int]) -> None:
        if image_wh == self._image_wh:
            return
        old_hw = self._features.frame_hw
        self._set_frame_size(image_wh)
        new_hw = self._features.frame_hw
        change = (new_hw[1] / old_hw[1], new_hw[0] / old_hw[0])
        self._boxes = self._boxes * torch.tensor(change * 2, dtype=torch.float32, device=self.device)

    # Learning

    def _new_targets(self, count: int) -> list[_Target]:
        """Targets of which nothing is known, their memories side by side in one pool."""
        config = self.config
        positives = config.long_memory, config.positives, config.first_positives
        negatives = config.short_memory, config.negatives, config.negatives
        n_positives, n_negatives = SampleMemory.capacity(*positives), SampleMemory.capacity(*negatives)
        rows = n_positives + n_negatives
        if len(self._pool) != count * rows:  # another video's pool does as well
            self._pool = self._pool.new_empty((count * rows, ROI_FEATURES))
        return [
            _Target(
                generator=torch.Generator(self.device).manual_seed(config.seed),
                positives=SampleMemory(self._pool, first_row, *positives),
                negatives=SampleMemory(self._pool, first_row + n_positives, *negatives),
                translation=config.search_translation,
            )
            for first_row in range(0, count * rows, rows)
        ]

    def _sampler(self, target: _Target) -> TargetSampler:
        height, width = self._features.frame_hw
        return TargetSampler(self.config, (width, height), target.generator, self._round_to)

    def _learn_first(self, t: int) -> Update:
        """Box regressor, fine-tuning and memory of the first frame (paper 3.4; MDNet)."""
        config, target, box = self.config, self._targets[t], self._boxes[t]
        sampler = self._sampler(target)
        with self.clock.stage("collect"):
            if config.bbox_regression:
                samples = sampler.regression_samples(box)
                features = self._features.of_boxes(samples)
                target.regressor = BoxRegressor(features, samples, box, config.bbox_regression_ridge)
            positives, negatives = sampler.first_positives(box), sampler.first_negatives(box)
            features = self._features.of_boxes(torch.cat((positives, negatives)))
            target.positives.append(features[: len(positives)])
            target.negatives.append(self._features.of_boxes(sampler.remembered_negatives(box)))
        with self.clock.stage("update"):
            rows = torch.arange(len(features), device=self.device)
            ((iterations, loss),) = fine_tune(
                self._tuner,
                features,
                [Lesson(t, rows[: len(positives)], rows[len(positives) :], target.generator)],
                config.first_learning_rate,
                config.first_iterations,
                config.first_loss_threshold,
            )
        return Update("first", iterations, loss)

    def _collect(self, targets: list[int]) -> None:
        """Remember positives and negatives around the targets that were found (MDNet)."""
        if not targets:
            return
        boxes, counts = [], []
        with self.clock.stage("collect"):
            for t in targets:
                sampler, box = self._sampler(self._targets[t]), self._boxes[t]
                positives, negatives = sampler.positives(box), sampler.negatives(box)
                boxes += [positives, negatives]
                counts += [len(positives), len(negatives)]
        drawn = torch.cat(boxes)
        with self.clock.stage("features"):
            self._features.require(drawn)
        with self.clock.stage("collect"):
            features = self._features.of_boxes(drawn).split(counts)
            for t, positive_features, negative_features in zip(targets, features[::2], features[1::2], strict=True):
                self._targets[t].positives.append(positive_features)
                self._targets[t].negatives.append(negative_features)

    def _learn(self, success: list[bool]) -> tuple[Update | None, ...]:
        """Short-term updates after a failure, long-term updates at the regular interval (paper 3.4)."""
        config = self.config
        regular = self._frame_number % config.long_interval == 0
        lessons = [
            Lesson(
                t,
                target.positives.of_last(config.long_memory if success[t] else config.short_memory),
                target.negatives.of_last(config.short_memory),
                target.generator,
            )
            for t, target in enumerate(self._targets)
            if regular or not success[t]
        ]
        results = fine_tune(
            self._tuner,
            self._pool,
            lessons,
            config.update_learning_rate,
            config.update_iterations,
            config.loss_threshold,
        )
        updates: list[Update | None] = [None] * len(success)
        for lesson, result in zip(lessons, results, strict=True):
            updates[lesson.target] = Update("long" if success[lesson.target] else "short", *result)
        return tuple(updates)

    # Search

    def _candidates(self) -> Tensor:
        """[T, K, 4] boxes around the last ones, in pixels of the resized frame."""
        drawn = [
            self._sampler(target).candidates(box, target.translation)
            for target, box in zip(self._targets, self._boxes, strict=True)
        ]
        return torch.stack(drawn)

    def _search(self, candidates: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        """Mean of the best candidates [T, 4], the best candidates [T, k, 4], their mean score per target."""
        scores = self._heads.scores(self._features.of_boxes(candidates))
        best = scores.topk(self.config.top_k, dim=1)
        best_xywh = candidates.gather(1, best.indices[..., None].expand(-1, -1, 4))
        found = best_xywh.mean(dim=1)
        if self._round_to is not None:
            found = rounded(found, self._round_to)
        return found, best_xywh, best.values.mean(dim=1).tolist()

    def _refine(self, found: Tensor, best_xywh: Tensor, success: list[bool]) -> Tensor:
        """[T, 4]: where a target was found, the mean of its best candidates' regressed boxes; else ``found``."""
        if not self.config.bbox_regression or not any(success):
            return found
        features = self._features.of_boxes(best_xywh)
        refined = found.clone()
        for t, target in enumerate(self._targets):
            if success[t] and target.regressor is not None:
                refined[t] = target.regressor.refine(features[t], best_xywh[t]).mean(dim=0)
        return refined
