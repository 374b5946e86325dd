"""Scores of K candidates under T heads of fully-connected layers.

::

    h_0 = features;  h_i = relu(h_{i-1} W_i^T + b_i);  score = column 1 of  h_{L-1} W_L^T + b_L

Source: paper section 3.2 (fc4, fc5, fc6 of the domain-specific branch), inference only: no dropout. Column 0 is the
background, column 1 the target. Deterministic. On a GPU :mod:`.gpu.score_heads` computes it, in fp32, fp16 and bf16;
everywhere else plain matrix products do, on a CPU :mod:`.onednn`'s. NVIDIA's tensor cores multiply fp32 in three
products of two TF32 parts, 21 bits of mantissa of 23, in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .dispatch import runs_on_triton
from .onednn import stacked_linear


def score_heads(
    features: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    both_columns: bool = False,
    allow_tf32: bool = False,
) -> Tensor:
    """Target scores, before softmax.

    Args:
        features: [T, K, D], or [K, D] shared by all heads; a floating type.
        weights: per layer [T, out, in]; the first ``in`` is D, the last ``out`` is 2.
        biases: per layer [T, out].
        both_columns: return the background score too.
        allow_tf32: let a GPU round fp32 numbers to TF32, 10 bits of mantissa, before it multiplies them, for its tensor
            cores take no more. That is for ranking candidates, as in hard negative mining. It changes nothing for other
            types and on a CPU.

    Returns:
        [T, K] target scores, or [T, K, 2] (background, target), of the features' dtype; empty where T or K is 0. No
        gradients.

    Raises:
        ValueError: shapes that do not fit together, or features, weights and biases of several dtypes or devices.
    """
    _check(features, weights, biases)
    if runs_on_triton(features):
        from .gpu.score_heads import score_heads as on_gpu

        return on_gpu(features, weights, biases, both_columns, allow_tf32)
    with torch.no_grad():
        hidden = features if features.dim() == 3 else features.expand(len(weights[0]), -1, -1)
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = stacked_linear(hidden, weight, bias)
            if i + 1 < len(weights):
                hidden = hidden.relu_()
        return hidden if both_columns else hidden[..., 1]


def score_heads_ref(
    features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], both_columns: bool = False
) -> Tensor:
    """The same function, one head and one layer after the other, differentiable: the oracle of the tests."""
    _check(features, weights, biases)
    scores = []
    for t in range(len(weights[0])):
        hidden = features[t] if features.dim() == 3 else features
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = hidden @ weight[t].T + bias[t]
            if i + 1 < len(weights):
                hidden = hidden.clamp(min=0)
        scores.append(hidden)
    out = torch.stack(scores)
    return out if both_columns else out[..., 1]


def _check(features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    if features.dim() not in (2, 3):
        raise ValueError(f"features must be [T, K, D] or [K, D], got {tuple(features.shape)}")
    if not weights or len(weights) != len(biases):
        raise ValueError(f"one bias per weight is needed, got {len(weights)} weights and {len(biases)} biases")
    dtypes = {tensor.dtype for tensor in (features, *weights, *biases)}
    if len(dtypes) > 1:
        raise ValueError(f"features, weights and biases must have one dtype, got {sorted(map(str, dtypes))}")
    devices = {tensor.device for tensor in (features, *weights, *biases)}
    if len(devices) > 1:
        raise ValueError(f"features, weights and biases must be on one device, got {sorted(map(str, devices))}")
    n_heads, width = len(weights[0]), features.shape[-1]
    if features.dim() == 3 and len(features) != n_heads:
        raise ValueError(f"features are for {len(features)} heads, weights for {n_heads}")
    for weight, bias in zip(weights, biases, strict=True):
        if weight.dim() != 3 or weight.shape[0] != n_heads or weight.shape[1] == 0 or weight.shape[2] != width:
            raise ValueError(f"a weight must be [{n_heads}, out, {width}] here, got {tuple(weight.shape)}")
        if bias.shape != weight.shape[:2]:
            raise ValueError(f"a bias must be {tuple(weight.shape[:2])} here, got {tuple(bias.shape)}")
        width = weight.shape[1]
    if width != 2:
        raise ValueError(f"the last layer must have 2 outputs, got {width}")
