"""RT-MDNet's RoI layers against a loop over its points, PyTorch's layers where they coincide, and autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from roi_cases import SCALE, boxes_of_all_kinds, onnx_roi_align, random_map
from torch import Tensor

from fdn_triton.kernels import roi_align_ada_max, roi_align_ada_max_ref, roi_align_max, roi_align_max_ref
from fdn_triton.kernels.gpu.max_roi_align import max_roi_align as sample_maxima_on_triton
from fdn_triton.kernels.rt_mdnet_align import _sampling

PUBLIC = {"max": roi_align_max, "ada_max": roi_align_ada_max}
REFERENCE = {"max": roi_align_max_ref, "ada_max": roi_align_ada_max_ref}


def on_triton(
    kind: str, input: Tensor, boxes: Tensor, size: int | tuple[int, int], deterministic: bool | None = None
) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    input, boxes = input.to(device), boxes.to(device)
    output_hw, sampling = _sampling(input, boxes, size, SCALE, adaptive=kind == "ada_max")
    return sample_maxima_on_triton(input, boxes, output_hw, sampling, deterministic).cpu()


def point_weights(kind: str, low: float, high: float, size: int, points: int) -> list[list[tuple[int, float]]]:
    """Per point of an axis the cells that it is read from, with weights: as the layer's definition says it."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [[] for _ in range(points)]
    extent = max((high - low) * SCALE + 1, 0.0)
    spacing = extent / (points if kind == "ada_max" else points - 1)
    result = []
    for i in range(points):
        p = low * SCALE + i * spacing
        if not 0 <= p < size:
            result.append([])
            continue
        first = min(math.floor(p), size - 2)
        if kind == "max":
            taps = [(first, 1 - (p - first)), (first + 1, p - first)]
            if size == 1:
                taps = [(0, weight) for _, weight in [(0, 1 - (p - first)), (0, p - first)]]
        else:
            stride = max(1, math.floor(spacing + 0.5))
            taps = [(cell, 1 - abs(p - cell) / stride) for cell in (first, first + stride) if 0 <= cell < size]
        result.append(taps)
    return result


def by_loop(kind: str, input: Tensor, boxes: Tensor, size: int | tuple[int, int]) -> Tensor:
    """All points, one after the other, then PyTorch's max-pooling."""
    sizes = (size, size) if isinstance(size, int) else size
    _, channels, height, width = input.shape
    out = []
    for image, x1, y1, x2, y2 in boxes.tolist():
        rows = point_weights(kind, y1, y2, height, sizes[0] + 4)
        columns = point_weights(kind, x1, x2, width, sizes[1] + 4)
        finite = all(map(math.isfinite, (x1, y1, x2, y2)))
        for row in rows:
            for column in columns:
                value = torch.zeros(channels, dtype=input.dtype)
                for i, wy in row if finite else []:
                    for j, wx in column:
                        value = value + wy * wx * input[int(image), :, i, j]
                out.append(value)
    points = torch.stack(out).view(len(boxes), sizes[0] + 4, sizes[1] + 4, channels).permute(0, 3, 1, 2)
    return F.max_pool2d(points, 3, 2)


