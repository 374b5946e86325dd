"""Max-RoIAlign against hand values, a per-sample loop, onnxruntime's RoiAlign, its own reference, and autograd."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from roi_cases import SCALE, boxes_of_all_kinds, by_loop, onnx_roi_align, random_map
from torch import Tensor

from fdn_triton.kernels import max_roi_align, max_roi_align_ref


def _reference(input: Tensor, boxes: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The reference in float64 on the same inputs; positions keep the precision of the boxes, at least fp32."""
    return max_roi_align_ref(input.double(), boxes, *args, **kwargs)


RAMP = 10.0 * torch.arange(4.0)[:, None] + torch.arange(4.0)  # value of cell (y, x): 10 y + x


@pytest.mark.parametrize("op", [max_roi_align, max_roi_align_ref])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # One RoI over the whole 4x4 map, 2x2 bins of 2x2 samples. Samples 0.5, 1.5 | 2.5, 3.5 -> 3.
        ({}, [[16.5, 18.0], [31.5, 33.0]]),
        # Samples 2/3, 4/3 | 8/3, 10/3 -> 3.
        ({"grid": "interior"}, [[44 / 3, 40 / 3 + 3], [30 + 4 / 3, 33.0]]),
        # Samples 0, 1 | 2, 3: the cells themselves.
        ({"aligned": True}, [[11.0, 13.0], [31.0, 33.0]]),
        # Five cells wide: 0.625, 1.875 | 3.125 -> 3, 4.375 -> outside.
        ({"extend": 1.0}, [[20.625, 21.75], [31.875, 33.0]]),
        ({"sampling_ratio": 1}, [[11.0, 13.0], [31.0, 33.0]]),
    ],
)
def test_hand_computed(op: Any, options: dict[str, Any], expected: list[list[float]]) -> None:
    out = op(RAMP[None, None], torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2, 1.0, **options)
    torch.testing.assert_close(out[0, 0], torch.tensor(expected), rtol=1e-6, atol=0)


def test_a_sample_outside_takes_part_with_value_0() -> None:
    """On a map of negative values it wins: samples -1.5 (outside, 0) and -0.5 (clamped, -1)."""
    out = max_roi_align(-torch.ones(1, 1, 4, 4), torch.tensor([[0.0, -2.0, 1.0, 2.0, 3.0]]), (1, 2), 1.0)
    assert out.flatten().tolist() == [0.0, -1.0]


def test_exactly_one_cell_outside_still_counts() -> None:
    """torchvision's border: -1 and the map's size clamp to the border's cells, anything beyond gives 0."""
    options = {"output_size": 1, "sampling_ratio": 1, "aligned": False}
    for position, expected in ((-1.0, 5.0), (4.0, 8.0), (-1.0625, 0.0), (4.0625, 0.0)):
        box = torch.tensor([[0.0, position - 0.5, 1.0, position + 0.5, 2.0]])
        map_ = (torch.arange(4.0) + 5).expand(1, 1, 4, 4)
        assert max_roi_align(map_, box, **options).item() == expected


def test_a_sample_on_a_cell_is_that_cell_once() -> None:
    box = torch.tensor([[0.0, 0.5, 1.5, 1.5, 2.5]])  # one sample at x = 1, y = 2
    assert max_roi_align(RAMP[None, None], box, 1, 1.0, sampling_ratio=1).item() == 21.0


