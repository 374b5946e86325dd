"""A target: what is known of it besides its head, and what is told of it for each frame."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bbox_regression import BoxRegressor
from .config import TrackerConfig
from .online import SampleMemory, Update
from .target_sampling import TargetSampler
from .view import View


@dataclass(frozen=True)
class TrackResult:
    """One frame's result for T targets.

    Attributes:
        boxes_xywh: [T, 4] float64, pixels of the given frame, 0-based.
        scores: [T] float64, mean target score of the best candidates, before softmax.
        success: [T] bool, score above ``score_threshold``.
        updates: per target what its update did on this frame, None where there was none.
        ids: per target the number that it was given when it was added, ascending.
    """

    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]
    success: NDArray[np.bool_]
    updates: tuple[Update | None, ...]
    ids: tuple[int, ...]


@dataclass(eq=False)
class Target:
    """What differs per target besides its head.

    Attributes:
        id: unique in its view.
        view: the video that it is in.
        box_xywh: [4], where it is searched from, pixels of the resized frame.
        slot: of the pool, where its memories are.
        generator: of all that is drawn for it, on the host.
        learnt_side: mean of the box's width and height where it was learnt, pixels of the resized frame of then.
        growth: of that mean since, in pixels of the resized frame, when it was last found.
        frames: seen so far.
        translation: spread of the candidates' centres, target sizes.
    """

    id: int
    view: View
    box_xywh: Tensor
    slot: int
    generator: torch.Generator
    positives: SampleMemory
    negatives: SampleMemory
    translation: float
    learnt_side: float
    growth: float = 1.0
    frames: int = 1
    regressor: BoxRegressor | None = None

    def sampler(self, config: TrackerConfig) -> TargetSampler:
        """Draws boxes around it in its view's frame."""
        round_to = self.view.pixel if config.round_boxes else None
        return TargetSampler(config, self.view.frame_wh, self.generator, round_to)

    def next_gives_negatives(self, config: TrackerConfig) -> bool:
        """Whether negatives of the next frame are to be remembered, if it is a success."""
        return (self.frames + 1) % config.negatives_interval == 0

    def move(self, box_xywh: Tensor, side: float, succeeded: bool, config: TrackerConfig) -> None:
        """Search on from the box [4], whose mean side is given, in a wider surrounding after a failure."""
        self.box_xywh = box_xywh
        if succeeded:
            self.growth = side / self.learnt_side
        self.frames += 1
        self.translation = (
            config.search_translation
            if succeeded
            else min(self.translation * config.search_growth, config.search_translation_max)
        )


@contextmanager
def stage(views: Collection[View], name: str) -> Iterator[None]:
    """Count the time of the ``with`` block towards the stage, in equal parts for each view."""
    if len(views) == 1:  # without the stack's few microseconds, which are a percent of a GPU's frame
        with next(iter(views)).clock.stage(name):
            yield
        return
    with ExitStack() as stack:
        for view in views:
            stack.enter_context(view.clock.stage(name, 1 / len(views)))
        yield


def by_view(targets: Sequence[Target], rows: Tensor) -> Iterator[tuple[View, Tensor]]:
    """The rows [S, ...] of the targets, view by view; the targets of a view lie side by side."""
    views = [(view, len(list(same))) for view, same in groupby(targets, key=lambda target: target.view)]
    return zip((view for view, _ in views), rows.split([count for _, count in views]), strict=True)
