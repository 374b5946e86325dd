"""Random views of images: repeatable, within the image, mirrored and coloured otherwise in the stated shares.

Blur as by motion: along its line only.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fdn_triton.training.augmentation import motion_blur, random_views


def views(pixels: torch.Tensor, side: int = 16, seed: int = 0) -> torch.Tensor:
    return random_views(pixels, side, torch.Generator().manual_seed(seed))


def test_views_repeat_with_the_generator_only() -> None:
    pixels = torch.randint(0, 256, (5, 3, 20, 20), dtype=torch.uint8)
    before = torch.random.get_rng_state()
    first = views(pixels)
    assert first.shape == (5, 3, 16, 16) and first.dtype == torch.float32
    assert float(first.min()) >= 0 and float(first.max()) <= 255
    assert torch.equal(first, views(pixels)) and not torch.equal(first, views(pixels, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_plain_image_stays_plain() -> None:
    """Nothing from outside of the image gets into a view."""
    pixels = torch.full((50, 3, 20, 20), 120, dtype=torch.uint8)
    result = views(pixels)
    assert float((result.amax(dim=(2, 3)) - result.amin(dim=(2, 3))).max()) < 1e-3
    assert float(result.min()) > 80 and float(result.max()) < 160


def test_half_of_the_views_are_mirrored_and_a_tenth_is_grey() -> None:
    pixels = torch.zeros(400, 3, 20, 20, dtype=torch.uint8)
    pixels[:, 0] = torch.linspace(20, 220, 20).to(torch.uint8)  # red, rising to the right
    result = views(pixels)
    rises = result[:, 0, :, -1].mean(dim=1) > result[:, 0, :, 0].mean(dim=1)
    assert 0.4 < float(rises.float().mean()) < 0.6
    grey = (result[:, 0] - result[:, 2]).abs().amax(dim=(1, 2)) < 1
    assert 0.05 < float(grey.float().mean()) < 0.16


@pytest.mark.parametrize(("angle", "axis"), [(0.0, 1), (np.pi / 2, 0)])
def test_motion_blur_spreads_a_point_along_its_line(angle: float, axis: int) -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 240
    blurred = motion_blur(image, 9.0, angle).astype(int)
    assert blurred.sum() == pytest.approx(3 * 240, abs=3 * 10)  # rounded in each pixel
    across, along = blurred[:, :, 0].sum(axis=axis), blurred[:, :, 0].sum(axis=1 - axis)
    assert across.argmax() == 20 and across[20] > 0.9 * across.sum()
    reached = np.flatnonzero(along)
    assert 9 <= len(reached) <= 11 and abs(reached.mean() - 20) < 0.6


def test_motion_blur_of_no_length_and_of_a_plain_image_changes_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    assert np.array_equal(motion_blur(noise, 0.0, 1.0), noise)
    plain = np.full((30, 20, 3), 120, np.uint8)
    assert np.array_equal(motion_blur(plain, 15.0, 0.7), plain)
