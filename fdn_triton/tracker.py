"""The tracker: a box on the first frame, one box for every further frame. Pure computation, no files, no printing."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .backbone import Backbone
from .config import TrackerConfig
from .device import choose_device, convolution_dtype, upload
from .errors import InputError
from .frame import check_boxes, check_image
from .frame_features import FeatureProvider, FrameFeatures
from .online import Update
from .target import TrackResult
from .targets import Targets
from .timing import StageClock
from .view import View
from .weights import DEFAULT_WEIGHTS, NetworkWeights, check_weights, load_weights, network_as_trained


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
        features: what the features of boxes are taken from, a subclass of
            :class:`~fdn_triton.frame_features.Features`; the default convolves the frame once for all of them.

    Every target draws from a generator of its own, seeded with ``config.seed``, and counts its own frames: its track
    does not depend on which others are tracked with it, up to rounding (of features, whose window in the frame is that
    of all targets, and on a GPU of batched products). But by ``config.target_size`` and ``least_target_size``, frames
    are resized for the smallest of the targets that the video began with, and by ``resize_step`` as all of them grow.

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
        self.config = replace(config, network=network_as_trained(config.network, weights))
        self.device = choose_device(device)
        self.clock = StageClock(self.device)
        self._backbone = Backbone.with_weights(
            self.config.network,
            self.weights.tensors,
            self.weights.feature_scale,
            convolution_dtype(self.config.conv_precision, self.device),
        ).to(self.device)
        self._features_of_size = partial(features, self._backbone)
        self._mean = torch.tensor(self.weights.mean, dtype=torch.float32, device=self.device)
        self._targets = Targets(self.config, self.weights, self.device)
        self._view: View | None = None
        self._next_id = 0

    def beside(self, seed: int) -> Tracker:
        """A tracker without targets for another video, which shares the network and every launch that can be shared.

        Give each of them its next frame by :meth:`begin_update` before the first :meth:`finish_update`: the heads
        of all then learn together, with the results that each has alone (on a CPU to the last bit).

        Args:
            seed: takes the place of the configuration's.
        """
        other = copy.copy(self)
        other.config, other.clock = replace(self.config, seed=seed), StageClock(self.device)
        other._view, other._next_id = None, 0
        return other

    @torch.inference_mode(False)  # what init makes, update writes to: both outside, whatever the caller is in
    @torch.no_grad()
    def init(self, image: NDArray[np.uint8] | Tensor, boxes_xywh: ArrayLike) -> tuple[Update, ...]:
        """Learn the targets from the first frame (paper 3.4); forgets what was tracked before.

        Args:
            image: uint8 [H, W, 3], RGB.
            boxes_xywh: [4] or [T, 4], 0-based pixels, floats allowed; partly outside the frame is fine. Their ids are 0
                to T - 1.

        Returns:
            What the fine-tuning did, per target.

        Raises:
            InputError: an image or boxes that cannot be used.
        """
        frame = self._frame(image)
        boxes = check_boxes(boxes_xywh, frame.shape[1], frame.shape[0])
        self._forget()
        return self._add(frame, boxes)

    @torch.inference_mode(False)
    @torch.no_grad()
    def add(self, image: NDArray[np.uint8] | Tensor, boxes_xywh: ArrayLike) -> tuple[int, ...]:
        """Learn more targets, as :meth:`init` does, from a frame between two updates; the others are left as they are,
        but that by ``config.resize_step`` the growth of the new ones counts towards the size of further frames.

        The frame is the one last given to :meth:`update` or :meth:`init`, or one behind it. Its features are computed
        anew, so that a new target is learnt and then tracked as by a tracker that starts there. Its first update is the
        next one; its long-term updates count from its own first frame. Where other targets are tracked, frames have the
        size that those give them, however small the new one is.

        Args:
            image: uint8 [H, W, 3], RGB.
            boxes_xywh: [4] or [n, 4], as :meth:`init` takes them.

        Returns:
            The new targets' ids, of which no other target has had one since :meth:`init`.

        Raises:
            InputError: an image or boxes that cannot be used; nothing is added then.
        """
        frame = self._frame(image)
        boxes = check_boxes(boxes_xywh, frame.shape[1], frame.shape[0])
        first = self._next_id
        self._add(frame, boxes)
        return tuple(range(first, self._next_id))

    @torch.inference_mode(False)
    @torch.no_grad()
    def remove(self, target_id: int) -> None:
        """Forget one target. Its memory serves the next one that is added; the last one's is given back.

        Raises:
            InputError: there is no such target.
        """
        targets = [] if self._view is None else self._targets.of(self._view)
        gone = [target for target in targets if target.id == target_id]
        if not gone:
            ids = ", ".join(str(target.id) for target in targets) or "none"
            raise InputError(f"there is no target {target_id}: the tracker's are {ids}")
        self._targets.remove(gone)
        if self._view is not None and not self._targets.of(self._view):
            self._targets.forget(self._view)
            self._view = None  # who comes next begins a video
        self._targets.release()

    @torch.inference_mode(False)
    @torch.no_grad()
    def update(self, image: NDArray[np.uint8] | Tensor) -> TrackResult:
        """Find the targets in the next frame and learn from it (paper 3.4).

        Args:
            image: uint8 [H, W, 3], RGB. Its size may differ from the last frame's: the video is then taken to have
                been rescaled.

        Raises:
            InputError: there is no target, or an image that cannot be used.
        """
        self._begin_update(image)
        return self._finish_update()

    @torch.inference_mode(False)
    @torch.no_grad()
    def begin_update(self, image: NDArray[np.uint8] | Tensor) -> None:
        """The first half of :meth:`update`: take the next frame, in turn with the trackers :meth:`beside` this one.

        The image must stay as it is until the second half.
        """
        self._begin_update(image)

    def _begin_update(self, image: NDArray[np.uint8] | Tensor) -> None:
        if self._view is None or not self._targets.of(self._view):
            raise InputError("the tracker has no target: call init(image, boxes_xywh) or add(image, boxes_xywh)")
        self._targets.expect(self._view, self._frame(image))

    @torch.inference_mode(False)
    @torch.no_grad()
    def finish_update(self) -> TrackResult:
        """The second half of :meth:`update`: what was found in the frame that :meth:`begin_update` took."""
        return self._finish_update()

    def _finish_update(self) -> TrackResult:
        if self._view is None or not self._targets.expects(self._view):
            raise InputError("no frame was begun: call begin_update(image) before finish_update()")
        return self._targets.result(self._view)

    def clear(self) -> None:
        """Forget all targets, and give their memory back: to the trackers :meth:`beside` this one, if there are any."""
        self._forget()
        self._targets.release()

    def _forget(self) -> None:
        if self._view is not None:
            self._targets.forget(self._view)
        self._view, self._next_id = None, 0

    def _frame(self, image: NDArray[np.uint8] | Tensor) -> Tensor:
        """The image, checked, on the tracker's device."""
        return upload(check_image(image), self.device)

    def _add(self, frame: Tensor, boxes_xywh: NDArray[np.float64]) -> tuple[Update, ...]:
        with self.clock.stage("features"):
            if self._view is None:
                image_wh, target_side = (frame.shape[1], frame.shape[0]), float(boxes_xywh[:, 2:].mean(axis=1).min())
                self._view = View(self.config, self._features_of_size, self._mean, image_wh, target_side, self.clock)
            self._targets.begin(self._view, frame)
        boxes = torch.tensor(boxes_xywh, dtype=torch.float32, device=self.device) * self._view.scale
        ids = range(self._next_id, self._next_id + len(boxes))
        self._next_id = ids.stop
        return self._targets.add(self._view, ids, boxes, self.config.seed)
