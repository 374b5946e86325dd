"""The Triton kernel of ReLU, LRN and max-pooling, on a GPU or interpreted, against the reference in float64."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from fdn_triton.kernels import lrn_max_pool, lrn_max_pool_ref
from fdn_triton.kernels.gpu import lrn_pool as gpu

public_module = sys.modules["fdn_triton.kernels.lrn_pool"]
# A window of the map may touch any of its sides: (left, right, top, bottom).
SIDES = [(1, 0, 0, 1), (0, 1, 1, 0), (0, 0, 0, 0), (1, 1, 0, 1)]


@pytest.fixture(autouse=True)
def to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public function takes tensors on a CPU to the kernel too: there it is interpreted."""
    monkeypatch.setattr(public_module, "runs_on_triton", lambda x: x.dtype != torch.float64)


def on_triton(x: Tensor, **options: Any) -> Tensor:
    return lrn_max_pool(x.cuda() if torch.cuda.is_available() else x, **options).cpu()


def random_map(*shape: int, channels_last: bool = True, scale: float = 100.0) -> Tensor:
    """Numbers so large that the normalisation matters: 1e-4 * 5 * 100^2 = 5, against k = 2."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def check(x: Tensor, **options: Any) -> None:
    """Sums are in fp32 and the result is rounded once, also in half types; Triton's interpreter cuts bf16 off."""
    out, expected = on_triton(x, **options), lrn_max_pool_ref(x.double(), **options)
    rounding = {torch.float32: 0, torch.float16: 2**-11, torch.bfloat16: 2**-8 if torch.cuda.is_available() else 2**-7}
    rtol = rounding[x.dtype] + 1e-5
    assert out.dtype == x.dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("channels", [16, 13])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_reference(dtype: torch.dtype, channels_last: bool, channels: int) -> None:
    check(random_map(1, channels, 4, 5, channels_last=channels_last).to(dtype))


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_windows_and_exponents(size: int, beta: float) -> None:
    check(random_map(1, 11, 3, 4), size=size, beta=beta, alpha=2e-3, k=1.5)


@pytest.mark.parametrize("channels", [1, 2, 9, 24])
def test_channels(channels: int) -> None:
    """Windows are cut off at the first and the last channel, and groups of eight at the last."""
    check(random_map(1, channels, 3, 3))


@pytest.mark.parametrize("padding", SIDES)
@pytest.mark.parametrize("map_hw", [(4, 7), (3, 3)])
def test_padding_of_each_side(padding: tuple[int, int, int, int], map_hw: tuple[int, int]) -> None:
    check(random_map(1, 8, *map_hw), padding=padding)


@pytest.mark.parametrize(
    ("pool", "stride", "padding"), [(1, 1, 0), (2, 2, 1), (3, 1, 1), (2, 3, 0), (5, 2, 2), (4, 3, (2, 0, 1, 2))]
)
def test_poolings(pool: int, stride: int, padding: Any) -> None:
    check(random_map(1, 8, 7, 6), pool=pool, stride=stride, padding=padding)


@pytest.mark.parametrize(("config", "stride"), [((1, 2, 32), 2), ((2, 3, 32), 2), ((4, 8, 64), 1), ((2, 2, 64), 3)])
def test_columns_and_rows_of_a_thread(
    monkeypatch: pytest.MonkeyPatch, config: tuple[int, int, int], stride: int
) -> None:
    """Several images, groups, columns and strips; the last ones lie in part outside the result."""
    monkeypatch.setattr(gpu, "_select_config", lambda *sizes: config)
    check(random_map(2, 16, 2 + 3 * stride, 2 + 3 * stride), stride=stride, padding=(1, 0, 0, 1))


