"""The worked examples of kernels/README.md, executed, on stand-ins with the interface of the trackers they are for."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from roi_cases import boxes_of_all_kinds, onnx_roi_align, random_map
from test_rt_mdnet_align import by_loop
from torch import Tensor, nn

from fdn_triton import kernels

README = Path(__file__).resolve().parents[1] / "kernels/README.md"


def example(heading: str, contains: str) -> dict[str, Any]:
    """The names that a code block of a section defines, with the imports that a tracker has."""
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", section, re.S) if contains in block]
    names: dict[str, Any] = {"nn": nn, "F": F, "torch": torch, "kernels": kernels}
    exec(code, names)
    return names


def roi_align_by_onnxruntime(
    input: Tensor, boxes: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """torchvision's function, where torchvision is not installed."""
    assert (spatial_scale, sampling_ratio, output_size[0]) == (1 / 16, 1, output_size[1])
    return onnx_roi_align(input, boxes, output_size[0], aligned)


def test_torchvision_and_pooling() -> None:
    """The module before and after, on the same map and boxes."""
    heading = "`torchvision.ops.roi_align` followed by `max_pool2d`"
    before, after = example(heading, "# before"), example(heading, "# after")
    try:
        import torchvision
    except ImportError:
        torchvision = types.SimpleNamespace(ops=types.SimpleNamespace(roi_align=roi_align_by_onnxruntime))
    before["torchvision"] = torchvision
    features, boxes = random_map(), boxes_of_all_kinds(100)
    expected = before["PooledRoIAlign"]()(features, boxes)
    out = after["PooledRoIAlign"]()(features, boxes)
    assert out.shape == expected.shape == (100, 7, 7, 7)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-5)  # fp32 positions, computed in another order


class RTMDNetStandIn(nn.Module):
    """A model with RT-MDNet's interface: a shared trunk of stride 8, a RoI layer as an attribute, FC layers behind."""

    def __init__(self, roi_align_model: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 7, stride=8, padding=3), nn.ReLU())
        self.roi_align_model = roi_align_model
        self.branch = nn.Linear(6 * 3 * 3, 2)

    def forward(self, image: Tensor, rois: Tensor) -> Tensor:
        features = self.roi_align_model(self.layers(image), rois)
        return self.branch(features.view(len(rois), -1))


class PointsAndPooling(nn.Module):
    """The layer's definition, as slow as can be, with the same attributes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        # the loop knows one scale, 1/16: twice the pixels at half the scale
        twice = torch.cat((rois[:, :1], 2 * rois[:, 1:]), dim=1)
        return by_loop(self.kind, features, twice, 3).contiguous()


@pytest.mark.parametrize(("name", "kind"), [("RoIAlignMax", "max"), ("RoIAlignAdaMax", "ada_max")])
def test_rt_mdnet(name: str, kind: str) -> None:
    """As its tracker does: the layer is replaced by one made from its attributes; scores and gradients are the same."""
    layers = example("RT-MDNet's RoI layer", "RoIAlignMax")
    torch_state = torch.random.get_rng_state()
    model = RTMDNetStandIn(layers["RoIAlignMax"](3, 3, 1.0 / 8))
    torch.random.set_rng_state(torch_state)
    slow = RTMDNetStandIn(PointsAndPooling(kind))
    old = model.roi_align_model
    model.roi_align_model = layers[name](old.aligned_height, old.aligned_width, old.spatial_scale)
    image = torch.randn(1, 3, 107, 131, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 8, 8, 60, 70], [0, 30.5, 2.25, 99, 107], [0, -20, 40, 40, 90], [0, 5, 5, 5, 5]])
    scores, expected = model(image, rois), slow(image, rois)
    assert scores.abs().sum() > 0
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    for one, other in ((model, scores), (slow, expected)):
        other[:, 1].sum().backward()
        assert one.layers[0].weight.grad is not None
    torch.testing.assert_close(model.layers[0].weight.grad, slow.layers[0].weight.grad, rtol=1e-3, atol=1e-3)
