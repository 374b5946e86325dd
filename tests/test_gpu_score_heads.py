"""The Triton kernel of the heads' scores, on a GPU or interpreted, against the reference in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from fdn_triton.kernels import score_heads, score_heads_ref
from fdn_triton.kernels.gpu import score_heads as gpu

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="looks into Triton's interpreter")
HALF_TYPES = (torch.float16, torch.bfloat16)
TILES = (
    *((*tile, 32) for tile in (*gpu._TENSOR_CORE_TILES, *gpu._HOPPER_TILES_IN_PARTS)),
    *((*tile, 16) for tile in gpu._FMA_TILES),
)


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter multiplies the bits of bf16 numbers as integers: hand it the numbers in fp32."""
    dot = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *arguments: Any) -> Any:
        return dot(self, _readable(a), _readable(b), *arguments)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def _readable(handle: Any) -> Any:
    if handle.data.dtype != np.uint16:
        return handle
    return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


class Case:
    """Features and heads, activations staying near 1."""

    def __init__(
        self, n_heads: int, count: int, sizes: tuple[int, ...], dtype: torch.dtype = torch.float32, shared: bool = False
    ) -> None:
        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        generator = torch.Generator().manual_seed(0)
        pairs = list(pairwise(sizes))
        self.features = randn(*(() if shared else (n_heads,)), count, sizes[0]).to(dtype)
        self.weights = [(randn(n_heads, out, into) / into**0.5).to(dtype) for into, out in pairs]
        self.biases = [randn(n_heads, out).to(dtype) for _, out in pairs]

    def scores(self, both_columns: bool = True, **options: Any) -> Tensor:
        """Of the kernel itself: the public function would take CPU tensors elsewhere."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        features, weights, biases = self._with(lambda tensor: tensor.to(device))
        return gpu.score_heads(features, weights, biases, both_columns, **options).cpu()

    def expected(self) -> Tensor:
        return score_heads_ref(*self._with(Tensor.double), both_columns=True)

    def check(self) -> None:
        """fp32: scores near 0 are differences of numbers near 1, absolute errors of some 1e-7 there."""
        out, expected = self.scores(), self.expected()
        assert out.dtype == self.features.dtype
        if out.dtype == torch.float32:
            torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=5e-6)
        else:
            eager = score_heads_ref(self.features, self.weights, self.biases, both_columns=True)
            assert (out.double() - expected).abs().max() <= 2 * (eager.double() - expected).abs().max()

    def _with(self, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        return change(self.features), [change(w) for w in self.weights], [change(b) for b in self.biases]


def with_config(monkeypatch: pytest.MonkeyPatch, config: gpu._Config) -> None:
    """All layers are computed so, hidden ones in splits."""

    def select(*arguments: Any, may_split: bool, **target: Any) -> gpu._Config:
        return config if may_split else config._replace(splits=1)

    monkeypatch.setattr(gpu, "_select_config", select)


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("sizes", [(37, 2), (37, 19, 2), (70, 19, 23, 2)])
@pytest.mark.parametrize("count", [1, 37, 130])
@pytest.mark.parametrize("shared", [False, True])
def test_equals_the_reference(n_heads: int, sizes: tuple[int, ...], count: int, shared: bool) -> None:
    case = Case(n_heads, count, sizes, shared=shared)
    case.check()
    assert torch.equal(case.scores(both_columns=False), case.scores()[..., 1])


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("sizes", [(300, 2), (300, 65, 2), (300, 65, 130, 2)])
def test_half_types(dtype: torch.dtype, n_heads: int, sizes: tuple[int, ...]) -> None:
    Case(n_heads, 53, sizes, dtype).check()


@pytest.mark.parametrize(("splits", "dtype"), [(1, torch.float16), (2, torch.float32), (8, torch.float16)])
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, ...], splits: int, dtype: torch.dtype) -> None:
    """Several tiles of candidates and outputs, full and not; with 8 splits some have no inputs left."""
    block_m, block_n, num_warps, _, block_k = tile
    # Partial sums of 8 splits are wide: two stages of them and the weights do not fit a GPU's shared memory.
    stages = 3 if splits * block_m * block_k * 4 < 64 << 10 else 1
    with_config(monkeypatch, gpu._Config(block_m, block_n, block_k, splits, num_warps, stages))
    Case(2, block_m + 5, (4 * block_k, block_n + 7, 2 * block_n, 2), dtype).check()


def test_splits_of_every_layer_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    with_config(monkeypatch, gpu._Config(16, 32, 16, 4, 4, 3))
    Case(2, 37, (100, 70, 65, 33, 2)).check()
    Case(2, 37, (100, 70, 65, 33, 2), torch.bfloat16).check()


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_the_trackers_sizes(dtype: torch.dtype) -> None:
    """4608 inputs in splits, as one target's are."""
    case = Case(1, 37, (4608, 512, 512, 2), dtype)
    assert gpu._select_config(1, 37, 4608, 512, dtype).splits > 1
    case.check()


