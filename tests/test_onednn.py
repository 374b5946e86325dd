"""oneDNN's operators give what PyTorch's functions do, and are taken where they are faster."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_otb import quick_config
from torch import Tensor, nn
from torch.autograd import forward_ad

from fdn_triton import Tracker
from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.kernels import onednn
from fdn_triton.kernels.onednn import PackedConvolution, linear, stacked_linear
from fdn_triton.winograd import WinogradConvolution

HAS_PRODUCTS = hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_operator = pytest.mark.skipif(not HAS_PRODUCTS, reason="this torch has no such operator")
needs_packing = pytest.mark.skipif(
    not PackedConvolution.fits(nn.Conv2d(3, 8, 7).requires_grad_(False)), reason="this torch has no such operators"
)


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
def test_a_bias_may_be_a_strided_view() -> None:
    x, weight, biases = torch.randn(64, 4608), torch.randn(512, 4608), torch.randn(512, 2)
    for bias in (biases[:, 0], torch.randn(1).expand(512)):
        torch.testing.assert_close(linear(x, weight, bias).double(), _exactly(x, weight, bias), rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("learns", ["x", "weight", "bias"])
def test_gradients_flow_where_they_are_asked_for(learns: str) -> None:
    given = {"x": torch.randn(64, 4608), "weight": torch.randn(512, 4608), "bias": torch.randn(512)}
    given[learns].requires_grad_()
    linear(**given).sum().backward()
    expected = {name: each.detach().double().requires_grad_() for name, each in given.items()}
    F.linear(*expected.values()).sum().backward()
    gradient, wanted = given[learns].grad, expected[learns].grad
    assert gradient is not None and wanted is not None
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.usefixtures("library")
def test_tangents_and_traces_are_not_lost() -> None:
    x, weight = torch.randn(64, 4608), torch.randn(512, 4608)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(linear(forward_ad.make_dual(x, torch.ones_like(x)), weight)).tangent
    torch.testing.assert_close(tangent, weight.sum(dim=1).expand(64, -1), rtol=1e-4, atol=1e-3)
    traced = torch.jit.trace(linear, (x, weight))
    torch.testing.assert_close(traced(2 * x, weight), F.linear(2 * x, weight), rtol=1e-4, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


@pytest.mark.usefixtures("library")
def test_what_does_not_fit_is_refused_as_by_pytorch() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        linear(torch.randn(512, 4608), torch.randn(512, 4607))
    assert linear(torch.randn(2, 512, 512), torch.randn(512, 512)).shape == (2, 512, 512)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_bias", [False, True])
def test_stacked_products_are_those_of_each(count: int, with_bias: bool) -> None:
    x, weight = torch.randn(count, 128, 512), torch.randn(count, 512, 512)
    bias = torch.randn(count, 512) if with_bias else None
    got = stacked_linear(x, weight, bias)
    assert got.shape == (count, 128, 512)
    for s in range(count):
        expected = _exactly(x[s], weight[s], None if bias is None else bias[s])
        torch.testing.assert_close(got[s].double(), expected, rtol=1e-4, atol=1e-3)


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
        ({"cpu_name": "QEMU Virtual CPU version 2.5+", "avx512_f": True}, False),
        ({}, False),
    ],
)
@needs_operator
def test_it_is_faster_on_amds_cpus_of_wide_vectors(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], faster: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert onednn.multiplies_faster.__wrapped__() is faster
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not onednn.multiplies_faster.__wrapped__()


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "out", "kernel", "stride"), [(3, 96, 7, 2), (96, 256, 5, 2), (256, 512, 3, 1)])
@pytest.mark.parametrize("size_hw", [(100, 180), (9, 40), (17, 7), (27, 9)])
def test_packed_filters_convolve_as_others(
    dtype: torch.dtype, channels: int, out: int, kernel: int, stride: int, size_hw: tuple[int, int]
) -> None:
    convolution = nn.Conv2d(channels, out, kernel, stride).requires_grad_(False).to(dtype)
    if not PackedConvolution.fits(convolution):
        pytest.skip("this CPU does not multiply bf16")
    map_ = torch.randn(1, size_hw[0] + 9, size_hw[1] + 5, channels).to(dtype).permute(0, 3, 1, 2)
    x = map_[:, :, 4:-5, 2:-3]
    got = PackedConvolution(convolution)(x)
    assert got.dtype == dtype and got.is_contiguous(memory_format=torch.channels_last)
    assert convolution.bias is not None
    exact = F.conv2d(x.double(), convolution.weight.double(), convolution.bias.double(), stride)
    # Results of size 1 and below: bf16 keeps 8 bits of them.
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance)


@needs_packing
@pytest.mark.parametrize(("channels", "out", "kernel", "stride"), [(3, 96, 7, 2), (96, 256, 5, 2), (256, 512, 3, 1)])
@pytest.mark.parametrize("more", [0, 1])
def test_a_single_column_is_computed_too(channels: int, out: int, kernel: int, stride: int, more: int) -> None:
    convolution = nn.Conv2d(channels, out, kernel, stride).requires_grad_(False).to(torch.bfloat16)
    if not PackedConvolution.fits(convolution):
        pytest.skip("this CPU does not multiply bf16")
    x = torch.randn(1, channels, 31, kernel + min(more, stride - 1)).to(torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    got = PackedConvolution(convolution)(x)
    assert convolution.bias is not None and got.shape[3] == 1
    exact = F.conv2d(x.double(), convolution.weight.double(), convolution.bias.double(), stride)
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=2**-8)


@needs_packing
def test_packed_filters_of_any_geometry() -> None:
    for options in ({"dilation": 40}, {"groups": 4}, {"bias": False}):
        convolution = nn.Conv2d(8, 8, 3, **options).requires_grad_(False)
        x = torch.randn(2, 8, 90, 100)
        torch.testing.assert_close(PackedConvolution(convolution)(x), convolution(x), rtol=1e-5, atol=1e-5)


def test_what_learns_or_is_of_another_type_is_not_packed() -> None:
    assert not PackedConvolution.fits(nn.Conv2d(8, 8, 3).requires_grad_(False).double())
    assert not PackedConvolution.fits(nn.Conv2d(8, 8, 3))


@needs_packing
def test_bf16_is_not_packed_where_the_operator_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not PackedConvolution.fits(nn.Conv2d(8, 8, 3).requires_grad_(False).bfloat16())


@needs_packing
@pytest.mark.parametrize("faster", [False, True])
def test_the_trunk_convolves_in_the_way_that_is_faster(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    monkeypatch.setattr("fdn_triton.backbone.multiplies_faster", lambda: faster)
    ways = [type(way) for way in Backbone(NetworkConfig()).requires_grad_(False).unpadded_convolutions]
    later = PackedConvolution if faster else WinogradConvolution
    assert ways == [PackedConvolution, later, later]


def test_the_trunk_does_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedConvolution, "fits", lambda convolution: False)
    backbone = Backbone(NetworkConfig()).requires_grad_(False)
    x, conv1 = torch.randn(1, 3, 60, 70), backbone.conv1
    expected = F.conv2d(x, conv1.weight, conv1.bias, conv1.stride)
    torch.testing.assert_close(backbone.unpadded_convolutions[0](x), expected, rtol=0, atol=0)


def test_a_trunk_that_was_used_can_be_copied_and_pickled() -> None:
    backbone = Backbone(NetworkConfig()).requires_grad_(False)
    x = torch.randn(1, 3, 60, 70)
    expected = backbone.unpadded_convolutions[0](x)
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        torch.testing.assert_close(other.unpadded_convolutions[0](x), expected, rtol=1e-5, atol=1e-5)


def test_a_tracker_that_was_used_can_be_copied() -> None:
    tracker = Tracker(quick_config(), device="cpu")
    image = np.random.default_rng(0).integers(256, size=(60, 80, 3), dtype=np.uint8)
    tracker.init(image, [20, 20, 24, 20])
    tracker.update(image)
    other = copy.deepcopy(tracker)
    np.testing.assert_allclose(other.update(image).boxes_xywh, tracker.update(image).boxes_xywh, atol=1e-3)


def test_new_weights_reach_a_trunk_that_was_used_as_part_of_another_module() -> None:
    first, second = (Backbone(NetworkConfig()).requires_grad_(False) for _ in range(2))
    x = torch.randn(1, 3, 60, 70)
    before, expected = first.unpadded_convolutions[0](x), second.unpadded_convolutions[0](x)
    assert not torch.allclose(before, expected)
    nn.ModuleList([first]).load_state_dict(nn.ModuleList([second]).state_dict())
    torch.testing.assert_close(first.unpadded_convolutions[0](x), expected, rtol=0, atol=0)
