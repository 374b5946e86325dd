"""The fully-connected heads: T targets stacked, their scores, and the fine-tuning iteration (paper 3.2, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .backbone import ROI_FEATURES
from .config import NetworkConfig, TrackerConfig
from .kernels import score_heads

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
        cls, network: NetworkConfig, tensors: Mapping[str, Tensor], generators: Sequence[torch.Generator]
    ) -> Heads:
        """Fresh heads, one per generator, on the generators' device.

        fc4 and fc5 start from ``tensors`` where it holds them, else from N(0, 0.01) with bias 0.1; fc6 from
        N(0, 0.01) with bias 0 (MDNet).
        """
        device = generators[0].device
        sizes = {"fc4": (HIDDEN, ROI_FEATURES), "fc5": (HIDDEN, HIDDEN), "fc6": (2, HIDDEN)}
        if network.fc_layers == 2:
            del sizes["fc5"]
        weights, biases = [], []
        for name, shape in sizes.items():
            if name != "fc6" and f"{name}.weight" in tensors:
                weight = tensors[f"{name}.weight"].to(device).expand(len(generators), -1, -1).clone()
                bias = tensors[f"{name}.bias"].to(device).expand(len(generators), -1).clone()
            else:
                weight = torch.stack([torch.randn(shape, generator=g, device=device) * 0.01 for g in generators])
                bias = torch.full((len(generators), shape[0]), 0.0 if name == "fc6" else 0.1, device=device)
            weights.append(weight)
            biases.append(bias)
        return cls(weights, biases)

    def scores(self, features: Tensor) -> Tensor:
        """Target scores before softmax, dropout off: [T, K, 4608] -> [T, K]."""
        return score_heads(features, self.weights, self.biases)

    def fine_tuner(self, target: int, learning_rate: float, config: TrackerConfig) -> FineTuner:
        """A fine-tuner of one target's head, with zero momentum; it writes into these tensors."""
        return FineTuner(
            [w[target] for w in self.weights], [b[target] for b in self.biases], learning_rate, config
        )


class FineTuner:
    """SGD with momentum on one head: the last layer at ``fc6_rate`` times the learning rate, biases at
    ``bias_rate`` times, weight decay on weights only.

    Args:
        weights, biases: per layer [out, in] and [out]; changed in place.
        learning_rate: of the update.
        config: the rates, momentum, weight decay and dropout.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], learning_rate: float, config: TrackerConfig
    ) -> None:
        self._weights = [w.detach().requires_grad_() for w in weights]
        self._biases = [b.detach().requires_grad_() for b in biases]
        self._dropout = config.dropout
        groups = []
        for i, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            rate = learning_rate * (config.fc6_rate if i + 1 == len(self._weights) else 1.0)
            groups.append({"params": [weight], "lr": rate, "weight_decay": config.weight_decay})
            groups.append({"params": [bias], "lr": rate * config.bias_rate, "weight_decay": 0.0})
        self._optimizer = torch.optim.SGD(groups, momentum=config.momentum, fused=True)

    def hardest(self, features: Tensor, count: int) -> Tensor:
        """Indices [min(count, K)] of the features [K, 4608] with the highest target score, dropout off."""
        scores = score_heads(features, [w[None] for w in self._weights], [b[None] for b in self._biases])[0]
        return scores.topk(min(count, len(features))).indices

    def step(self, positives: Tensor, negatives: Tensor, generator: torch.Generator) -> Tensor:
        """One iteration: softmax cross-entropy over the batch, backward, SGD.

        Args:
            positives: [P, 4608].
            negatives: [N, 4608].
            generator: draws the dropout masks.

        Returns:
            The mean loss before the step, a 0-dimensional tensor on the device.
        """
        hidden = torch.cat((positives, negatives))
        labels = torch.full((len(hidden),), BACKGROUND, device=hidden.device)
        labels[: len(positives)] = TARGET
        with torch.enable_grad():
            for i, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
                if i:
                    hidden = _dropout(hidden.relu(), self._dropout, generator)
                hidden = F.linear(hidden, weight, bias)
            loss = F.cross_entropy(hidden, labels)
            loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def _dropout(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Inverted dropout from a generator; ``F.dropout`` would draw from torch's global state."""
    if rate == 0:
        return x
    return x * torch.empty_like(x).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
