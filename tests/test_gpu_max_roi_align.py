"""The Triton kernels of max-RoIAlign, on a GPU or interpreted, against the reference, onnxruntime and autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from roi_cases import SCALE, boxes_of_all_kinds, onnx_roi_align, random_map
from torch import Tensor

from fdn_triton.kernels import max_roi_align, max_roi_align_ref
from fdn_triton.kernels.gpu import max_roi_align as gpu
from fdn_triton.kernels.max_roi_align import samples_in_bins

ATOL = 4e-6 if torch.cuda.is_available() else 2e-6
"""Of terms up to 4, at positions that fp32 rounds by 2e-6 cells; a GPU, which fuses products and sums, does otherwise
than an interpreted kernel (3.02e-6 at most on an H100)."""


def on_triton(
    input: Tensor,
    boxes: Tensor,
    output_hw: tuple[int, int],
    n: int = 2,
    aligned: bool = False,
    grid: Any = "midpoint",
    extend: float = 0.0,
    deterministic: bool | None = None,
) -> Tensor:
    """The kernels themselves: the public function would take CPU tensors elsewhere."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sampling = samples_in_bins(output_hw, SCALE, n, aligned, grid, extend)
    out = gpu.max_roi_align(input.to(device), boxes.to(device), output_hw, sampling, deterministic)
    return out.to(input.device)


def reference(input: Tensor, boxes: Tensor, output_hw: tuple[int, int], *arguments: Any) -> Tensor:
    return max_roi_align_ref(input.double(), boxes, output_hw, SCALE, *arguments)


@pytest.mark.parametrize("grid", ["midpoint", "interior"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("n", "extend"), [(1, 0.0), (2, 0.0), (2, 1.0), (3, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_reference(grid: Any, aligned: bool, n: int, extend: float, dtype: torch.dtype) -> None:
    input = random_map(channels=37).to(dtype).contiguous(memory_format=torch.channels_last)
    boxes, arguments = boxes_of_all_kinds(16), (n, aligned, grid, extend)
    out = on_triton(input, boxes, (2, 3), *arguments)
    expected = reference(input, boxes, (2, 3), *arguments)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    if dtype == torch.float32:
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=ATOL)
    else:
        eager_error = (max_roi_align_ref(input, boxes, (2, 3), SCALE, *arguments).double() - expected).abs().max()
        assert (out.double() - expected).abs().max() <= 2 * eager_error


@pytest.mark.parametrize("channels", [1, 16, 100])
@pytest.mark.parametrize(
    ("output_hw", "map_hw"), [((1, 1), (6, 1)), ((1, 4), (1, 9)), ((5, 2), (5, 17)), ((3, 3), (1, 1))]
)
def test_shapes(channels: int, output_hw: tuple[int, int], map_hw: tuple[int, int]) -> None:
    input, boxes = random_map(1, channels, *map_hw), boxes_of_all_kinds(11, 1, *map_hw)
    out = on_triton(input, boxes, output_hw)
    torch.testing.assert_close(out.double(), reference(input, boxes, output_hw), rtol=1e-5, atol=ATOL)
    assert out.abs().sum() > 0


def test_sixteen_samples_an_axis() -> None:
    """The most there may be: the winner's byte is full."""
    input, boxes = random_map(1, 2, 5, 7), torch.tensor([[0.0, 5.0, 9.0, 100.0, 75.0]])
    expected = reference(input, boxes, (1, 1), 16)
    torch.testing.assert_close(on_triton(input, boxes, (1, 1), 16).double(), expected, rtol=1e-5, atol=ATOL)
    assert_gradient_is_exact(input, boxes, (1, 1), 16)


def test_memory_layouts() -> None:
    input, boxes = random_map(channels=6), boxes_of_all_kinds(12)
    expected = on_triton(input, boxes, (3, 3))
    wide = torch.zeros(2, 12, 11, 26)
    wide[:, ::2, :, ::2] = input
    for same in (input.contiguous(memory_format=torch.channels_last), wide[:, ::2, :, ::2]):
        assert torch.equal(on_triton(same, boxes, (3, 3)), expected)
    assert torch.equal(on_triton(input, torch.stack((boxes, boxes), dim=2)[:, :, 0], (3, 3)), expected)
    assert torch.equal(on_triton(input, boxes.double(), (3, 3)), expected)


def test_boxes_stay_in_fp32() -> None:
    """A ramp of one level a cell: fp16 pixels above 1024 would be whole or even."""
    input = torch.arange(200.0).expand(1, 1, 2, 200).half()
    out = on_triton(input, torch.tensor([[0.0, 2000.75, 0.0, 2016.75, 16.0]]), (1, 1), 1)
    assert out.item() == torch.tensor(2008.75 / 16).half().item()


@pytest.mark.parametrize("aligned", [False, True])
def test_midpoint_against_onnxruntime(aligned: bool) -> None:
    input, boxes = random_map(), boxes_of_all_kinds(100)
    expected = F.max_pool2d(onnx_roi_align(input, boxes, 6, aligned), 2)
    out = on_triton(input, boxes, (3, 3), 2, aligned)
    # Both compute positions in fp32, in another order: 1e-6 cells apart, on a map with steps of up to 6 a cell.
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-5)
    assert (out != 0).float().mean() > 0.5


def test_interior_against_onnxruntime() -> None:
    """The release's grid: from 9x9 samples of the box shifted by w / 18, the first of every triple is dropped."""
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(40, 2, generator=generator) * torch.tensor([140.0, 110.0]) + 12
    end = torch.minimum(corner + torch.rand(40, 2, generator=generator) * 60, torch.tensor([190.0, 158.0]))
    image = torch.arange(40)[:, None] % 2
    shift = (end + 16 - corner) / 18  # 16 pixels are the release's added cell
    shifted = torch.cat((image, corner - shift, end + 16 - shift), dim=1)
    input = random_map()
    samples = onnx_roi_align(input, shifted, 9, aligned=False).unflatten(2, (3, 3)).unflatten(4, (3, 3))
    out = on_triton(input, torch.cat((image, corner, end), dim=1), (3, 3), 2, False, "interior", 1.0)
    torch.testing.assert_close(out, samples[:, :, :, 1:, :, 1:].amax(dim=(3, 5)), rtol=1e-5, atol=2e-5)


def assert_gradient_is_exact(input: Tensor, boxes: Tensor, output_hw: tuple[int, int], *arguments: Any) -> None:
    """Both backwards against the reference's autograd in float64, on the same inputs."""
    upstream = torch.randn(
        len(boxes), input.shape[1], *output_hw, generator=torch.Generator().manual_seed(5), dtype=torch.float32
    ).to(input.dtype)
    exact = input.double().requires_grad_()
    reference(exact, boxes, output_hw, *arguments).backward(upstream.double())
    assert exact.grad is not None
    for deterministic in (False, True):
        leaf = input.clone(memory_format=torch.preserve_format).requires_grad_()
        on_triton(leaf, boxes, output_hw, *arguments, deterministic=deterministic).backward(upstream)
        assert leaf.grad is not None
        assert leaf.grad.dtype == input.dtype
        assert leaf.grad.stride() == input.stride()
        if input.dtype == torch.float32:
            # Weights are differences of positions with errors of 1e-6, and up to a hundred terms meet in a cell.
            torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-5, atol=2e-5)
        else:  # one rounding of a sum in fp32
            torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=torch.finfo(input.dtype).eps, atol=1e-5)