def test_memory_layouts(triton_device: torch.device) -> None:
    x = random_map(1, 16, 3, 4).to(triton_device)
    expected = on_triton(x)
    sparse = torch.zeros(1, 32, 3, 8, device=triton_device)
    sparse[:, ::2, :, ::2] = x
    moved = torch.zeros(16 * 12 + 1, device=triton_device)[1:].view(1, 3, 4, 16).permute(0, 3, 1, 2)  # not on 16 bytes
    for same in (sparse[:, ::2, :, ::2], moved.copy_(x), x.expand(2, -1, -1, -1)):
        assert torch.equal(on_triton(same)[:1], expected)
    assert torch.equal(on_triton(x[:, 3:]), on_triton(x[:, 3:].contiguous()))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter's numpy
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_goes_no_further_than_its_windows(value: float) -> None:
    x = random_map(1, 12, 5, 5)
    x[0, 6, 3, 3] = value
    out, expected = on_triton(x), lrn_max_pool_ref(x)
    assert torch.equal(out.isnan(), expected.isnan())
    assert 0 < out.isnan().sum() <= 5 * 2 * 2
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=0, equal_nan=True)


def test_minus_infinity_and_nothing_positive_give_zeros() -> None:
    x = -random_map(1, 9, 4, 4).abs()
    x[0, 3] = -math.inf
    assert torch.equal(on_triton(x), torch.zeros(1, 9, 2, 2))


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_large_activations_in_fp16_do_not_overflow(beta: float) -> None:
    """Squares of 60,000 do not fit into fp16."""
    check(random_map(1, 8, 4, 5, scale=20_000).clamp(max=60_000).half(), beta=beta)


def test_small_activations() -> None:
    """Squares are compared: what comes out above 1e-19 keeps its digits, what is smaller becomes 0."""
    x = torch.tensor([1e-18, 1e-30, 3e-38]).view(1, 1, 1, 3)
    out = on_triton(x, size=1, alpha=0.0, k=1.0, pool=1, stride=1, padding=0).flatten()
    torch.testing.assert_close(out, torch.tensor([1e-18, 0.0, 0.0]), rtol=1e-5, atol=0)


def test_nothing_is_left_unwritten() -> None:
    """PyTorch fills new memory with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        out = on_triton(random_map(1, 13, 5, 5))
    finally:
        torch.use_deterministic_algorithms(False)
    assert out.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 8, 5, 5), (2, 0, 5, 5)])
def test_no_images_and_no_channels(shape: tuple[int, int, int, int]) -> None:
    assert on_triton(torch.zeros(shape)).shape == (*shape[:2], 3, 3)


def test_the_input_stays_and_results_repeat() -> None:
    x = random_map(1, 8, 4, 4)
    before = x.clone()
    assert torch.equal(on_triton(x), on_triton(x))
    assert torch.equal(x, before)


def test_which_calls_go_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """All others give the same values: larger windows, float64, and where a gradient is wanted."""
    launched = []
    own = gpu.lrn_max_pool
    monkeypatch.setattr(gpu, "lrn_max_pool", lambda x, *arguments: launched.append(arguments[1]) or own(x, *arguments))
    x = random_map(1, 10, 3, 3)
    check(x, size=3)
    assert launched == [3]
    check(x, size=7)
    leaf = x.clone().requires_grad_()
    assert on_triton(leaf).requires_grad
    torch.testing.assert_close(on_triton(x.double()), lrn_max_pool_ref(x.double()), rtol=1e-12, atol=0)
    assert launched == [3]
    with torch.no_grad():
        assert not on_triton(leaf).requires_grad
    assert launched == [3, 5]


def test_the_trackers_configurations() -> None:
    """What the docstring of ``_select_config`` says, and one column where channels are loaded one by one."""
    assert gpu._select_config(1, 96, 141, 250, 3, 2, True) == (2, 4, 64)
    assert gpu._select_config(1, 256, 36, 63, 3, 2, True) == (2, 1, 64)
    assert gpu._select_config(1, 96, 141, 250, 3, 2, False)[0] == 1
    assert gpu._select_config(1, 13, 141, 250, 3, 2, True)[0] == 1
    assert gpu._select_config(1, 96, 141, 250, 2, 2, True)[0] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: interpreted kernels cannot be traced")
def test_torch_compile_traces_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    x = random_map(1, 96, 31, 17).cuda()
    compiled = torch.compile(lrn_max_pool, fullgraph=True)
    assert torch.equal(compiled(x), lrn_max_pool(x))
