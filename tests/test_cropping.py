"""MDNet's crops: where their pixels come from, what is computed of them, and that the tracker follows with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_otb import TRUTH, quick_config
from torch import Tensor

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.errors import InputError
from fdn_triton.evaluation import cropping
from fdn_triton.evaluation.cropping import CONTEXT, CROP_SIDE, CroppedFeatures
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.sequence import open_sequence
from fdn_triton.tracker import Tracker
from fdn_triton.weights import untrained_weights


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    weights = untrained_weights(NetworkConfig())
    return Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale)


def provider(backbone: Backbone, frame: Tensor) -> CroppedFeatures:
    features = CroppedFeatures(backbone, (frame.shape[2], frame.shape[3]), torch.zeros(3))
    features._frame = frame.contiguous(memory_format=torch.channels_last)
    return features


def test_a_box_of_75_pixels_is_the_middle_of_a_cut(backbone: Backbone) -> None:
    frame = torch.rand(1, 3, 150, 180, generator=torch.Generator().manual_seed(0))
    (crop,) = provider(backbone, frame).crops(torch.tensor([[40.0, 30.0, 75.0, 75.0]]))
    x, y = 40 - CONTEXT, 30 - CONTEXT
    torch.testing.assert_close(crop, frame[0, :, y : y + CROP_SIDE, x : x + CROP_SIDE], rtol=0, atol=1e-4)


def test_a_box_is_warped_to_the_middle(backbone: Backbone) -> None:
    """On a frame that holds its coordinates the crop says where it was sampled."""
    y, x = torch.meshgrid(torch.arange(120.0) + 0.5, torch.arange(300.0) + 0.5, indexing="ij")
    frame = torch.stack((x, y, torch.ones_like(x)))[None]
    boxes = torch.tensor([[100.0, 50.0, 150.0, 15.0], [60.0, 40.0, 37.5, 30.0]])
    for crop, (left, top, width, height) in zip(provider(backbone, frame).crops(boxes), boxes.tolist(), strict=True):
        pixels = (torch.arange(CROP_SIDE) + 0.5 - CONTEXT) / 75
        torch.testing.assert_close(crop[0], (left + pixels * width).expand(CROP_SIDE, -1), rtol=0, atol=1e-2)
        torch.testing.assert_close(crop[1].T, (top + pixels * height).expand(CROP_SIDE, -1), rtol=0, atol=1e-2)


def test_what_lies_outside_is_the_mean(backbone: Backbone) -> None:
    frame = torch.ones(1, 3, 100, 100)
    (crop,) = provider(backbone, frame).crops(torch.tensor([[0.0, 0.0, 75.0, 75.0]]))
    assert crop[:, :CONTEXT].abs().max() < 1e-4 and crop[:, :, :CONTEXT].abs().max() < 1e-4
    torch.testing.assert_close(crop[:, CONTEXT:-7, CONTEXT:-7], torch.ones(3, 84, 84))
    (nothing,) = provider(backbone, frame).crops(torch.tensor([[500.0, -400.0, 75.0, 75.0]]))
    assert nothing.abs().max() == 0


def test_features_are_those_of_mdnets_network(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the layers of PyTorch without padding, crop by crop; batches of any size give the same."""
    frame = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(1)) * 255 - 120
    boxes = torch.tensor([[20.0, 30.0, 40.0, 80.0], [90.0, 100.0, 75.0, 75.0], [-20.0, 150.0, 60.0, 90.0]])
    features = provider(backbone, frame)
    monkeypatch.setattr(cropping, "_BATCH", 2)
    found = features.of_boxes(boxes[None])
    assert found.shape == (1, 3, 4608)
    for crop, of_box in zip(features.crops(boxes), found[0], strict=True):
        x = crop[None]
        sides = []
        for convolution, pooled in zip(backbone.convolutions(), (True, True, False), strict=True):
            x = F.conv2d(x, convolution.weight, convolution.bias, convolution.stride).relu()
            sides.append(x.shape[-1])
            if pooled:
                x = F.max_pool2d(F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2), 3, stride=2)
                sides.append(x.shape[-1])
        assert sides == [51, 25, 11, 5, 3]
        expected = (x[0] * backbone.feature_scale).permute(1, 2, 0).flatten()  # (y, x, channel)
        torch.testing.assert_close(of_box, expected, rtol=1e-4, atol=1e-3)


def test_five_convolutions_are_refused() -> None:
    with pytest.raises(InputError, match="three convolutions"):
        CroppedFeatures(Backbone(NetworkConfig(conv_layers=5)), (100, 100), torch.zeros(3))


def test_the_tracker_follows_with_crops() -> None:
    sequence = open_sequence(clip_path(), max_frames=3)
    images = [frame.image for frame in sequence.frames()]
    truth = TRUTH[:3] - (1, 1, 0, 0)
    config = TrackerConfig.from_preset(
        "paper",
        **{**vars(quick_config()), "candidates": 48, "first_iterations": 10, "short_side": 240, "max_side": 400},
    )
    tracker = Tracker(config, weights="untrained", device="cpu", features=CroppedFeatures)
    assert images[0] is not None
    tracker.init(images[0], truth[0])
    boxes = [tracker.update(image).boxes_xywh[0] for image in images[1:] if image is not None]
    assert overlaps(np.array(boxes), truth[1:]).min() > 0.5