@pytest.mark.parametrize("grid", ["midpoint", "interior"])
@pytest.mark.parametrize("aligned", [False, True])
def test_gradients(grid: Any, aligned: bool) -> None:
    input, boxes = random_map(2, 5, 6, 7), boxes_of_all_kinds(13, 2, 6, 7)
    assert_gradient_is_exact(input, boxes, (2, 3), 2, aligned, grid)


@pytest.mark.parametrize(
    ("dtype", "memory_format"),
    [(torch.float16, torch.channels_last), (torch.bfloat16, torch.contiguous_format)],
)
def test_gradients_in_half_types(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    input = random_map(1, 5, 5, 6).to(dtype).contiguous(memory_format=memory_format)
    assert_gradient_is_exact(input, boxes_of_all_kinds(11, 1, 5, 6), (3, 3), 2)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("map_hw", [(1, 6), (7, 1)])
def test_gradients_of_other_shapes(n: int, map_hw: tuple[int, int]) -> None:
    assert_gradient_is_exact(random_map(1, 3, *map_hw), boxes_of_all_kinds(11, 1, *map_hw), (2, 1), n)


def test_gradient_of_more_boxes_than_a_block() -> None:
    """The gathering backward looks at 128 boxes at a time."""
    input = random_map(1, 2, 2, 4)
    assert_gradient_is_exact(input, boxes_of_all_kinds(140, 1, 2, 4), (1, 1), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: of interpreted kernels there may be any number")
def test_gradients_of_more_rows_than_a_grid_has_on_its_second_axis() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.0, 20.0, 40.0], [0.0, 0.0, 16.0 * 69_990, 20.0, 16.0 * 69_999]])
    assert_gradient_is_exact(random_map(1, 2, 70_000, 2), boxes, (1, 1), 1)


@pytest.mark.parametrize("deterministic", [False, True])
def test_ties_go_to_the_first_sample(deterministic: bool) -> None:
    input = torch.full((1, 2, 4, 4), 1.0, requires_grad=True)
    boxes = torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]])
    upstream = torch.tensor([8.0, 4.0]).view(1, 2, 1, 1)
    on_triton(input, boxes, (1, 1), deterministic=deterministic).backward(upstream)
    expected = torch.zeros(1, 2, 4, 4)
    expected[0, 0, :2, :2], expected[0, 1, :2, :2] = 2.0, 1.0
    assert input.grad is not None
    assert torch.equal(input.grad, expected)


