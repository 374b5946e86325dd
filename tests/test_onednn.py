"""oneDNN's operators give what PyTorch's functions do, and are taken where they are faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.kernels import onednn
from fdn_triton.kernels.onednn import PackedConvolution, linear
from fdn_triton.winograd import WinogradConvolution

HAS_PRODUCTS = hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_operator = pytest.mark.skipif(not HAS_PRODUCTS, reason="this torch has no such operator")


@pytest.fixture(params=[False, True], ids=["by PyTorch's choice", "by oneDNN"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not HAS_PRODUCTS:
        pytest.skip("this torch has no such operator")
    monkeypatch.setattr(onednn, "multiplies_faster", lambda: request.param)


def _exactly(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(256, 4608, 512), (1, 4608, 512), (128, 512, 512), (7, 33, 5), (0, 4608, 512)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_products_are_right(shape: tuple[int, int, int], with_bias: bool) -> None:
    n, width, out = shape
    x, weight, bias = torch.randn(n, width), torch.randn(out, width), torch.randn(out) if with_bias else None
    torch.testing.assert_close(linear(x, weight, bias).double(), _exactly(x, weight, bias), rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("library")
def test_transposed_views_and_parts_are_taken_as_they_are() -> None:
    gradient, inputs = torch.randn(128, 512), torch.randn(2, 128, 4608)[1]
    expected = gradient.double().T @ inputs.double()
    torch.testing.assert_close(linear(gradient.T, inputs.T).double(), expected, rtol=1e-4, atol=1e-3)
    x, weight = torch.randn(300, 2, 4608)[:, 1], torch.randn(512, 5000)[:, 100:4708]
    torch.testing.assert_close(linear(x, weight).double(), _exactly(x, weight, None), rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_keep_theirs(dtype: torch.dtype) -> None:
    x, weight = torch.randn(64, 4608).to(dtype), torch.randn(512, 4608).to(dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


@pytest.mark.usefixtures("library")
def test_gradients_flow_where_they_are_asked_for() -> None:
    x, weight = torch.randn(64, 4608), torch.randn(512, 4608, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(512, -1), rtol=1e-4, atol=1e-3)


@needs_operator
def test_onednn_is_taken_where_it_is_faster_and_the_product_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "multiplies_faster", lambda: True)
    for rows, asked in ((256, True), (1, True), (0, False)):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            linear(torch.randn(rows, 4608), torch.randn(512, 4608))
        assert any(event.key == "mkldnn::_linear_pointwise" for event in profile.key_averages()) == asked, rows


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({"cpu_name": "AMD EPYC 9575F", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC 7763", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R) Processor", "avx512_f": True}, False),
        ({}, False),
    ],
)
@needs_operator
def test_it_is_faster_on_other_makers_cpus_of_wide_vectors(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], faster: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert onednn.multiplies_faster.__wrapped__() is faster


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "out", "kernel", "stride"), [(3, 96, 7, 2), (96, 256, 5, 2), (256, 512, 3, 1)])
@pytest.mark.parametrize("size_hw", [(100, 180), (9, 40), (17, 7)])
def test_packed_filters_convolve_as_others(
    dtype: torch.dtype, channels: int, out: int, kernel: int, stride: int, size_hw: tuple[int, int]
) -> None:
    convolution = nn.Conv2d(channels, out, kernel, stride).requires_grad_(False).to(dtype)
    if not PackedConvolution.fits(convolution):
        pytest.skip("this torch has no such operators")
    map_ = torch.randn(1, size_hw[0] + 9, size_hw[1] + 5, channels).to(dtype).permute(0, 3, 1, 2)
    x = map_[:, :, 4:-5, 2:-3]
    got = PackedConvolution(convolution)(x)
    assert got.dtype == dtype and got.is_contiguous(memory_format=torch.channels_last)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(got, convolution(x), **tolerance)


def test_other_types_are_not_packed() -> None:
    assert not PackedConvolution.fits(nn.Conv2d(8, 8, 3).double())


@pytest.mark.parametrize("faster", [False, True])
def test_the_trunk_convolves_in_the_way_that_is_faster(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    monkeypatch.setattr("fdn_triton.backbone.multiplies_faster", lambda: faster)
    ways = [type(way) for way in Backbone(NetworkConfig()).requires_grad_(False).unpadded_convolutions]
    if PackedConvolution.fits(nn.Conv2d(3, 8, 7)):
        plain = PackedConvolution
        assert ways == ([plain] * 3 if faster else [plain, WinogradConvolution, WinogradConvolution])


def test_the_trunk_does_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedConvolution, "fits", lambda convolution: False)
    monkeypatch.setattr("fdn_triton.backbone.multiplies_faster", lambda: True)
    backbone = Backbone(NetworkConfig()).requires_grad_(False)
    x = torch.randn(1, 3, 60, 70)
    torch.testing.assert_close(
        backbone.unpadded_convolutions[0](x),
        F.conv2d(x, backbone.conv1.weight, stride=2) + backbone.conv1.bias.view(-1, 1, 1),
        rtol=1e-4,
        atol=1e-4,
    )
