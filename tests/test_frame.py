"""The network's input: size rule, resize, mean, and what images are refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from fdn_triton.errors import InputError
from fdn_triton.frame import check_image, network_input, network_size

MEAN = torch.tensor([120.0, 110.0, 100.0])


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _resized(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Triangle filter [h, w, 3] in float64: pixel centres at half-integers, widened by the factor of shrinking.

    As in Pillow: weights beyond the image are left out and the others sum to 1. Enlarging, that is bilinear
    interpolation between clamped neighbours.
    """
    out = image.astype(np.float64)
    for axis, size in enumerate(size_hw):
        old = image.shape[axis]
        factor = old / size
        weights = np.zeros((size, old))
        for i in range(size):
            for j in range(old):
                distance = abs(j + 0.5 - (i + 0.5) * factor) / max(factor, 1)
                weights[i, j] = max(0.0, 1 - distance)
            weights[i] /= weights[i].sum()
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
    return out


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [
        ((600, 800), (600, 800)),
        ((480, 640), (600, 800)),  # 1.25
        ((240, 320), (600, 800)),
        ((1200, 1600), (600, 800)),
        ((360, 640), (562, 1000)),  # 1.667 would make 1067: 1.5625, and 562.5 rounds to even
        ((640, 360), (1000, 562)),
        ((1080, 1920), (562, 1000)),
        ((600, 1000), (600, 1000)),
        ((600, 1001), (599, 1000)),
        ((10, 10_000), (1, 1000)),
        ((1, 50_000), (1, 1000)),  # 0.02 pixels high: at least one
        ((50_000, 3), (1000, 1)),
        ((1, 1), (600, 600)),
    ],
)
def test_size_rule(image_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*image_hw, 600, 1000) == expected


def test_size_rule_with_other_sides() -> None:
    assert network_size(480, 640, 300, 500) == (300, 400)
    assert network_size(300, 900, 300, 500) == (167, 500)


@pytest.mark.parametrize(
    ("image_hw", "size_hw"), [((7, 9), (23, 31)), ((5, 3), (5, 11)), ((1, 2), (6, 5)), ((6, 8), (6, 8))]
)
def test_enlarging_is_bilinear(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    image = _image(*image_hw)
    out = network_input(torch.from_numpy(image), size_hw, MEAN)
    expected = _resized(image, size_hw) - MEAN.double().numpy()
    assert out.dtype == torch.float32
    # Differences of numbers up to 255, near 0: fp32 positions of up to 9 pixels times steps of 255.
    np.testing.assert_allclose(out[0].permute(1, 2, 0).numpy(), expected, rtol=1e-5, atol=5e-4)


@pytest.mark.parametrize(("image_hw", "size_hw"), [((61, 83), (20, 27)), ((40, 9), (17, 9)), ((30, 40), (1, 13))])
def test_shrinking_is_antialiased(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    image = _image(*image_hw)
    out = network_input(torch.from_numpy(image), size_hw, MEAN)
    expected = _resized(image, size_hw) - MEAN.double().numpy()
    # On a CPU in uint8: half a grey level after each of the two axes, and the weights in whole numbers.
    np.testing.assert_allclose(out[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=1.5)


@pytest.mark.parametrize("size_hw", [(30, 40), (45, 33)])
def test_shrinking_a_checkerboard_leaves_its_mean(size_hw: tuple[int, int]) -> None:
    """Without antialiasing, a third of the size would be a checkerboard again."""
    board = (np.indices((90, 120)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = torch.from_numpy(np.repeat(board[:, :, None], 3, axis=2))
    out = network_input(image, size_hw, torch.zeros(3))
    assert out.mean().item() == pytest.approx(127.5, abs=1.0)
    inner = out[:, :, 2:-2, 2:-2]
    assert (inner - 127.5).abs().max() < 20  # the triangle of 3 keeps (1/9)^2 of the pattern, narrower ones more


def test_mean_is_subtracted_from_its_channel() -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(4, 5, 3)
    out = network_input(image, (4, 5), torch.tensor([1.0, 2.5, -3.0]))
    assert out.shape == (1, 3, 4, 5)
    assert [channel.unique().tolist() for channel in out[0]] == [[9.0], [17.5], [33.0]]


def test_rows_and_columns_keep_their_places() -> None:
    image = _image(6, 8)
    out = network_input(torch.from_numpy(image), (6, 8), MEAN)
    np.testing.assert_array_equal(out[0].permute(1, 2, 0).numpy(), image.astype(np.float32) - MEAN.numpy())
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_image_is_unchanged() -> None:
    image = torch.from_numpy(_image(12, 16))
    before = image.clone()
    for size_hw in ((12, 16), (5, 7), (30, 40)):
        network_input(image, size_hw, MEAN)
    assert torch.equal(image, before)


def _awkward_arrays() -> list[np.ndarray]:
    base = _image(10, 12)
    frozen = base.copy()
    frozen.flags.writeable = False
    return [base, frozen, base[::-1], base[:, ::-1], base[:, :, ::-1], base[::2, 1::3], np.asfortranarray(base)]


@pytest.mark.parametrize("case", range(7))
def test_arrays_of_any_layout(case: int) -> None:
    array = _awkward_arrays()[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of memory that may not be written
        image = check_image(array)
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image.numpy(), array)


def test_a_plain_array_is_not_copied() -> None:
    array = _image(10, 12)
    assert np.shares_memory(check_image(array).numpy(), array)


def test_tensors_are_taken_as_they_are() -> None:
    wide = torch.from_numpy(_image(10, 24))
    image = wide[:, ::2]
    assert check_image(image) is image
    same = network_input(image.contiguous(), (23, 31), MEAN)
    assert torch.equal(network_input(image, (23, 31), MEAN), same)
    assert torch.equal(network_input(image, (5, 7), MEAN), network_input(image.contiguous(), (5, 7), MEAN))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "image is of type float32: give uint8 RGB values from 0 to 255"),
        (torch.zeros(4, 5, 3), "image is of type float32: give uint8"),
        (torch.zeros(4, 5, 3, dtype=torch.int64), "image is of type int64: give uint8"),
        (np.zeros((4, 5, 3), bool), "image is of type bool: give uint8"),
        (None, "image is of type NoneType: give uint8"),
        ("frame.jpg", "image is of type str: give uint8"),
        ([[[1, 2, 3]]], "image is of type list: give uint8"),
        (np.zeros((4, 5), np.uint8), r"image has the shape \(4, 5\): give height x width x 3 in RGB order"),
        (np.zeros((4, 5, 4), np.uint8), r"image has the shape \(4, 5, 4\): give height x width x 3"),
        (np.zeros((3, 4, 5), np.uint8), r"image has the shape \(3, 4, 5\): give height x width x 3"),
        (torch.zeros(1, 4, 5, 3, dtype=torch.uint8), r"image has the shape \(1, 4, 5, 3\): give height x width x 3"),
        (np.zeros((0, 5, 3), np.uint8), r"image has the shape \(0, 5, 3\): it is empty"),
        (torch.zeros(4, 0, 3, dtype=torch.uint8), r"image has the shape \(4, 0, 3\): it is empty"),
    ],
)
def test_what_is_refused(image: np.ndarray | Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_image(image)
