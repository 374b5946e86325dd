"""A linear layer on RoI features through the cells: what the features and the product give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdn_triton.kernels import max_roi_align, roi_linear
from fdn_triton.kernels import roi_linear as public

roi_linear_module = __import__(public.__module__, fromlist=["_"])
CHANNELS, OUT, SCALE = 6, 5, 1 / 16


def random_map(height: int = 20, width: int = 30, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(1, CHANNELS, height, width, generator=generator)
    return cells.contiguous(memory_format=torch.channels_last)


def layer(bins: int = 9, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(OUT, bins * CHANNELS, generator=generator), torch.randn(OUT, generator=generator)


def boxes_around(x: float, y: float, count: int = 120, spread: float = 20.0) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    center = torch.tensor([x, y]) + spread * (2 * torch.rand(count, 2, generator=generator) - 1)
    half = 20 + 20 * torch.rand(count, 2, generator=generator)
    return torch.cat((torch.zeros(count, 1), center - half, center + half), dim=1)


def by_features(cells: Tensor, boxes: Tensor, output_size: Any, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
    bins = max_roi_align(cells, boxes, output_size, SCALE, sampling_ratio=1, **options)
    return F.linear(bins.permute(0, 2, 3, 1).flatten(1), weight, bias)


@pytest.fixture
def through_cells(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call went through the cells."""
    ways: list[bool] = []
    original = roi_linear_module._through_cells

    def watched(*args: Any) -> Tensor | None:
        found = original(*args)
        ways.append(found is not None)
        return found

    monkeypatch.setattr(roi_linear_module, "_through_cells", watched)
    return ways


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("options", [{}, {"aligned": True}, {"extend": 1.0}])
@pytest.mark.parametrize("place", [(240, 160), (0, 0), (470, 310), (-30, 330)])  # of 480 x 320 pixels
def test_equals_the_features_and_their_product(
    place: tuple[float, float], options: dict[str, Any], numba: bool, through_cells: list[bool], request: Any
) -> None:
    if not numba:
        request.getfixturevalue("no_numba")()
    cells, boxes, (weight, bias) = random_map(), boxes_around(*place), layer()
    found = roi_linear(cells, boxes, 3, weight, bias, SCALE, **options)
    assert through_cells == [True]
    torch.testing.assert_close(found, by_features(cells, boxes, 3, weight, bias, **options), rtol=1e-4, atol=1e-4)


def test_bins_of_two_numbers_and_a_map_of_another_layout(through_cells: list[bool]) -> None:
    cells, boxes, (weight, bias) = random_map().contiguous(), boxes_around(200, 100), layer(bins=8)
    found = roi_linear(cells, boxes, (2, 4), weight, bias, SCALE)
    assert through_cells == [True]
    torch.testing.assert_close(found, by_features(cells, boxes, (2, 4), weight, bias), rtol=1e-4, atol=1e-4)


def test_boxes_that_share_few_cells_are_multiplied_themselves(through_cells: list[bool]) -> None:
    cells, (weight, bias) = random_map(), layer()
    boxes = boxes_around(240, 160, count=40, spread=150.0)
    found = roi_linear(cells, boxes, 3, weight, bias, SCALE)
    assert through_cells == [False]
    torch.testing.assert_close(found, by_features(cells, boxes, 3, weight, bias), rtol=1e-4, atol=1e-4)


def test_cells_that_no_box_touches_do_not_matter() -> None:
    """The tracker's maps hold what an earlier frame left there."""
    cells, (weight, bias) = random_map(), layer()
    corners = torch.tensor([[0.0, 96, 96, 144, 144], [0, 192, 192, 240, 240]]).repeat(40, 1)
    expected = roi_linear(cells, corners, 3, weight, bias, SCALE)
    cells[0, :, 12:, :8] = torch.nan  # in the rectangle around all boxes
    assert torch.equal(roi_linear(cells, corners, 3, weight, bias, SCALE), expected) and bool(expected.isfinite().all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_gives_the_bias(value: float) -> None:
    boxes, (weight, bias) = boxes_around(240, 160), layer()
    boxes[7, 3] = value
    found = roi_linear(random_map(), boxes, 3, weight, bias, SCALE)
    torch.testing.assert_close(found[7], bias)
    torch.testing.assert_close(found, by_features(random_map(), boxes, 3, weight, bias), rtol=1e-4, atol=1e-4)


def test_no_boxes_other_types_and_no_gradient(through_cells: list[bool]) -> None:
    cells, (weight, bias) = random_map().requires_grad_(), layer()
    assert roi_linear(cells, torch.zeros(0, 5), 3, weight, bias, SCALE).shape == (0, OUT)
    boxes = boxes_around(240, 160)
    found = roi_linear(cells, boxes, 3, weight.requires_grad_(), bias, SCALE)
    assert not found.requires_grad and through_cells == [True]
    doubles = roi_linear(cells.double(), boxes, 3, weight.double(), bias.double(), SCALE)
    assert doubles.dtype == torch.float64 and through_cells == [True]
    torch.testing.assert_close(found, doubles.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(2, CHANNELS, 20, 30)}, r"one image, .* got \(2, 6, 20, 30\)"),
        ({"weight": torch.zeros(OUT, 53)}, r"a weight \[out, 54\] .* \(5, 53\)"),
        ({"bias": torch.zeros(4)}, r"a bias \[out\] are needed, .* \(4,\)"),
        ({"boxes": torch.zeros(3, 4)}, r"boxes must be \[K, 5\]"),
        ({"output_size": 0}, "output_size must be one or two positive integers"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    weight, bias = layer()
    arguments = {"input": random_map(), "boxes": boxes_around(9, 9), "output_size": 3, "weight": weight, "bias": bias}
    with pytest.raises(ValueError, match=message):
        roi_linear(**{**arguments, **changes})