@pytest.mark.parametrize("grid", ["midpoint", "interior"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("extend", [0.0, 1.0])
def test_equals_the_loop(grid: Any, aligned: bool, n: int, extend: float) -> None:
    input, boxes, output_hw = random_map(channels=3), boxes_of_all_kinds(14), (2, 3)
    expected = by_loop(input.double(), boxes, output_hw, SCALE, n, aligned, grid, extend)
    arguments = (output_hw, SCALE, n, aligned, grid, extend)
    exact = max_roi_align(input.double(), boxes.double(), *arguments)
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(max_roi_align_ref(input.double(), boxes.double(), *arguments), exact)
    # fp32 positions of up to 16 cells carry errors of 1e-6 each, on a map that changes by up to 6 from cell to cell.
    torch.testing.assert_close(max_roi_align(input, boxes, *arguments).double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("grid", ["midpoint", "interior"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("extend", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_equals_the_reference(grid: Any, aligned: bool, n: int, extend: float, dtype: torch.dtype) -> None:
    input, boxes = (
        random_map(n=3, channels=37, height=19, width=23).to(dtype),
        boxes_of_all_kinds(150, n=3, height=19, width=23),
    )
    arguments = ((3, 3), SCALE, n, aligned, grid, extend)
    out = max_roi_align(input, boxes, *arguments)
    expected = _reference(input, boxes, *arguments)
    assert out.dtype == dtype
    if dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)
    else:
        eager_error = (max_roi_align_ref(input, boxes, *arguments).double() - expected).abs().max()
        assert (out.double() - expected).abs().max() <= 2 * eager_error


@pytest.mark.parametrize("output_size", [1, (1, 4), (5, 2), (7, 7)])
@pytest.mark.parametrize("map_hw", [(1, 1), (1, 9), (6, 1), (5, 17)])
def test_shapes(output_size: int | tuple[int, int], map_hw: tuple[int, int]) -> None:
    input, boxes = random_map(1, 5, *map_hw), boxes_of_all_kinds(20, 1, *map_hw)
    out = max_roi_align(input, boxes, output_size, SCALE)
    torch.testing.assert_close(out.double(), _reference(input, boxes, output_size, SCALE), rtol=1e-5, atol=1e-6)
    output_hw = (output_size, output_size) if isinstance(output_size, int) else output_size
    assert out.shape == (20, 5, *output_hw)
    assert out.abs().sum() > 0


def test_memory_layouts_of_the_map() -> None:
    input, boxes = random_map(channels=6), boxes_of_all_kinds(30)
    expected = max_roi_align(input, boxes, 3, SCALE)
    wide = torch.zeros(2, 12, 11, 26)
    wide[:, ::2, :, ::2] = input
    for same in (input.contiguous(memory_format=torch.channels_last), wide[:, ::2, :, ::2]):
        assert not same.is_contiguous()
        assert torch.equal(max_roi_align(same, boxes, 3, SCALE), expected)
    strided_boxes = torch.stack((boxes, boxes), dim=2)[:, :, 0]
    assert torch.equal(max_roi_align(input, strided_boxes, 3, SCALE), expected)


def test_boxes_are_not_rounded_to_the_maps_type() -> None:
    """A ramp of one level a cell: on it the value is the coordinate. fp16 pixels above 1024 are whole or even."""
    input = torch.arange(200.0).expand(1, 1, 2, 200).half()
    box = torch.tensor([[0.0, 2000.75, 0.0, 2016.75, 16.0]])
    out = max_roi_align(input, box, 1, SCALE, sampling_ratio=1)
    assert out.item() == torch.tensor(2008.75 / 16).half().item()
    halves = torch.tensor([[0.0, 1000.5, 0.0, 1016.5, 16.0]])
    assert torch.equal(
        max_roi_align(input, halves.half(), 1, SCALE, sampling_ratio=1),
        max_roi_align(input, halves, 1, SCALE, sampling_ratio=1),
    )
    # With a fp32 map the positions of fp16 boxes must not have been computed in fp16: 1008.6 needs more bits.
    interior = max_roi_align(input.float(), halves.half(), 3, SCALE, sampling_ratio=2, grid="interior")
    expected = [(1000.5 + 16 * (b + 2 / 3) / 3) / 16 for b in range(3)]
    torch.testing.assert_close(interior[0, 0, 0], torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_midpoint_against_onnxruntime(aligned: bool, n: int) -> None:
    """Average RoIAlign of one sample a bin on the n times finer grid, then the maximum over n x n.

    onnxruntime keeps torchvision's rules in both modes: a sample further than one cell outside gives 0, nearer ones
    are clamped, and without ``half_pixel`` a RoI is at least a cell wide. So no box has to be left out.
    """
    input, boxes = random_map(), boxes_of_all_kinds(600)
    expected = F.max_pool2d(onnx_roi_align(input, boxes, 3 * n, aligned), n)
    out = max_roi_align(input, boxes, 3, SCALE, n, aligned)
    # Both compute positions in fp32, in another order: 1e-6 cells apart, on a map with steps of up to 6 a cell.
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-5)
    assert (out != 0).float().mean() > 0.5  # the comparison is not one of zeros


def test_interior_against_onnxruntime() -> None:
    """The release's grid: from 9x9 samples of the box shifted by w / 18, the first of every triple is dropped."""
    input = random_map()
    corner = torch.rand(200, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([140.0, 110.0]) + 12
    end = torch.minimum(corner + torch.rand(200, 2) * 60, torch.tensor([190.0, 158.0]))
    boxes = torch.cat((torch.arange(200)[:, None] % 2, corner, end), dim=1)
    extended = end + 16  # the release's added cell, in pixels
    shift = (extended - corner) / 18
    shifted = torch.cat((boxes[:, :1], corner - shift, extended - shift), dim=1)
    samples = onnx_roi_align(input, shifted, 9, aligned=False).unflatten(2, (3, 3)).unflatten(4, (3, 3))
    expected = samples[:, :, :, 1:, :, 1:].amax(dim=(3, 5))
    out = max_roi_align(input, boxes, 3, SCALE, 2, grid="interior", extend=1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-5)  # fp32 positions, as above


@pytest.mark.parametrize("grid", ["midpoint", "interior"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_equals_the_loops(grid: Any, aligned: bool, dtype: torch.dtype) -> None:
    boxes = boxes_of_all_kinds(14)
    upstream = torch.randn(14, 3, 2, 3, generator=torch.Generator().manual_seed(5))
    gradients = []
    for op, kind in ((by_loop, torch.float64), (max_roi_align, dtype), (max_roi_align_ref, dtype)):
        input = random_map(channels=3).to(kind).requires_grad_()
        op(input, boxes.to(kind), (2, 3), SCALE, 2, aligned, grid).backward(upstream.to(kind))
        assert input.grad is not None
        gradients.append(input.grad.double())
    # In fp32 the weights are differences of positions with errors of 1e-6.
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(gradients[1], gradients[0], **tolerance)
    torch.testing.assert_close(gradients[2], gradients[0], **tolerance)
    assert gradients[0].abs().sum() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_in_half_types(dtype: torch.dtype) -> None:
    """RoIs that do not share cells, as sums into one cell depend on their order."""
    corner = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(2.0), indexing="ij"), dim=-1).view(-1, 2) * 64
    boxes = torch.cat((torch.zeros(6, 1), corner + 7, corner + 40), dim=1)
    upstream, gradients = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(5)).to(dtype), []
    for op, kind in ((max_roi_align_ref, torch.float64), (max_roi_align_ref, dtype), (max_roi_align, dtype)):
        input = random_map(1, 5).to(dtype).to(kind).requires_grad_()
        op(input, boxes, 3, SCALE).backward(upstream.to(kind))
        assert input.grad is not None
        gradients.append(input.grad.double())
    eager_error = (gradients[1] - gradients[0]).abs().max()
    assert (gradients[2] - gradients[0]).abs().max() <= 2 * eager_error


@pytest.mark.parametrize("op", [max_roi_align, max_roi_align_ref])
@pytest.mark.parametrize("grid", ["midpoint", "interior"])
def test_gradcheck(op: Any, grid: str) -> None:
    input = random_map(1, 2, 4, 5).double().requires_grad_()
    boxes = boxes_of_all_kinds(10, 1, 4, 5).double()
    assert torch.autograd.gradcheck(lambda x: op(x, boxes, 2, SCALE, 2, False, grid), (input,))


@pytest.mark.parametrize("op", [max_roi_align, max_roi_align_ref])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_ties_go_to_the_first_sample(op: Any, level: float) -> None:
    """A flat map, as ReLU makes them: the samples at 0.5 and 1.5 of each axis tie, that at (0.5, 0.5) wins."""
    input = torch.full((1, 2, 4, 4), level, requires_grad=True)
    op(input, torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]]), 1, 1.0).backward(torch.tensor([8.0, 4.0]).view(1, 2, 1, 1))
    expected = torch.zeros(1, 2, 4, 4)
    expected[0, 0, :2, :2], expected[0, 1, :2, :2] = 2.0, 1.0
    assert input.grad is not None
    assert torch.equal(input.grad, expected)


def test_gradient_is_zero_for_boxes_without_samples() -> None:
    input = random_map().requires_grad_()
    nan = math.nan
    boxes = torch.tensor([[0, nan, 1, 2, 3], [1, -999, -999, -900, -900], [1, 1, 2, math.inf, 4]])
    max_roi_align(input, boxes, 3, SCALE).sum().backward()
    assert input.grad is not None
    assert torch.equal(input.grad, torch.zeros_like(input.grad))


def test_forward_is_the_same_with_and_without_gradient() -> None:
    input, boxes = random_map(), boxes_of_all_kinds(40)
    with_gradient = max_roi_align(input.clone().requires_grad_(), boxes, 3, SCALE).detach()
    torch.testing.assert_close(with_gradient, max_roi_align(input, boxes, 3, SCALE), rtol=1e-5, atol=1e-6)


def test_threads_do_not_matter(threads: Callable[[int], None]) -> None:
    input, boxes = random_map(), boxes_of_all_kinds(40)
    results = []
    for n in (1, 2):
        threads(n)
        results.append(max_roi_align(input, boxes, 3, SCALE))
    assert torch.equal(*results)


def test_without_numba_pytorch_gives_the_same(no_numba: Callable[[], None]) -> None:
    input, boxes = random_map(), boxes_of_all_kinds(40)
    expected = max_roi_align(input, boxes, 3, SCALE)
    no_numba()
    torch.testing.assert_close(max_roi_align(input, boxes, 3, SCALE), expected, rtol=1e-5, atol=1e-6)


def test_boxes_get_no_gradient() -> None:
    boxes = boxes_of_all_kinds(5).requires_grad_()
    for op in (max_roi_align, max_roi_align_ref):
        assert not op(random_map(), boxes, 3, SCALE).requires_grad


_COORDINATE = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 1e6, -1e6, 3e38, -3e38, 0.0, -0.0, -16.0, 208.0, 1e-40]),
    st.floats(-1e6, 1e6, width=32),
    st.floats(-40, 240, width=32),
    st.integers(-3, 15).map(lambda cell: 16.0 * cell),
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    coordinates=st.lists(st.tuples(_COORDINATE, _COORDINATE, _COORDINATE, _COORDINATE), max_size=6),
    aligned=st.booleans(),
    grid=st.sampled_from(["midpoint", "interior"]),
    n=st.integers(1, 3),
)
def test_any_boxes(coordinates: list[tuple[float, ...]], aligned: bool, grid: Any, n: int) -> None:
    input = random_map(1, 3)
    xyxy = torch.tensor(coordinates).view(-1, 4)
    boxes = F.pad(xyxy, (1, 0))
    out = max_roi_align(input, boxes, (2, 3), SCALE, n, aligned, grid)
    assert out.shape == (len(coordinates), 3, 2, 3)
    assert out.isfinite().all()
    lost = ~xyxy.isfinite().all(dim=1)
    assert torch.equal(out[lost], torch.zeros_like(out[lost]))
    expected = _reference(input, boxes, (2, 3), SCALE, n, aligned, grid)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("column", [1, 2, 3, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("aligned", [False, True])
def test_a_box_that_is_not_finite_gives_zeros(column: int, value: float, aligned: bool) -> None:
    boxes = torch.tensor([[0.0, 30.0, 30.0, 90.0, 90.0]]).repeat(2, 1)
    boxes[1, column] = value
    for op in (max_roi_align, max_roi_align_ref):
        out = op(random_map() + 9, boxes, 3, SCALE, aligned=aligned)
        assert (out[0] != 0).all()
        assert (out[1] == 0).all()


def test_no_boxes() -> None:
    input = random_map().requires_grad_()
    out = max_roi_align(input, torch.zeros(0, 5), (2, 3), SCALE)
    assert out.shape == (0, 7, 2, 3)
    assert out.dtype == torch.float32
    assert max_roi_align_ref(input, torch.zeros(0, 5), (2, 3), SCALE).shape == (0, 7, 2, 3)


def test_result_is_read_as_rows_without_a_copy() -> None:
    out = max_roi_align(random_map(), boxes_of_all_kinds(200), 3, SCALE)
    rows = out.permute(0, 2, 3, 1).flatten(1)
    assert rows.data_ptr() == out.data_ptr()
    assert torch.equal(rows[17].view(3, 3, 7)[2, 1], out[17, :, 2, 1])


@pytest.mark.parametrize("chunk", [1, 7, 99, 100, 10_000])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    input, boxes = random_map(), boxes_of_all_kinds(100)
    expected = max_roi_align(input, boxes, 3, SCALE)
    monkeypatch.setattr(sys.modules["fdn_triton.kernels.roi_sampling"], "_ROIS_PER_CHUNK", chunk)
    assert torch.equal(max_roi_align(input, boxes, 3, SCALE), expected)
    assert torch.equal(max_roi_align(input, boxes[37:38], 3, SCALE), expected[37:38])


def test_repeats_bit_for_bit_and_leaves_its_inputs() -> None:
    input, boxes = random_map(), boxes_of_all_kinds(50)
    before = input.clone(), boxes.clone()
    assert torch.equal(max_roi_align(input, boxes, 3, SCALE), max_roi_align(input, boxes, 3, SCALE))
    assert torch.equal(input, before[0])
    assert torch.equal(boxes, before[1])


@pytest.mark.parametrize("op", [max_roi_align, max_roi_align_ref])
@pytest.mark.parametrize("batch_index", [-1.0, 2.0, 1e9, math.nan, math.inf])
def test_batch_index_out_of_range(op: Any, batch_index: float) -> None:
    boxes = boxes_of_all_kinds(3)
    boxes[1, 0] = batch_index
    with pytest.raises(ValueError, match=r"batch index outside \[0, 2\)"):
        op(random_map(), boxes, 3, SCALE)


@pytest.mark.parametrize("op", [max_roi_align, max_roi_align_ref])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": torch.zeros(3, 4, 5)}, r"input must be \[N, C, H, W\], got \(3, 4, 5\)"),
        ({"input": torch.zeros(1, 3, 0, 5)}, r"input must have rows and columns, got \(1, 3, 0, 5\)"),
        ({"boxes": torch.zeros(4, 4)}, r"boxes must be \[K, 5\].*got \(4, 4\)"),
        ({"boxes": torch.zeros(5)}, r"boxes must be \[K, 5\].*got \(5,\)"),
        ({"boxes": torch.zeros(4, 5, dtype=torch.long)}, "boxes must be of a floating type, got torch.int64"),
        ({"sampling_ratio": 0}, "sampling_ratio must lie between 1 and 16, got 0"),
        ({"sampling_ratio": 17}, "sampling_ratio must lie between 1 and 16, got 17"),
        ({"boxes": torch.zeros(4, 5, device="meta")}, "input is on cpu, boxes are on meta"),
        ({"grid": "centre"}, "grid must be 'midpoint' or 'interior', got 'centre'"),
        ({"output_size": 0}, "output_size must be one or two positive integers, got 0"),
        ({"output_size": (3, -1)}, "output_size must be one or two positive integers"),
        ({"output_size": (3, 3, 3)}, "output_size must be one or two positive integers"),
    ],
)
def test_what_is_refused(op: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op(**{"input": random_map(), "boxes": boxes_of_all_kinds(4), "output_size": 3, **changes})


def test_batch_index_chooses_the_image() -> None:
    """Each image of a constant value of its own."""
    input = torch.arange(1.0, 6.0).view(5, 1, 1, 1).expand(5, 2, 6, 7)
    order = torch.tensor([3.0, 0.0, 4.0, 4.0, 1.0])
    boxes = torch.cat((order[:, None], torch.tensor([[10.0, 10.0, 60.0, 50.0]]).expand(5, 4)), dim=1)
    out = max_roi_align(input, boxes, 2, SCALE)
    np.testing.assert_allclose(out.numpy(), (order + 1).view(5, 1, 1, 1).expand(5, 2, 2, 2).numpy(), rtol=1e-6)


@pytest.mark.parametrize("way", ["public", "triton"])
@pytest.mark.parametrize("learns", [False, True])
def test_the_result_may_be_of_another_type(way: str, learns: bool) -> None:
    """Of the map's values, to its precision."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 16, 9, 11, generator=generator).bfloat16().requires_grad_(learns)
    boxes = torch.tensor([[0.0, 3.0, 5.0, 70.0, 90.0], [0.0, 20.0, 0.0, 60.0, 40.0]])
    expected = max_roi_align(features, boxes, 3, 1 / 16)
    if way == "triton":
        gpu = pytest.importorskip("fdn_triton.kernels.gpu.max_roi_align", reason="needs triton")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        sampling = sys.modules["fdn_triton.kernels.max_roi_align"].samples_in_bins(
            (3, 3), 1 / 16, 2, False, "midpoint", 0.0
        )
        got = gpu.max_roi_align(features.to(device), boxes.to(device), (3, 3), sampling, dtype=torch.float32).cpu()
    else:
        got = max_roi_align(features, boxes, 3, 1 / 16, dtype=torch.float32)
    assert got.dtype == torch.float32 and got.requires_grad == learns
    torch.testing.assert_close(got, expected.float(), rtol=2**-6, atol=2**-6)
