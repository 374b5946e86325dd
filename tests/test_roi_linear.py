"""A linear layer on RoI features through the cells: what the features and the product give."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.kernels import roi_linear, roi_linear_ref

MODULE = sys.modules["fdn_triton.kernels.roi_linear"]
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


def oracle(cells: Tensor, boxes: Tensor, output_size: Any, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
    """In fp64."""
    cells, boxes, weight, bias = (tensor.double() for tensor in (cells, boxes, weight, bias))
    return roi_linear_ref(cells, boxes, output_size, weight, bias, SCALE, **options).float()


@pytest.fixture
def through_cells(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call went through the cells."""
    ways: list[bool] = []
    original = MODULE._through_cells

    def watched(*args: Any) -> Tensor | None:
        found = original(*args)
        ways.append(found is not None)
        return found

    monkeypatch.setattr(MODULE, "_through_cells", watched)
    monkeypatch.setattr(MODULE, "multiplies_faster", lambda: False)
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
    torch.testing.assert_close(found, oracle(cells, boxes, 3, weight, bias, **options), rtol=1e-5, atol=1e-4)


def test_bins_of_two_numbers_and_a_map_of_another_layout(through_cells: list[bool]) -> None:
    cells, boxes, (weight, bias) = random_map().contiguous(), boxes_around(200, 100), layer(bins=8)
    found = roi_linear(cells, boxes, (2, 4), weight, bias, SCALE)
    assert through_cells == [True]
    torch.testing.assert_close(found, oracle(cells, boxes, (2, 4), weight, bias), rtol=1e-5, atol=1e-4)


def test_boxes_that_share_few_cells_are_multiplied_themselves(through_cells: list[bool]) -> None:
    cells, (weight, bias) = random_map(), layer()
    boxes = boxes_around(240, 160, count=40, spread=150.0)
    found = roi_linear(cells, boxes, 3, weight, bias, SCALE)
    assert through_cells == [False]
    torch.testing.assert_close(found, oracle(cells, boxes, 3, weight, bias), rtol=1e-5, atol=1e-4)


NEAR, FAR = (96.0, 96.0, 144.0, 144.0), (192.0, 192.0, 240.0, 240.0)


@pytest.mark.parametrize(
    "corners",
    [
        [NEAR, FAR],
        [NEAR, FAR, (-90.0, 100.0, -42.0, 148.0), (100.0, 400.0, 148.0, 448.0)],  # outside on one axis, on the other
        [(-60.0, 96.0, 12.0, 144.0)],  # two of three bins see nothing of the map
    ],
)
def test_cells_that_no_box_touches_do_not_matter(corners: list[tuple[float, ...]], through_cells: list[bool]) -> None:
    """The tracker's maps hold what an earlier frame left there."""
    cells, (weight, bias) = random_map(), layer()
    boxes = F.pad(torch.tensor(corners).repeat(100, 1), (1, 0))
    expected = roi_linear(cells, boxes, 3, weight, bias, SCALE)
    cells[0, :, 6:10, 12:16] = torch.nan  # in the rectangle around the first two
    cells[0, :, 17:] = torch.nan
    cells[0, :, :, 20:] = torch.nan
    assert torch.equal(roi_linear(cells, boxes, 3, weight, bias, SCALE), expected) and bool(expected.isfinite().all())
    assert through_cells == [True, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_gives_the_bias(value: float) -> None:
    boxes, (weight, bias) = boxes_around(240, 160), layer()
    boxes[7, 3] = value
    found = roi_linear(random_map(), boxes, 3, weight, bias, SCALE)
    torch.testing.assert_close(found[7], bias)
    torch.testing.assert_close(found, oracle(random_map(), boxes, 3, weight, bias), rtol=1e-5, atol=1e-4)


def test_no_boxes_other_types_and_no_gradient(through_cells: list[bool]) -> None:
    cells, (weight, bias) = random_map().requires_grad_(), layer()
    assert roi_linear(cells, torch.zeros(0, 5), 3, weight, bias, SCALE).shape == (0, OUT)
    boxes = boxes_around(240, 160)
    found = roi_linear(cells, boxes, 3, weight.requires_grad_(), bias, SCALE)
    assert not found.requires_grad and through_cells == [True]
    assert roi_linear(cells.bfloat16(), boxes, 3, weight, bias, SCALE).dtype == torch.float32
    doubles = roi_linear(cells.double(), boxes, 3, weight.double(), bias.double(), SCALE)
    assert doubles.dtype == torch.float64 and through_cells == [True]
    torch.testing.assert_close(found, doubles.float(), rtol=1e-5, atol=1e-4)


def test_who_watches_sees_pytorch_s_operations(through_cells: list[bool]) -> None:
    boxes, (weight, bias) = boxes_around(240, 160), layer()

    def operation(cells: Tensor, boxes: Tensor) -> Tensor:
        return roi_linear(cells, boxes, 3, weight, bias, SCALE)

    traced = torch.jit.trace(operation, (random_map(), boxes), check_trace=False)
    other = boxes_around(100, 200, spread=60.0)
    torch.testing.assert_close(traced(random_map(seed=5), other), operation(random_map(seed=5), other))
    with torch.autocast("cpu", torch.bfloat16):
        operation(random_map(), boxes)
    assert len(through_cells) == 1, "neither the trace nor autocast"


def test_candidates_of_a_tracker_go_through_cells(through_cells: list[bool]) -> None:
    noise = (torch.randn(256, 3, generator=torch.Generator().manual_seed(3)) / 2).clamp(-1, 1)
    center, half = torch.tensor([240.0, 160]) + 48 * noise[:, :2], 40 * 1.05 ** noise[:, 2:]
    boxes = torch.cat((torch.zeros(256, 1), center - half, center + half), dim=1)
    weight, bias = torch.randn(CHANNELS, 9 * CHANNELS), torch.randn(CHANNELS)
    roi_linear(random_map(), boxes, 3, weight, bias, SCALE)
    assert through_cells == [True]


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(sampling_ratio=1),
        NetworkConfig(sampling_ratio=1, roi_grid="interior", roi_extend=1.0),
        NetworkConfig(sampling_ratio=2, roi_grid="interior", roi_extend=1.0),
        NetworkConfig(roi_layer="pool", sampling_ratio=1),
    ],
)
def test_the_trunk_s_layer_is_that_of_its_features(network: NetworkConfig) -> None:
    generator = torch.Generator().manual_seed(4)
    cells = torch.randn(1, 512, 12, 16, generator=generator).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(7, 4608, generator=generator), torch.randn(7, generator=generator)
    boxes_xywh = torch.tensor([90.0, 60, 50, 70]) + 5 * torch.randn(150, 4, generator=generator)
    backbone = Backbone(network)
    expected = F.linear(backbone.roi_features(cells, boxes_xywh), weight, bias)
    torch.testing.assert_close(backbone.linear_of_rois(cells, boxes_xywh, weight, bias), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(2, CHANNELS, 20, 30)}, r"one image, .* got \(2, 6, 20, 30\)"),
        ({"weight": torch.zeros(OUT, 53)}, r"a weight \[out, 54\] .* \(5, 53\)"),
        ({"bias": torch.zeros(OUT).double()}, "weight and bias must be of one type and on cpu, .* torch.float64"),
        ({"weight": torch.zeros(OUT, 54, device="meta")}, "on cpu, got torch.float32 on meta"),
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
