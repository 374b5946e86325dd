"""The fully-connected heads: T targets stacked, and their scores (paper 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .backbone import ROI_FEATURES
from .config import NetworkConfig
from .device import upload
from .kernels import score_heads
from .kernels.onednn import stacked_linear

HIDDEN = 512
BACKGROUND, TARGET = 0, 1  # columns of the last layer


class Heads:
    """fc4, fc5 and fc6 of T targets (fc4 and fc6 in the two-layer variant), stacked along the first axis.

    Attributes:
        weights: per layer [T, out, in].
        biases: per layer [T, out].
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        self.biases = list(biases)

    @classmethod
    def for_targets(
        cls,
        network: NetworkConfig,
        tensors: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
        device: str | torch.device = "cpu",
    ) -> Heads:
        """Fresh heads on the device, one per generator on the host.

        fc4 and fc5 start from ``tensors`` where it holds them, else from N(0, 0.01) with bias 0.1; fc6 from
        N(0, 0.01) with bias 0 (MDNet).
        """
        sizes = {"fc4": (HIDDEN, ROI_FEATURES), "fc5": (HIDDEN, HIDDEN), "fc6": (2, HIDDEN)}
        if network.fc_layers == 2:
            del sizes["fc5"]
        weights, biases = [], []
        for name, shape in sizes.items():
            if name != "fc6" and f"{name}.weight" in tensors:
                weight = tensors[f"{name}.weight"].to(device).expand(len(generators), -1, -1).clone()
                bias = tensors[f"{name}.bias"].to(device).expand(len(generators), -1).clone()
            else:
                drawn = torch.empty((len(generators), *shape), dtype=torch.float32, device="cpu")
                for head, generator in zip(drawn, generators, strict=True):
                    head.normal_(0, 0.01, generator=generator)
                weight = drawn.to(device)
                bias = weight.new_full((len(generators), shape[0]), 0.0 if name == "fc6" else 0.1)
            weights.append(weight)
            biases.append(bias)
        return cls(weights, biases)

    def __len__(self) -> int:
        """T."""
        return len(self.weights[0])

    def __getitem__(self, targets: slice) -> Heads:
        """The heads of some targets: views, what changes them changes these."""
        return Heads([weight[targets] for weight in self.weights], [bias[targets] for bias in self.biases])

    def of(self, targets: Sequence[int]) -> Heads:
        """The heads of some targets: these for all of them in order, else copies."""
        if list(targets) == list(range(len(self))):
            return self
        rows = upload(torch.tensor(targets, device="cpu"), self.weights[0].device)
        return Heads([weight[rows] for weight in self.weights], [bias[rows] for bias in self.biases])

    @classmethod
    def joined(cls, first: Heads, second: Heads) -> Heads:
        """Copies of the heads of both."""
        return cls(
            [torch.cat(pair) for pair in zip(first.weights, second.weights, strict=True)],
            [torch.cat(pair) for pair in zip(first.biases, second.biases, strict=True)],
        )

    def parameters(self) -> list[Tensor]:
        """All weights and biases."""
        return [*self.weights, *self.biases]

    def scores(self, features: Tensor, allow_tf32: bool = False) -> Tensor:
        """Target scores before softmax, dropout off: [T, K, 4608] -> [T, K].

        Args:
            features: of T x K boxes; on a CPU in bf16 too.
            allow_tf32: let a GPU multiply with 10 bits of mantissa; enough to rank candidates.
        """
        if features.dtype == self.weights[0].dtype:
            return score_heads(features, self.weights, self.biases, allow_tf32=allow_tf32)
        return self.scores_behind_first(linear_of_heads(features, self.weights[0], self.biases[0]))

    def scores_behind_first(self, first: Tensor) -> Tensor:
        """The same [T, K] of what the first layer made of the features [T, K, 512], before its ReLU; overwritten."""
        return score_heads(first.relu_(), self.weights[1:], self.biases[1:])


def linear_of_heads(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[S, n, in] -> [S, n, out], of the bias's type, or without one of x's.

    Args:
        x: where it is of a smaller type than the bias, the factors are rounded to it; sums are not.
        weight: [S, out, in].
        bias: [S, out].
    """
    if bias is None or x.dtype == bias.dtype:
        return stacked_linear(x, weight, bias)
    # One by one: only plain products of half types are fast on a CPU.
    products = [F.linear(of_head, matrix.to(x.dtype)) for of_head, matrix in zip(x, weight, strict=True)]
    return torch.stack(products).to(bias.dtype).add_(bias[:, None])


def best_candidates(candidates_xywh: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those of each target with the highest scores (MDNet; paper 3.4 with a count of 1).

    Args:
        candidates_xywh: [S, K, 4].
        scores: [S, K].
        count: how many, at most K.

    Returns:
        The best ones [S, count, 4], their mean [S, 4], and their mean score [S].
    """
    best = scores.topk(count, dim=1)
    best_xywh = candidates_xywh.gather(1, best.indices[..., None].expand(-1, -1, 4))
    return best_xywh, best_xywh.mean(dim=1), best.values.mean(dim=1)
