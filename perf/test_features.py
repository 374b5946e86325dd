"""The trunk on the CPU: the whole frame, and only the windows that candidates and negatives need."""

from __future__ import annotations

import pytest
import torch

from fdn_triton import NetworkConfig
from fdn_triton.backbone import Backbone
from fdn_triton.frame import network_input
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.weights import untrained_weights

IMAGE_HW, FRAME_HW = (360, 640), (562, 1000)
WINDOWS = {  # x, y, w, h in the resized frame: typical of a target of 90x100 pixels
    "whole frame": [(0, 0, 1000, 562)],
    "candidates": [(300, 100, 400, 300)],
    "candidates, then negatives": [(300, 100, 400, 300), (200, 0, 600, 520)],
}


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.benchmark(group="features of a 1000x562 frame")
def test_features(benchmark, generator: torch.Generator, windows: str) -> None:
    network = NetworkConfig()
    weights = untrained_weights(network)
    backbone = Backbone.with_weights(network, weights.tensors, weights.feature_scale)
    mean = torch.tensor(weights.mean)
    image = torch.randint(0, 256, (*IMAGE_HW, 3), generator=generator, dtype=torch.uint8)
    features = FrameFeatures(backbone, FRAME_HW, mean)
    boxes = torch.tensor(WINDOWS[windows], dtype=torch.float32)

    def compute() -> None:
        features.begin(image)
        for box in boxes:
            features.require(box)

    compute()
    expected = backbone.roi_features(backbone(network_input(image, FRAME_HW, mean)), boxes)
    torch.testing.assert_close(features.of_boxes(boxes), expected, rtol=1e-4, atol=1e-3)
    benchmark(compute)
