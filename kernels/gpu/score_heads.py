"""Fully-connected layers of T heads as tiled matrix products on tensor cores: the GPU's :mod:`..score_heads`.

One launch per layer, the last two layers in one: 4608-512-512-2 takes two launches, 512-2 one. One program computes a
tile of ``BLOCK_M`` candidates by ``BLOCK_N`` outputs of one head, adds the bias and applies ReLU. Tiles of one head are
neighbours in the grid, so that they find each other's rows in the L2 cache. Two things cross from program to program:

* A few heads have too few tiles to fill a GPU. Then ``SPLITS`` programs divide the inputs of a tile among them and each
  writes its partial sums in fp32; the next launch adds them and the bias, and applies ReLU, where it reads them.
* The two columns of the last layer are products with the tile of the layer before, while that is in registers. Each
  program writes its share of the scores and takes a ticket for every candidate: whoever holds a candidate's last
  ticket adds the shares, in the order of the tiles. An earlier launch has set the tickets to zero.

Sums are in fp32; hidden activations that pass through memory are rounded to the features' dtype. Deterministic: every
sum has its order. Features and weights may have any strides. Limit: 2^31 programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on_device_of


class _Config(NamedTuple):
    block_m: int
    block_n: int
    block_k: int
    splits: int
    num_warps: int
    num_stages: int


# BLOCK_M, BLOCK_N, warps, and the share of the peak arithmetic rate that products of this tile get.
_TENSOR_CORE_TILES = ((128, 256, 8, 0.7), (128, 128, 8, 0.7), (64, 128, 4, 0.7), (32, 64, 4, 0.7), (16, 128, 4, 0.7))
_HOPPER_TILES_IN_PARTS = ((128, 64, 4, 0.47), (64, 64, 4, 0.42))
_FMA_TILES = ((128, 64, 4, 0.33), (32, 32, 2, 0.22))
_ALONE = 0.75  # of its share gets a program in parts that has a multiprocessor to itself
_MIN_BLOCK = 16  # of tl.dot
_MIN_SPLIT = 512  # inputs: with fewer, a program ends before its loads are well under way
_X_TILE_BYTES = 16 << 10  # of one stage: more partial sums than that do not fit AMD's registers
_IN_FLIGHT_BYTES = 96 << 10  # of stages being loaded: what consumer GPUs have
# An H100: multiprocessors; FLOP/s of one; bytes a second from the L2 cache to one and to all.
_MULTIPROCESSORS = 132
_FP16_PEAK, _TF32_PEAK, _FP32_PEAK = 7.5e12, 3.7e12, 0.5e12
_MULTIPROCESSOR_RATE, _L2_RATE = 0.1e12, 6e12


@lru_cache(maxsize=1024)
def _select_config(
    n_heads: int,
    n_rows: int,
    n_in: int,
    n_out: int,
    dtype: torch.dtype,
    precision: str = "ieee",
    in_splits: int = 1,
    may_split: bool = True,
    on_hopper: bool = False,
) -> _Config:
    """The tile and the splits that take least time, as counted for an H100.

    A program reads (BLOCK_M + BLOCK_N) x in / splits elements, nearly all of them from the L2 cache. A launch takes as
    long as the slowest of three: the reads of one multiprocessor, the reads of all, the products of one multiprocessor.
    Partial sums count eight times: they are written, read by every tile of the next layer's outputs, and added up. For
    4608-512-512-2 with K = 256 in fp16 that gives::

        T   layers   tile     splits  programs  MB read  microseconds
        1   fc4      64x128   4       64        28       5 for L2 (products 4), 3 for the 2 MB of partial sums
        1   fc5+fc6  16x128   1       64        17       3 for L2; 13 of the 17 MB are partial sums
        16  fc4      128x128  1       128       302      50 for L2 (products 29)
        16  fc5+fc6  128x128  1       128       34       6 for L2
        64  fc4      128x256  1       256       906      151 for L2 (products 115; 453 MB from DRAM 135)
        64  fc5+fc6  128x256  1       256       101      17 for L2

    None of it was measured; it ranks tiles. BLOCK_K is a cache line, 128 bytes. With 96 KB in flight the latency of the
    L2 cache is hidden from one multiprocessor. 128x256 would spill registers in TF32. AMD's products of fp32 have no
    parts and no tensor cores here, and bank conflicts of operands in shared memory leave a third of the peak or less.

    Products in parts by Hopper's instructions have tiles of their own, the fastest of 158 on an H200 (T of 1, 8 and 64,
    K = 256), and the share that was measured. There, and not on others, a cache line of them fits the registers.

    Args:
        in_splits: into so many partial sums the inputs are split.
        may_split: the outputs may be handed over as partial sums.
        on_hopper: whether that is where it runs.
    """
    exact = dtype == torch.float32 and precision == "ieee"
    in_parts = precision == "tf32x3"
    peak = _FP32_PEAK if exact else _TF32_PEAK if dtype == torch.float32 else _FP16_PEAK
    peak = peak / 3 if in_parts else peak
    size = dtype.itemsize
    x_size = size if in_splits == 1 else 4 * in_splits
    in_parts_of_lines = in_parts and on_hopper and in_splits == 1  # partial sums of several fill the registers
    block_k = 16 if exact or (in_parts and not in_parts_of_lines) else 128 // size
    best, least = None, float("inf")
    tiles = _FMA_TILES if exact else _HOPPER_TILES_IN_PARTS if in_parts_of_lines else _TENSOR_CORE_TILES
    for block_m, block_n, num_warps, share in tiles:
        block_n = max(_MIN_BLOCK, min(block_n, triton.next_power_of_2(n_out)))
        if block_k * block_m * x_size > _X_TILE_BYTES or (block_n == 256 and size != 2):
            continue
        for splits in (1, 2, 4, 8) if exact else (1, 2, 4):
            if splits > 1 and (not may_split or n_in < splits * _MIN_SPLIT):
                break
            programs = n_heads * triton.cdiv(n_rows, block_m) * triton.cdiv(n_out, block_n) * splits
            rate = share * peak * (_ALONE if in_parts_of_lines and programs <= _MULTIPROCESSORS else 1.0)
            waves = triton.cdiv(programs, _MULTIPROCESSORS)
            read = (block_m * x_size + block_n * size) * n_in / splits
            products = 2 * block_m * block_n * n_in / splits
            partial_sums = 4 * splits * n_heads * n_rows * n_out if splits > 1 else 0
            seconds = max(waves * read / _MULTIPROCESSOR_RATE, programs * read / _L2_RATE, waves * products / rate)
            seconds += 8 * partial_sums / _L2_RATE
            if seconds < least:
                stage = block_k * (block_m * x_size + block_n * size)
                num_stages = max(2, min(4 if in_parts_of_lines else 5, 1 + _IN_FLIGHT_BYTES // stage))
                best, least = _Config(block_m, block_n, block_k, splits, num_warps, num_stages), seconds
    assert best is not None
    return best


@triton.jit(do_not_specialize=["n_heads", "n_rows"])
def _layer_fwd_kernel(
    x_ptr,  # [IN_SPLITS, T, K, in]
    bias_in_ptr,  # [T, in]
    weight_ptr,  # [T, out, in]
    bias_ptr,  # [T, out]
    last_weight_ptr,  # [T, 2, out]
    last_bias_ptr,  # [T, 2]
    out_ptr,  # [SPLITS, T, K, out], or the scores [T, K, 2]
    shares_ptr,  # [N_TILES, T, K, 2]
    tickets_ptr,  # [T, K]
    n_heads,
    n_rows,
    n_in,
    n_out,
    stride_xs,
    stride_xt,
    stride_xm,
    stride_xk,
    stride_wt,
    stride_wn,
    stride_wk,
    IN_SPLITS: tl.constexpr,
    SPLITS: tl.constexpr,
    N_TILES: tl.constexpr,
    HIDDEN: tl.constexpr,
    K_BLOCKS: tl.constexpr,
    EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    pid, split = tl.program_id(0), tl.program_id(1)
    m_tiles = tl.cdiv(n_rows, BLOCK_M)
    tile_n = pid % N_TILES
    tile_m = pid // N_TILES % m_tiles
    head = (pid // N_TILES // m_tiles).to(tl.int64)
    offs_m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)  # [M]
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)  # [N]
    offs_k = split * K_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)  # [K]
    mask_m = offs_m < n_rows
    mask_n = offs_n < n_out

    # A row outside is read as the last one and not written: the loop needs no mask for it.
    row_m = tl.minimum(offs_m, n_rows - 1).to(tl.int64)
    row_n = tl.minimum(offs_n, n_out - 1).to(tl.int64)
    col_k = offs_k.to(tl.int64)
    x_ptrs = x_ptr + head * stride_xt + row_m[:, None] * stride_xm + col_k[None, :] * stride_xk  # [M, K]
    weight_ptrs = weight_ptr + head * stride_wt + row_n[None, :] * stride_wn + col_k[:, None] * stride_wk  # [K, N]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in range(K_BLOCKS):
        mask_k = tl.full((BLOCK_K,), True, tl.int1) if EVEN_K else offs_k < n_in
        x = tl.load(x_ptrs, mask=mask_k[None, :], other=0.0)
        weight = tl.load(weight_ptrs, mask=mask_k[:, None], other=0.0)
        if IN_SPLITS > 1:
            for s in tl.static_range(1, IN_SPLITS):
                x += tl.load(x_ptrs + s * stride_xs, mask=mask_k[None, :], other=0.0)
            x += tl.load(bias_in_ptr + head * n_in + offs_k, mask=mask_k, other=0.0).to(tl.float32)[None, :]
            x = _relu(x).to(weight.dtype)
        sums = tl.dot(x, weight, sums, input_precision=PRECISION)
        offs_k += BLOCK_K
        x_ptrs += BLOCK_K * stride_xk
        weight_ptrs += BLOCK_K * stride_wk

    row, n_all_rows = head * n_rows + offs_m, tl.cast(n_heads, tl.int64) * n_rows  # [M], 1
    if HIDDEN:
        tl.store(tickets_ptr + row, 0, mask=mask_m & (tile_n == 0) & (split == 0))
    out_ptrs = out_ptr + row[:, None] * n_out + offs_n[None, :]  # [M, N]
    mask = mask_m[:, None] & mask_n[None, :]
    if SPLITS > 1:
        tl.store(out_ptrs + split * n_all_rows * n_out, sums, mask=mask)
    else:
        sums += tl.load(bias_ptr + head * n_out + offs_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
        if last_weight_ptr is None:
            sums = _relu(sums) if HIDDEN else sums
            tl.store(out_ptrs, sums.to(out_ptr.dtype.element_ty), mask=mask)
        else:
            hidden = tl.where(mask_n[None, :], _relu(sums), 0.0)
            for column in range(2):
                last_weight_ptrs = last_weight_ptr + (head * 2 + column) * n_out + offs_n  # [N]
                last_weight = tl.load(last_weight_ptrs, mask=mask_n, other=0.0).to(tl.float32)
                share = tl.sum(hidden * last_weight[None, :], axis=1)  # [M]
                tl.store(shares_ptr + (tile_n * n_all_rows + row) * 2 + column, share, mask=mask_m)
            tl.debug_barrier()  # the program's stores come before its tickets
            ticket = tl.atomic_add(tickets_ptr + row, 1, mask=mask_m, sem="acq_rel")  # [M]
            complete = mask_m & (ticket == N_TILES - 1)
            for column in range(2):
                score = tl.zeros((BLOCK_M,), tl.float32)
                for tile in range(N_TILES):
                    share_ptrs = shares_ptr + (tile * n_all_rows + row) * 2 + column
                    score += tl.load(share_ptrs, mask=complete, other=0.0, cache_modifier=".cg")
                score += tl.load(last_bias_ptr + head * 2 + column).to(tl.float32)
                tl.store(out_ptr + row * 2 + column, score.to(out_ptr.dtype.element_ty), mask=complete)


@triton.jit
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


def score_heads(
    features: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    both_columns: bool = False,
    allow_tf32: bool = False,
) -> Tensor:
    """Target scores, before softmax: arguments and result as of the public function, which has checked them."""
    n_heads, n_rows = len(weights[0]), features.shape[-2]
    scores = features.new_empty((n_heads, n_rows, 2))
    if scores.numel():
        with on_device_of(features):
            precision = "ieee"
            if features.dtype == torch.float32 and (allow_tf32 or _multiplies_tf32()):
                precision = "tf32" if allow_tf32 else "tf32x3"
            _launch_layers(features.expand(1, n_heads, -1, -1), weights, biases, scores, precision)
    return scores if both_columns else scores[..., 1]


def _launch_layers(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], scores: Tensor, precision: str
) -> None:
    """Write the scores; ``x`` is [1, T, K, D]."""
    if len(weights) == 1:
        _layer_fwd(x, None, weights[0], biases[0], precision, scores)
        return
    tickets = scores.new_empty(scores.shape[:2], dtype=torch.int32)
    if len(weights) == 2:
        tickets.zero_()  # no earlier launch does it
    bias_in = None
    for weight, bias in zip(weights[:-2], biases[:-2], strict=True):
        x = _layer_fwd(x, bias_in, weight, bias, precision, tickets=tickets)
        bias_in = bias
    _layer_fwd(x, bias_in, weights[-2], biases[-2], precision, scores, tickets, (weights[-1], biases[-1]))


def _layer_fwd(
    x: Tensor,
    bias_in: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    precision: str,
    scores: Tensor | None = None,
    tickets: Tensor | None = None,
    last: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """One launch: a hidden layer or, where scores are to be written, the last layer and any one before it.

    Args:
        x: [splits, T, K, in]: activations or, of several splits, partial sums in fp32.
        bias_in: [T, in], to be added to partial sums.
        weight: [T, out, in].
        bias: [T, out].
        precision: of fp32 products, "ieee", "tf32x3" (in parts) or "tf32".
        scores: [T, K, 2], written.
        tickets: [T, K] int32; a hidden layer sets them to zero.
        last: the last layer's weight [T, 2, out] and bias [T, 2], unless ``weight`` is the last layer's.

    Returns:
        The scores, or the next launch's ``x``.
    """
    in_splits, n_heads, n_rows, n_in = x.shape
    n_out, hidden = weight.shape[1], scores is None
    on_hopper = _target() == ("cuda", 90)
    config = _select_config(
        n_heads, n_rows, n_in, n_out, weight.dtype, precision, in_splits, may_split=hidden, on_hopper=on_hopper
    )
    n_tiles = triton.cdiv(n_out, config.block_n)
    if scores is None:
        dtype = torch.float32 if config.splits > 1 else weight.dtype
        out = x.new_empty((config.splits, n_heads, n_rows, n_out), dtype=dtype)
    else:
        out = scores
    shares = last_weight = last_bias = None
    if last is not None:
        shares = x.new_empty((n_tiles, n_heads, n_rows, 2), dtype=torch.float32)
        last_weight, last_bias = last[0].contiguous(), last[1].contiguous()
    _layer_fwd_kernel[(n_heads * triton.cdiv(n_rows, config.block_m) * n_tiles, config.splits)](
        x,
        None if bias_in is None else bias_in.contiguous(),
        weight,
        bias.contiguous(),
        last_weight,
        last_bias,
        out,
        shares,
        tickets,
        n_heads,
        n_rows,
        n_in,
        n_out,
        *x.stride(),
        *weight.stride(),
        IN_SPLITS=in_splits,
        SPLITS=config.splits,
        N_TILES=n_tiles,
        HIDDEN=hidden,
        K_BLOCKS=triton.cdiv(n_in, config.splits * config.block_k),
        EVEN_K=n_in % (config.splits * config.block_k) == 0,
        PRECISION=precision,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        num_warps=config.num_warps,
        num_stages=2 if _compiles_for_amd() else config.num_stages,
    )
    return out


def _compiles_for_amd() -> bool:
    """Whether shared memory is AMD's 64 KB, which hold one stage beside the one that waits in registers."""
    return _target()[0] == "hip"


def _multiplies_tf32() -> bool:
    """Whether tensor cores multiply TF32: NVIDIA's, from sm_80 on. What is interpreted counts as such."""
    backend, arch = _target()
    return backend == "interpreted" or (backend == "cuda" and int(arch) >= 80)


def _target() -> tuple[str, int | str]:
    """What kernels are compiled for."""
    try:
        target = triton.runtime.driver.active.get_current_target()
    except RuntimeError:  # interpreted, without a GPU
        return "interpreted", 0
    return target.backend, target.arch
