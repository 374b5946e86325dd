"""RoIPool against hand values, a cell-by-cell loop, onnxruntime's MaxRoiPool, and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fdn_triton.roi_pool as roi_pool_module
from fdn_triton.roi_pool import roi_pool

SCALE = 1 / 16


def _map(n: int = 2, channels: int = 5, height: int = 11, width: int = 13) -> Tensor:
    """Negative values too, so that an empty bin's 0 is not mistaken for a maximum."""
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0)) - 1


def _boxes(count: int, n: int = 2) -> Tensor:
    """Random boxes; a third of them on multiples of half a cell, where the rounding decides."""
    generator = torch.Generator().manual_seed(1)
    frame_wh = torch.tensor([13.0, 11.0]) / SCALE
    low = (torch.rand(count, 2, generator=generator) * 1.4 - 0.3) * frame_wh
    wh = torch.rand(count, 2, generator=generator) ** 2 * frame_wh
    wh[::7] = 0
    wh[::11, 0] *= -0.2
    xyxy = torch.cat((low, low + wh), dim=1)
    xyxy[::3] = (xyxy[::3] / 8).round() * 8
    return torch.cat((torch.arange(count)[:, None] % n, xyxy), dim=1)


def _by_loop(input: Tensor, boxes: Tensor, bins: int, scale: float) -> Tensor:
    """The definition, cell after cell; C's rounding of halves away from zero; differentiable."""
    _, channels, height, width = input.shape
    out = []
    for image, *corners in boxes.tolist():
        x1, y1, x2, y2 = (math.copysign(math.floor(abs(v * scale) + 0.5), v) for v in corners)
        for p in range(bins):
            for q in range(bins):
                ranges = []
                for first, last, b, size in ((y1, y2, p, height), (x1, x2, q, width)):
                    extent = max(last - first + 1, 1)
                    # Whole numbers: floor and ceil of b * extent / bins without rounding errors.
                    begin = int(first) + b * int(extent) // bins
                    end = int(first) - (-(b + 1) * int(extent) // bins)
                    ranges.append(range(max(begin, 0), min(end, size)))
                cells = [input[int(image), :, i, j] for i in ranges[0] for j in ranges[1]]
                best = cells[0] if cells else input.new_zeros(channels)
                for cell in cells[1:]:
                    best = torch.where(cell > best, cell, best)
                out.append(best)
    return torch.stack(out).view(len(boxes), bins, bins, channels).permute(0, 3, 1, 2)


def test_hand_computed() -> None:
    """Cells 1..4 along both axes in 3 bins: [1, 3), [2, 4), [3, 5): extents that overlap by the ceil."""
    ramp = (10.0 * torch.arange(8.0)[:, None] + torch.arange(8.0))[None, None]
    out = roi_pool(ramp, torch.tensor([[0.0, 16.0, 16.0, 64.0, 64.0]]), 3, SCALE)
    assert out[0, 0].tolist() == [[22.0, 23.0, 24.0], [32.0, 33.0, 34.0], [42.0, 43.0, 44.0]]


def test_halves_round_away_from_zero() -> None:
    """Pixels 8 and 40 are cells 0.5 and 2.5: they become 1 and 3, where rounding to even gives 0 and 2."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    out = roi_pool(ramp, torch.tensor([[0.0, 8.0, 8.0, 40.0, 40.0]]), 3, SCALE)
    assert out[0, 0].tolist() == [[1.0, 2.0, 3.0]] * 3
    # -8 becomes -1: of the cells -1, 0, 1 the first bin has none.
    out = roi_pool(ramp + 5, torch.tensor([[0.0, -8.0, 0.0, 16.0, 32.0]]), 3, SCALE)
    assert out[0, 0, 0].tolist() == [0.0, 5.0, 6.0]


@pytest.mark.parametrize("bins", [1, 2, 3, 7])
def test_equals_the_loop(bins: int) -> None:
    """A maximum of cells of the map: no rounding at all."""
    input, boxes = _map(), _boxes(60)
    assert torch.equal(roi_pool(input, boxes, bins, SCALE), _by_loop(input, boxes, bins, SCALE))


@pytest.mark.parametrize("map_hw", [(1, 1), (1, 9), (9, 1), (33, 17)])
def test_map_sizes(map_hw: tuple[int, int]) -> None:
    input, boxes = _map(2, 3, *map_hw), _boxes(40)
    assert torch.equal(roi_pool(input, boxes, 3, SCALE), _by_loop(input, boxes, 3, SCALE))


@pytest.mark.parametrize("bins", [1, 3, 6])
def test_against_onnxruntime(bins: int) -> None:
    """onnxruntime keeps Caffe's rounding, halves away from zero, so boxes on halves are compared too."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MaxRoiPool", ["X", "rois"], ["Y"], pooled_shape=[bins, bins], spatial_scale=SCALE)],
        "roi_pool",
        [helper.make_tensor_value_info(name, kind, None) for name in ("X", "rois")],
        [helper.make_tensor_value_info("Y", kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    input, boxes = _map(), _boxes(1500)
    expected = torch.from_numpy(session.run(None, {"X": input.numpy(), "rois": boxes.numpy()})[0])
    out = roi_pool(input, boxes, bins, SCALE)
    assert torch.equal(out, expected)
    assert (out != 0).float().mean() > 0.4  # the comparison is not one of zeros


def test_bins_without_cells_give_0() -> None:
    input = -torch.ones(1, 2, 4, 4)
    boxes = torch.tensor([[0.0, -500.0, -500.0, -400.0, -400.0], [0.0, 900.0, 0.0, 999.0, 50.0]])
    assert torch.equal(roi_pool(input, boxes, 3, SCALE), torch.zeros(2, 2, 3, 3))
    half_outside = roi_pool(input, torch.tensor([[0.0, -32.0, 0.0, 48.0, 32.0]]), 3, SCALE)
    assert half_outside[0, 0].tolist() == [[0.0, -1.0, -1.0]] * 3


def test_gradient_goes_to_the_maximum() -> None:
    boxes, gradients = _boxes(40), []
    upstream = torch.randn(40, 5, 3, 3, generator=torch.Generator().manual_seed(2)).double()
    for op in (_by_loop, roi_pool):
        input = _map().double().requires_grad_()
        op(input, boxes, 3, SCALE).backward(upstream)
        assert input.grad is not None
        gradients.append(input.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)
    assert gradients[0].abs().sum() > 1


def test_no_boxes() -> None:
    assert roi_pool(_map(), torch.zeros(0, 5), 3, SCALE).shape == (0, 5, 3, 3)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    input, boxes = _map(), _boxes(30)
    expected = roi_pool(input, boxes, 3, SCALE)
    monkeypatch.setattr(roi_pool_module, "_ROIS_PER_CHUNK", chunk)
    assert torch.equal(roi_pool(input, boxes, 3, SCALE), expected)


def test_channels_last_in_and_out() -> None:
    input, boxes = _map(), _boxes(30)
    out = roi_pool(input.contiguous(memory_format=torch.channels_last), boxes, 3, SCALE)
    assert torch.equal(out, roi_pool(input, boxes, 3, SCALE))
    assert out.permute(0, 2, 3, 1).flatten(1).data_ptr() == out.data_ptr()