def test_no_candidates_and_no_heads() -> None:
    for shared in (False, True):
        assert Case(3, 0, (37, 19, 2), shared=shared).scores().shape == (3, 0, 2)
        assert Case(0, 5, (37, 19, 2), shared=shared).scores(both_columns=False).shape == (0, 5)


def test_memory_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_config(monkeypatch, gpu._Config(16, 32, 16, 2, 4, 3))
    plain = Case(3, 37, (40, 19, 23, 2), torch.float16)
    strided = Case(3, 37, (40, 19, 23, 2), torch.float16)
    strided.features = torch.zeros(37, 3, 80, dtype=torch.float16).transpose(0, 1)[..., ::2].copy_(plain.features)
    strided.weights = [weight.transpose(1, 2).contiguous().transpose(1, 2) for weight in plain.weights]
    strided.biases = [bias.T.contiguous().T for bias in plain.biases]
    assert torch.equal(strided.scores(), plain.scores())
    one_head_for_all = Case(3, 37, (40, 19, 23, 2), torch.float16)
    one_head_for_all.weights = [weight[:1].expand(3, -1, -1) for weight in plain.weights]
    one_head_for_all.biases = [bias[:1].expand(3, -1) for bias in plain.biases]
    one_head_for_all.check()


@pytest.mark.parametrize("splits", [1, 4])
def test_large_values(monkeypatch: pytest.MonkeyPatch, splits: int) -> None:
    with_config(monkeypatch, gpu._Config(16, 32, 16, splits, 4, 3))
    case = Case(2, 20, (64, 40, 40, 2))
    case.features *= 1e30
    torch.testing.assert_close(case.scores().double(), case.expected(), rtol=1e-5, atol=1e25)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter's numpy
@pytest.mark.parametrize("splits", [1, 4])
def test_what_is_not_finite_stays_in_its_row(monkeypatch: pytest.MonkeyPatch, splits: int) -> None:
    with_config(monkeypatch, gpu._Config(16, 32, 16, splits, 4, 3))
    case = Case(2, 20, (64, 40, 40, 2))
    before = case.scores()
    case.features[0, 3, 5] = torch.nan
    case.features[1, 19] = torch.inf  # the last row: what is read outside is this one
    after = case.scores()
    assert after[0, 3].isnan().all() and not after[1, 19].isfinite().any()
    before[0, 3] = before[1, 19] = after[0, 3] = after[1, 19] = 0
    assert torch.equal(before, after)


def test_infinite_hidden_values_meet_no_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns outside the layer are none, not zeros: an infinite score is no NaN."""
    with_config(monkeypatch, gpu._Config(16, 32, 16, 1, 4, 3))
    case = Case(1, 3, (16, 5, 2))
    case.features[:] = 1
    case.weights[0][:], case.weights[0][0, 4] = 0, torch.inf
    case.weights[1][:] = 1
    assert case.scores().eq(torch.inf).all()


def test_repeats_bit_for_bit_and_leaves_the_inputs_alone() -> None:
    case = Case(1, 37, (1200, 70, 65, 2))
    before = [tensor.clone() for tensor in (case.features, *case.weights, *case.biases)]
    first = case.scores()
    assert gpu._select_config(1, 37, 1200, 70, torch.float32, "tf32x3").splits > 1
    assert torch.equal(case.scores(), first)
    assert all(map(torch.equal, before, (case.features, *case.weights, *case.biases)))


@interpreted
@pytest.mark.parametrize("sizes", [(64, 70, 65, 2), (64, 37, 2)])
def test_programs_may_finish_in_any_order(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    with_config(monkeypatch, gpu._Config(16, 16, 16, 2, 4, 3))
    case = Case(2, 37, sizes)
    forward = case.scores()
    set_grid_idx = InterpreterBuilder.set_grid_idx

    def backward(self: Any, *index: int) -> None:
        set_grid_idx(self, *(dim - 1 - i for dim, i in zip(self.grid_dim, index, strict=True)))

    monkeypatch.setattr(InterpreterBuilder, "set_grid_idx", backward)
    assert torch.equal(case.scores(), forward)


@pytest.mark.parametrize("sizes", [(37, 2), (37, 19, 2), (1200, 70, 65, 2)])
def test_nothing_is_left_unwritten(sizes: tuple[int, ...]) -> None:
    """PyTorch fills new memory with NaN and the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        out = Case(2, 37, sizes).scores()
    finally:
        torch.use_deterministic_algorithms(False)
    assert out.isfinite().all()


def test_no_gradient_is_kept() -> None:
    case = Case(2, 5, (37, 19, 2))
    case.weights[0].requires_grad_()
    case.features.requires_grad_()
    assert not case.scores().requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES])
