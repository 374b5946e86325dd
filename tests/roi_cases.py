"""Maps, boxes and oracles that the tests of the RoI operations share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

SCALE = 1 / 16


def random_map(n: int = 2, channels: int = 7, height: int = 11, width: int = 13, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def boxes_of_all_kinds(count: int, n: int = 2, height: int = 11, width: int = 13, seed: int = 1) -> Tensor:
    """Boxes [count, 5] of all kinds: inside, over the border, outside, flat, of one pixel, upside down, the map."""
    generator = torch.Generator().manual_seed(seed)
    frame_wh = torch.tensor([width, height]) / SCALE
    center = (torch.rand(count, 2, generator=generator) * 1.3 - 0.15) * frame_wh
    wh = torch.rand(count, 2, generator=generator) ** 2 * frame_wh
    special = [
        (0.0, 0.0, width / SCALE, height / SCALE),
        (-16.0, -16.0, 32.0, 32.0),  # its first samples lie about a cell outside
        (width / SCALE, height / SCALE, width / SCALE + 1, height / SCALE + 1),
        (-500.0, -400.0, -300.0, -200.0),
        (40.0, 50.0, 40.0, 50.0),
        (40.0, 50.0, 140.0, 50.0),
        (33.0, 47.0, 34.0, 48.0),
        (120.0, 100.0, 60.0, 30.0),
        (-40.0, 30.0, 60.0, 300.0),
    ]
    xyxy = torch.cat((torch.tensor(special), torch.cat((center - wh / 2, center + wh / 2), dim=1)))[:count]
    return torch.cat((torch.arange(count)[:, None] % n, xyxy), dim=1)


def by_loop(
    input: Tensor,
    boxes: Tensor,
    output_hw: tuple[int, int],
    scale: float,
    n: int,
    aligned: bool,
    grid: str,
    extend: float = 0.0,
) -> Tensor:
    """The definition, sample after sample, positions in Python's floats; differentiable in ``input``."""
    _, channels, height, width = input.shape
    out = []
    for image, x1, y1, x2, y2 in boxes.tolist():
        for p in range(output_hw[0] * output_hw[1]):
            best: Tensor | None = None
            for s in range(n * n):
                position, inside = [], all(map(math.isfinite, (x1, y1, x2, y2)))
                for low, high, b, bins, j, size in (
                    (y1, y2, p // output_hw[1], output_hw[0], s // n, height),
                    (x1, x2, p % output_hw[1], output_hw[1], s % n, width),
                ):
                    extent = (high - low) * scale + extend
                    extent = extent if aligned else max(extent, 1.0)
                    part = (j + 0.5) / n if grid == "midpoint" else (j + 1) / (n + 1)
                    v = low * scale - (0.5 if aligned else 0.0) + extent * (b + part) / bins
                    inside = inside and -1 <= v <= size
                    position.append(min(max(v, 0.0), size - 1.0) if inside else 0.0)
                (y, x), value = position, torch.zeros(channels, dtype=input.dtype)
                if inside:
                    top, left = int(y), int(x)
                    for i, wy in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
                        for j, wx in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
                            value = value + wy * wx * input[int(image), :, i, j]
                best = value if best is None else torch.where(value > best, value, best)
            out.append(best)
    if not out:
        return input.new_zeros(0, channels, *output_hw)
    return torch.stack(out).view(len(boxes), *output_hw, channels).permute(0, 3, 1, 2)


def onnx_roi_align(input: Tensor, boxes: Tensor, output: int, aligned: bool) -> Tensor:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, types = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "RoiAlign",
        ["X", "rois", "batch"],
        ["Y"],
        mode="avg",
        output_height=output,
        output_width=output,
        sampling_ratio=1,
        spatial_scale=SCALE,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    inputs = (("X", types.FLOAT), ("rois", types.FLOAT), ("batch", types.INT64))
    graph = helper.make_graph(
        [node],
        "roi_align",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs],
        [helper.make_tensor_value_info("Y", types.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"X": input.numpy(), "rois": boxes[:, 1:].numpy(), "batch": boxes[:, 0].long().numpy()}
    return torch.from_numpy(session.run(None, feed)[0])
