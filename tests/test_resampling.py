"""Parts of the resized frame are those of the whole one, from the part of the image that they need."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.rectangle import Rectangle
from fdn_triton.resampling import BLOCK, FrameResampler
from fdn_triton.weights import load_weights

MEAN = torch.tensor([120.0, 110.0, 100.0])
# Enlarged, shrunk, one of each per axis, as they are, down to one pixel and up from one.
SIZES = [
    ((61, 83), (150, 201)),
    ((190, 230), (50, 61)),
    ((40, 300), (97, 90)),
    ((64, 48), (64, 48)),
    ((30, 9), (1, 40)),
    ((1, 1), (20, 33)),
    ((2160, 90), (562, 23)),
]


def _image(image_hw: tuple[int, int]) -> Tensor:
    return torch.randint(0, 256, (*image_hw, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _whole(image: Tensor, frame_hw: tuple[int, int]) -> Tensor:
    """By PyTorch, in float64."""
    shrinks = frame_hw[0] < image.shape[0] or frame_hw[1] < image.shape[1]
    planes = image.permute(2, 0, 1)[None].double()
    resized = F.interpolate(planes, size=frame_hw, mode="bilinear", align_corners=False, antialias=shrinks)
    return (resized - MEAN[:, None, None]).float()


@pytest.mark.parametrize(("image_hw", "frame_hw"), SIZES)
def test_parts_are_those_of_the_whole(image_hw: tuple[int, int], frame_hw: tuple[int, int]) -> None:
    image = _image(image_hw)
    whole = _whole(image, frame_hw)
    resampler = FrameResampler(image_hw, frame_hw, MEAN)
    height, width = frame_hw
    middle = Rectangle(height // 3, height // 3 + 1, width // 2, width // 2 + 20).of_blocks(BLOCK)
    for rectangle in (Rectangle(0, height, 0, width), middle.clipped(*frame_hw)):
        part = resampler.part(image, rectangle)
        expected = whole[:, :, rectangle.top : rectangle.bottom, rectangle.left : rectangle.right]
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-3)  # grey levels; fp32 has 1.5e-5 at 255


def test_only_the_surroundings_of_a_part_are_read() -> None:
    """Changes of the image two pixels beyond the part's own, in its size, leave it as it is."""
    image = _image((200, 300))
    resampler = FrameResampler((200, 300), (100, 150), MEAN)
    rectangle = Rectangle(32, 64, 48, 80)
    part = resampler.part(image, rectangle)
    elsewhere = torch.zeros_like(image)
    window = (slice(2 * 32 - 2, 2 * 64 + 2), slice(2 * 48 - 2, 2 * 80 + 2))
    elsewhere[window] = image[window]
    assert torch.equal(resampler.part(elsewhere, rectangle), part)


def test_images_of_any_strides() -> None:
    image = _image((40, 60))
    resampler = FrameResampler((40, 30), (50, 50), MEAN)
    strided, whole = image[:, ::2], Rectangle(0, 50, 0, 50)
    assert torch.equal(resampler.part(strided, whole), resampler.part(strided.contiguous(), whole))


@pytest.mark.parametrize(("image_hw", "frame_hw"), [((120, 160), (150, 200)), ((540, 960), (141, 250))])
def test_features_are_those_of_the_whole_resized_frame(image_hw: tuple[int, int], frame_hw: tuple[int, int]) -> None:
    """With the shipped weights, of a window that grows twice."""
    weights = load_weights("fdn", NetworkConfig())
    backbone = Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale)
    image = _image(image_hw)
    whole = backbone(_whole(image, frame_hw))
    features = FrameFeatures(backbone, frame_hw, MEAN)
    features.begin(image)
    for side in (20.0, 60.0, 300.0):
        boxes = torch.tensor([[60.0, 50.0, side, side]])
        expected = backbone.roi_features(whole, boxes)
        torch.testing.assert_close(features.of_boxes(boxes), expected, rtol=0, atol=1e-4 * float(expected.max()))


def test_torchs_default_type_changes_nothing() -> None:
    image, pixels = torch.randint(0, 256, (40, 30, 3), dtype=torch.uint8), Rectangle(0, 60, 0, 45)
    expected = FrameResampler((40, 30), (60, 45), MEAN).part(image, pixels)
    torch.set_default_dtype(torch.float64)
    try:
        part = FrameResampler((40, 30), (60, 45), MEAN).part(image, pixels)
    finally:
        torch.set_default_dtype(torch.float32)
    assert part.dtype == torch.float32 and torch.equal(part, expected)
