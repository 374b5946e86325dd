"""Frames whose size follows the targets', and copies of the first one that lie differently in the grid of cells."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from fdn_triton.backbone import Backbone
from fdn_triton.config import TrackerConfig
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.timing import StageClock
from fdn_triton.view import ShiftedFeatures, View
from fdn_triton.weights import untrained_weights

IMAGE_HW = (60, 80)
BOXES = torch.tensor([[30.0 + 3 * i, 25.0 + 2 * i, 40.0, 36.0] for i in range(9)])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    network = TrackerConfig().network
    weights = untrained_weights(network)
    return Backbone.with_weights(network, weights.tensors, weights.feature_scale)


def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*IMAGE_HW, 3), dtype=np.uint8))


def view(backbone: Backbone, short_side: int, shifts: int = 1, resize_step: float | None = 1.1) -> View:
    config = TrackerConfig(short_side=short_side, least_target_size=None, first_shifts=shifts, resize_step=resize_step)
    clock = StageClock(torch.device("cpu"))
    result = View(config, partial(FrameFeatures, backbone), torch.zeros(3), (IMAGE_HW[1], IMAGE_HW[0]), 20.0, clock)
    result.begin(image())
    return result


def test_one_shift_is_the_frame_itself(backbone: Backbone) -> None:
    one = view(backbone, 120, 1)
    assert torch.equal(one.shifted_features().of_boxes(BOXES), one.features.of_boxes(BOXES))


def test_every_box_is_taken_from_the_next_copy_where_it_lies_there(backbone: Backbone) -> None:
    # 2 pixels of the resized frame for one of the image: half a cell is 4 pixels of the image.
    features = view(backbone, 120, 2).shifted_features().of_boxes(BOXES)
    for i, (right, down) in enumerate(((0, 0), (4, 0), (0, 4), (4, 4))):
        moved = np.pad(image().numpy(), ((down, 0), (right, 0), (0, 0)), mode="edge")[: IMAGE_HW[0], : IMAGE_HW[1]]
        alone = view(backbone, 120, 1)
        alone.begin(torch.from_numpy(np.ascontiguousarray(moved)))
        boxes = BOXES[i::4] + torch.tensor([2.0 * right, 2.0 * down, 0, 0])
        torch.testing.assert_close(features[i::4], alone.features.of_boxes(boxes), rtol=1e-4, atol=1e-4)


def test_copies_lie_differently_in_the_grid(backbone: Backbone) -> None:
    one = BOXES[:1].expand(4, -1)
    features = view(backbone, 120, 2).shifted_features().of_boxes(one)
    for i in range(1, 4):
        assert not torch.allclose(features[0], features[i], rtol=0.05)


def test_a_frame_that_is_shrunk_moves_by_parts_of_a_cell_too(backbone: Backbone) -> None:
    # Half the size: half a cell is 16 pixels of the image, and 8 of the resized frame.
    features = view(backbone, 30, 2).shifted_features()
    offsets = [tuple(offset.tolist()) for _, offset in features.copies]
    assert offsets == [(0, 0, 0, 0), (8, 0, 0, 0), (0, 8, 0, 0), (8, 8, 0, 0)]


def test_fewer_boxes_than_copies(backbone: Backbone) -> None:
    features: ShiftedFeatures = view(backbone, 120, 3).shifted_features()
    assert len(features.copies) == 9
    assert features.of_boxes(BOXES[:2]).shape == (2, 4608)
    assert features.of_boxes(BOXES[:0]).shape == (0, 4608)


@pytest.mark.parametrize(
    ("growth", "enlarged"),
    [(1.0, 1.0), (1.09, 1.0), (0.92, 1.0), (1.11, 1 / 1.1), (0.9, 1.1), (1.25, 1.1**-2), (0.2, 2.0)]
    + [(growth, 1.0) for growth in (math.nan, math.inf, 0.0)],
)
def test_the_frame_is_sized_anew_in_whole_steps(backbone: Backbone, growth: float, enlarged: float) -> None:
    frame = view(backbone, 120)
    change = frame.begin(image(), growth)
    assert frame.frame_wh == (round(160 * enlarged), round(120 * enlarged))
    assert frame.scale.tolist() == pytest.approx([frame.frame_wh[0] / 80, frame.frame_wh[1] / 60] * 2)
    if enlarged == 1.0:
        assert change is None
    else:
        assert change == (frame.frame_wh[0] / 160, frame.frame_wh[1] / 120)
        assert frame.begin(image(), growth * change[0] if enlarged != 2.0 else growth) is None, "once is enough"


def test_images_and_targets_may_change_at_once(backbone: Backbone) -> None:
    frame = view(backbone, 120)
    assert frame.begin(image()[::2, :], 1.2) == pytest.approx((2 / 1.1, 1 / 1.1), rel=0.02)
    assert frame.pixel == (frame.frame_wh[0] / 80, frame.frame_wh[1] / 30)


def test_the_frame_keeps_its_size_where_nothing_is_to_follow(backbone: Backbone) -> None:
    frame = view(backbone, 120, resize_step=None)
    assert frame.begin(image(), 3.0) is None
    assert frame.frame_wh == (160, 120)


def test_images_of_another_size_keep_what_the_targets_asked_for(backbone: Backbone) -> None:
    frame = view(backbone, 120)
    frame.begin(image(), 1.2)
    smaller = frame.frame_wh
    assert frame.begin(image()[::2, ::2], 1.0) == (1.0, 1.0), "the same picture, resized to the same size"
    assert frame.frame_wh == smaller