def test_tf32_is_close(dtype: torch.dtype) -> None:
    """10 bits of mantissa; interpreted products are exact."""
    case = Case(2, 53, (300, 65, 2), dtype)
    torch.testing.assert_close(case.scores(allow_tf32=True).float(), case.scores().float(), rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("target", "precision"),
    [(("cuda", 75), "ieee"), (("cuda", 80), "tf32x3"), (("hip", "gfx942"), "ieee"), (("xpu", "pvc"), "ieee")],
)
def test_fp32_is_multiplied_in_parts_where_tensor_cores_are(
    monkeypatch: pytest.MonkeyPatch, target: tuple[str, Any], precision: str
) -> None:
    launched = []
    monkeypatch.setattr(gpu, "_target", lambda: target)
    monkeypatch.setattr(gpu, "_launch_layers", lambda *arguments: launched.append(arguments[-1]))
    for dtype, allowed in ((torch.float32, False), (torch.float32, True), (torch.float16, False)):
        Case(1, 5, (37, 2), dtype).scores(allow_tf32=allowed)
    assert launched == [precision, "tf32", "ieee"]


@pytest.mark.parametrize(
    ("n_heads", "fc4", "last"),
    [
        (1, (64, 128, 64, 4, 4, 5), (16, 128, 64, 1, 4, 4)),
        (16, (128, 128, 64, 1, 8, 4), (128, 128, 64, 1, 8, 4)),
        (64, (128, 256, 64, 1, 8, 3), (128, 256, 64, 1, 8, 3)),
    ],
)
@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_tiles_of_the_tracker(n_heads: int, fc4: tuple[int, ...], last: tuple[int, ...], dtype: torch.dtype) -> None:
    """What the docstring of ``_select_config`` says."""
    first = gpu._select_config(n_heads, 256, 4608, 512, dtype)
    assert first == fc4
    assert gpu._select_config(n_heads, 256, 512, 512, dtype, "ieee", first.splits, may_split=False) == last


@pytest.mark.parametrize(
    ("n_heads", "tile", "splits"), [(1, (64, 64, 32), 4), (8, (128, 64, 32), 2), (64, (128, 64, 32), 1)]
)
def test_products_in_parts_have_their_own_tiles_on_hopper(n_heads: int, tile: tuple[int, ...], splits: int) -> None:
    """The fastest that were found, and nowhere else."""
    config = gpu._select_config(n_heads, 256, 4608, 512, torch.float32, "tf32x3", on_hopper=True)
    assert (config[:3], config.splits) == (tile, splits)
    assert (config.num_stages - 1) * config.block_k * (config.block_m + config.block_n) * 4 <= 96 << 10
    for dtype, precision in ((torch.float32, "ieee"), (torch.float32, "tf32"), (torch.float16, "ieee")):
        elsewhere = gpu._select_config(n_heads, 256, 4608, 512, dtype, precision)
        assert gpu._select_config(n_heads, 256, 4608, 512, dtype, precision, on_hopper=True) == elsewhere


def test_what_any_selection_keeps_to() -> None:
    chosen = set()
    fp32 = [(torch.float32, precision) for precision in ("ieee", "tf32x3", "tf32")]
    for dtype, precision in (*fp32, (torch.float16, "ieee")):
        for n_heads in (1, 2, 4, 8, 16, 64):
            for count in (1, 64, 256, 1024):
                for n_in, n_out in ((4608, 512), (512, 512), (37, 19), (4608, 2)):
                    for in_splits in (1, 2, 4, 8) if precision == "ieee" and dtype == torch.float32 else (1, 2, 4):
                        for may_split in (True, False):
                            config = gpu._select_config(
                                n_heads, count, n_in, n_out, dtype, precision, in_splits, may_split
                            )
                            chosen.add((config.block_m, config.num_warps))
                            x_size = dtype.itemsize if in_splits == 1 else 4 * in_splits
                            stage = config.block_k * (config.block_m * x_size + config.block_n * dtype.itemsize)
                            assert stage <= 64 << 10, "AMD"
                            assert (config.num_stages - 1) * stage <= 96 << 10, "consumer GPUs"
                            assert config.splits == 1 or (may_split and n_in / config.splits >= 512)
                            assert min(config[:3]) >= 16
    assert chosen == {(tile[0], tile[2]) for tile in (*gpu._TENSOR_CORE_TILES, *gpu._FMA_TILES)}


def test_the_public_function_launches_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where :func:`runs_on_triton` says so."""
    case = Case(2, 5, (37, 19, 2))
    calls = []

    def on_gpu(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return gpu_function(*arguments)

    gpu_function = gpu.score_heads
    monkeypatch.setattr(gpu, "score_heads", on_gpu)
    monkeypatch.setattr(sys.modules["fdn_triton.kernels.score_heads"], "runs_on_triton", lambda tensor: True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features, weights, biases = case._with(lambda tensor: tensor.to(device))
    out = score_heads(features, weights, biases, allow_tf32=True)
    assert [call[3:] for call in calls] == [(False, True)]
    torch.testing.assert_close(out.cpu().double(), case.expected()[..., 1], rtol=1e-3, atol=5e-3)
