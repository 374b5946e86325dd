"""Scores of K candidates under T heads of fully-connected layers.

::

    h_0 = features;  h_i = relu(h_{i-1} W_i^T + b_i);  score = column 1 of  h_{L-1} W_L^T + b_L

Source: paper section 3.2 (fc4, fc5, fc6 of the domain-specific branch), inference only: no dropout. Column 0 is the
background, column 1 the target. Deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def score_heads(
    features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], both_columns: bool = False
) -> Tensor:
    """Target scores, before softmax.

    Args:
        features: [T, K, D], or [K, D] shared by all heads; a floating type.
        weights: per layer [T, out, in]; the first ``in`` is D, the last ``out`` is 2.
        biases: per layer [T, out].
        both_columns: return the background score too.

    Returns:
        [T, K] target scores, or [T, K, 2] (background, target), of the features' dtype. No gradients.

    Raises:
        ValueError: shapes that do not fit together.
    """
    _check(features, weights, biases)
    with torch.no_grad():
        hidden = features if features.dim() == 3 else features.expand(len(weights[0]), -1, -1)
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if len(weight) == 1:  # one plain matrix product is faster than a batch of one
                hidden = F.linear(hidden[0], weight[0], bias[0])[None]
            else:
                hidden = torch.baddbmm(bias[:, None], hidden, weight.transpose(1, 2))
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
    n_heads, width = len(weights[0]), features.shape[-1]
    if features.dim() == 3 and len(features) != n_heads:
        raise ValueError(f"features are for {len(features)} heads, weights for {n_heads}")
    for weight, bias in zip(weights, biases, strict=True):
        if weight.dim() != 3 or weight.shape[0] != n_heads or weight.shape[2] != width:
            raise ValueError(f"a weight must be [{n_heads}, out, {width}] here, got {tuple(weight.shape)}")
        if bias.shape != weight.shape[:2]:
            raise ValueError(f"a bias must be {tuple(weight.shape[:2])} here, got {tuple(bias.shape)}")
        width = weight.shape[1]
    if width != 2:
        raise ValueError(f"the last layer must have 2 outputs, got {width}")