RAMP = 10.0 * torch.arange(8.0)[:, None] + torch.arange(8.0)  # value of cell (y, x): 10 y + x


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # A box of 2 cells from (1, 1), extent 3: points 1, 1.5, 2 | 2, 2.5, 3 | 3, 3.5, 4; a window's last is largest.
        ("max", [2.0, 3.0, 4.0]),
        # Points 3/7 apart, stride 1: 1 + {2, 4, 6} * 3 / 7.
        ("ada_max", [1 + 6 / 7, 1 + 12 / 7, 1 + 18 / 7]),
    ],
)
def test_hand_computed(kind: str, expected: list[float]) -> None:
    boxes = torch.tensor([[0.0, 16.0, 16.0, 48.0, 48.0]])
    line = torch.tensor(expected)
    square = (10 * line[:, None] + line)[None, None]
    for op in (PUBLIC[kind], REFERENCE[kind]):
        torch.testing.assert_close(op(RAMP[None, None], boxes, 3, SCALE), square, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(on_triton(kind, RAMP[None, None], boxes, 3), square, rtol=1e-6, atol=1e-6)


def test_adaptive_taps_of_a_large_box() -> None:
    """Extent 14 over 7 points: 2 cells apart, so that a point at 2 i + 0.5 is 3/4 of cell 2 i and 1/4 of 2 i + 2."""
    line = torch.tensor([1.0, 0, 5, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 4, 0, 0, 0])
    input = line.expand(1, 1, 3, 18)
    boxes = torch.tensor([[0.0, 8.0, 0.0, 8.0 + 13 * 16, 0.0]])
    points = torch.tensor([0.75 * line[2 * i] + 0.25 * line[2 * i + 2] for i in range(7)])
    expected = points.unfold(0, 3, 2).amax(dim=1)
    torch.testing.assert_close(roi_align_ada_max(input, boxes, (1, 3), SCALE)[0, 0, 0], expected)


@pytest.mark.parametrize("kind", ["max", "ada_max"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, (3, 6)])
def test_equals_the_loop(kind: str, size: Any) -> None:
    input, boxes = random_map(channels=3), boxes_of_all_kinds(14)
    expected = by_loop(kind, input.double(), boxes, size)
    for op in (PUBLIC[kind], REFERENCE[kind]):
        torch.testing.assert_close(op(input.double(), boxes.double(), size, SCALE), expected, rtol=1e-9, atol=1e-9)
    # fp32 positions of up to 16 cells carry errors of 1e-6 each, on a map that changes by up to 6 from cell to cell.
    torch.testing.assert_close(PUBLIC[kind](input, boxes, size, SCALE).double(), expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(on_triton(kind, input, boxes, size).double(), expected, rtol=1e-5, atol=2e-5)
    assert (expected != 0).double().mean() > 0.3


@pytest.mark.parametrize("kind", ["max", "ada_max"])
@pytest.mark.parametrize("map_hw", [(1, 1), (1, 9), (6, 1), (2, 17)])
def test_small_maps(kind: str, map_hw: tuple[int, int]) -> None:
    input, boxes = random_map(1, 5, *map_hw), boxes_of_all_kinds(14, 1, *map_hw)
    expected = by_loop(kind, input.double(), boxes, 3)
    torch.testing.assert_close(PUBLIC[kind](input, boxes, 3, SCALE).double(), expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(on_triton(kind, input, boxes, 3).double(), expected, rtol=1e-5, atol=2e-5)


def test_the_first_layer_inside_the_map_is_average_roi_align_on_shifted_boxes() -> None:
    """Seven points from edge to edge are the centres of 7 bins of a box that is wider by a spacing (onnxruntime)."""
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(50, 2, generator=generator) * torch.tensor([60.0, 40.0]) + 20
    end = corner + torch.rand(50, 2, generator=generator) * 60 + 10
    image = torch.arange(50)[:, None] % 2
    input, spacing = random_map(), (end + 16 - corner) / 6
    wider = torch.cat((image, corner - spacing / 2, end + 16 + spacing / 2), dim=1)
    expected = F.max_pool2d(onnx_roi_align(input, wider, 7, aligned=False), 3, 2)
    out = roi_align_max(input, torch.cat((image, corner, end), dim=1), 3, SCALE)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["max", "ada_max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(kind: str, dtype: torch.dtype) -> None:
    input, boxes = random_map(channels=37).to(dtype), boxes_of_all_kinds(16)
    expected = REFERENCE[kind](input.double(), boxes, 3, SCALE)
    eager_error = (REFERENCE[kind](input, boxes, 3, SCALE).double() - expected).abs().max()
    for out in (PUBLIC[kind](input, boxes, 3, SCALE), on_triton(kind, input, boxes, 3)):
        assert out.dtype == dtype
        assert (out.double() - expected).abs().max() <= 2 * eager_error


@pytest.mark.parametrize("kind", ["max", "ada_max"])
def test_gradients(kind: str) -> None:
    boxes = boxes_of_all_kinds(13, 2, 6, 9)
    upstream = torch.randn(13, 3, 3, 3, generator=torch.Generator().manual_seed(5))
    exact = random_map(2, 3, 6, 9).double().requires_grad_()
    by_loop(kind, exact, boxes, 3).backward(upstream.double())
    assert exact.grad is not None
    assert exact.grad.abs().sum() > 1
    for op in (
        lambda x: PUBLIC[kind](x, boxes, 3, SCALE),
        lambda x: REFERENCE[kind](x, boxes, 3, SCALE),
        lambda x: on_triton(kind, x, boxes, 3, deterministic=False),
        lambda x: on_triton(kind, x, boxes, 3, deterministic=True),
    ):
        input = random_map(2, 3, 6, 9).requires_grad_()
        op(input).backward(upstream)
        assert input.grad is not None
        torch.testing.assert_close(input.grad.double(), exact.grad, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["max", "ada_max"])
def test_gradcheck(kind: str) -> None:
    input = random_map(1, 2, 4, 5).double().requires_grad_()
    boxes = boxes_of_all_kinds(10, 1, 4, 5).double()
    for op in (PUBLIC[kind], REFERENCE[kind]):
        assert torch.autograd.gradcheck(lambda x, op=op: op(x, boxes, 2, SCALE), (input,))


@pytest.mark.parametrize("kind", ["max", "ada_max"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [1, 2, 3, 4])
def test_a_box_that_is_not_finite_gives_zeros(kind: str, value: float, column: int) -> None:
    boxes = torch.tensor([[0.0, 30.0, 30.0, 90.0, 90.0]]).repeat(2, 1)
    boxes[1, column] = value
    input = random_map() + 9
    for out in (
        PUBLIC[kind](input, boxes, 3, SCALE),
        REFERENCE[kind](input, boxes, 3, SCALE),
        on_triton(kind, input, boxes, 3),
    ):
        assert (out[0] != 0).all()
        assert (out[1] == 0).all()


@pytest.mark.parametrize("kind", ["max", "ada_max"])
def test_what_is_refused(kind: str) -> None:
    for op in (PUBLIC[kind], REFERENCE[kind]):
        with pytest.raises(ValueError, match=r"batch index outside \[0, 2\)"):
            op(random_map(), torch.tensor([[2.0, 0.0, 0.0, 9.0, 9.0]]), 3, SCALE)
        with pytest.raises(ValueError, match="output_size must be one or two positive integers, got 0"):
            op(random_map(), torch.zeros(1, 5), 0, SCALE)
        assert op(random_map(), torch.zeros(0, 5), 3, SCALE).shape == (0, 7, 3, 3)