def test_the_global_switch_chooses_the_gathering_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    backward = gpu.max_roi_align_bwd
    monkeypatch.setattr(gpu, "max_roi_align_bwd", lambda *a: asked.append(a[-1]) or backward(*a))
    gradients = []
    for switch in (True, True, False):
        input = random_map(1, 3, 5, 5).requires_grad_()
        out = on_triton(input, boxes_of_all_kinds(12, 1, 5, 5), (2, 2))
        torch.use_deterministic_algorithms(switch)
        try:
            out.sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        gradients.append(input.grad)
    assert asked == [True, True, False]
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_boxes(deterministic: bool) -> None:
    input = random_map().requires_grad_()
    out = on_triton(input, torch.zeros(0, 5), (2, 3), deterministic=deterministic)
    assert out.shape == (0, 7, 2, 3)
    out.sum().backward()
    assert input.grad is not None
    assert torch.equal(input.grad, torch.zeros_like(input))


def test_nothing_is_left_unwritten() -> None:
    """torch fills fresh memory with NaN under this switch."""
    input, boxes = random_map(channels=9).requires_grad_(), boxes_of_all_kinds(10)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        out = on_triton(input, boxes, (3, 3))
        out.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert input.grad is not None
    assert out.isfinite().all()
    assert input.grad.isfinite().all()


@pytest.mark.parametrize("batch_index", [-1.0, -0.5, 2.0, 1e9, -1e9, math.nan, math.inf])
def test_a_batch_index_out_of_range_gives_zeros(batch_index: float) -> None:
    input, boxes = (random_map() + 9).requires_grad_(), boxes_of_all_kinds(4)[-2:].clone()
    boxes[:, 1:] = torch.tensor([30.0, 30.0, 90.0, 90.0])
    boxes[1, 0] = batch_index
    for deterministic in (False, True):
        input.grad = None
        out = on_triton(input, boxes, (3, 3), deterministic=deterministic)
        assert (out[0] != 0).all()
        assert (out[1] == 0).all()
        out[1].sum().backward()
        assert input.grad is not None
        assert torch.equal(input.grad, torch.zeros_like(input))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("aligned", [False, True])
def test_a_box_that_is_not_finite_gives_zeros(value: float, aligned: bool) -> None:
    boxes = torch.tensor([[0.0, 30.0, 30.0, 90.0, 90.0]]).repeat(5, 1)
    boxes[range(1, 5), range(1, 5)] = value
    out = on_triton(random_map() + 9, boxes, (3, 3), 2, aligned)
    assert (out[0] != 0).all()
    assert (out[1:] == 0).all()


def test_nan_in_the_map_shows() -> None:
    input, boxes = random_map(1, 2), torch.tensor([[0.0, 16.0, 16.0, 80.0, 80.0]])
    input[0, 1, 2, 2] = math.nan
    out = on_triton(input, boxes, (2, 2))
    assert torch.equal(out.isnan(), reference(input, boxes, (2, 2)).isnan())
    assert out[0, 1, 0, 0].isnan()


_COORDINATE = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 1e6, -1e6, 3e38, -3e38, 0.0, -0.0, -16.0, 208.0, 1e-40]),
    st.floats(-1e6, 1e6, width=32),
    st.floats(-40, 240, width=32),
    st.integers(-3, 15).map(lambda cell: 16.0 * cell),
)
_BATCH_INDEX = st.sampled_from([0.0, 1.0, 0.0, 1.0, -1.0, 2.0, 3e38, math.nan])


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    rows=st.lists(st.tuples(_BATCH_INDEX, _COORDINATE, _COORDINATE, _COORDINATE, _COORDINATE), max_size=5),
    aligned=st.booleans(),
    grid=st.sampled_from(["midpoint", "interior"]),
    n=st.integers(1, 3),
)
def test_any_boxes(rows: list[tuple[float, ...]], aligned: bool, grid: Any, n: int) -> None:
    input, boxes = random_map(2, 3), torch.tensor(rows).view(-1, 5)
    out = on_triton(input, boxes, (2, 3), n, aligned, grid)
    assert out.shape == (len(rows), 3, 2, 3)
    fits = (boxes[:, 0] >= 0) & (boxes[:, 0] < 2)
    lost = ~(boxes[:, 1:].isfinite().all(dim=1) & fits)
    assert torch.equal(out[lost], torch.zeros_like(out[lost]))
    expected = reference(input, boxes[fits], (2, 3), n, aligned, grid)
    torch.testing.assert_close(out[fits].double(), expected, rtol=1e-5, atol=ATOL)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the public function must launch the kernels")
def test_the_public_function_launches_the_kernels() -> None:
    input, boxes = random_map(channels=64), boxes_of_all_kinds(60)
    out = max_roi_align(input.cuda(), boxes.cuda(), 3, SCALE)
    torch.testing.assert_close(out.cpu().double(), reference(input, boxes, (3, 3)), rtol=1e-5, atol=ATOL)
    compiled = torch.compile(lambda x, b: max_roi_align(x, b, 3, SCALE), fullgraph=True)
    assert torch.equal(compiled(input.cuda(), boxes.cuda()), out)
    boxes[5, 0] = 7
    on_gpu, boxes_on_gpu = input.cuda(), boxes.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        zeros = max_roi_align(on_gpu, boxes_on_gpu, 3, SCALE)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (zeros[5] == 0).all()
