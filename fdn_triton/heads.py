"""The fully-connected heads: T targets stacked, their scores, and the fine-tuning iteration (paper 3.2, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
                weight = torch.empty((len(generators), *shape), dtype=torch.float32, device=device)
                for head, generator in zip(weight, generators, strict=True):
                    head.normal_(0, 0.01, generator=generator)
                bias = weight.new_full((len(generators), shape[0]), 0.0 if name == "fc6" else 0.1)
            weights.append(weight)
            biases.append(bias)
        return cls(weights, biases)

    def scores(self, features: Tensor) -> Tensor:
        """Target scores before softmax, dropout off: [T, K, 4608] -> [T, K]."""
        return score_heads(features, self.weights, self.biases)


class FineTuner:
    """Fine-tunes one head after the other, in place: hard negative mining, softmax cross-entropy, SGD with momentum.

    The gradients of the few layers are written out, without autograd: mining and training then share the first
    layer's products, and gradients go straight into the momentum. The buffers live as long as the object, because
    fresh memory costs a CPU more than the work done in it.

    The last layer learns at ``fc6_rate`` times the learning rate, biases at ``bias_rate`` times; weight decay is on
    weights only (MDNet).

    Args:
        heads: changed in place.
        config: batch sizes, rates, momentum, weight decay and dropout.
    """

    def __init__(self, heads: Heads, config: TrackerConfig) -> None:
        self._heads = heads
        self._config = config
        width = heads.weights[0].shape[2]
        like = heads.weights[0]
        self._velocities = [torch.zeros_like(weight[0]) for weight in heads.weights]
        self._bias_velocities = [torch.zeros_like(bias[0]) for bias in heads.biases]
        self._mined = like.new_empty(config.mining_negatives, width)
        self._batch = like.new_empty(config.batch_positives + config.batch_negatives, width)
        self._target = 0
        self._learning_rate = 0.0

    def begin(self, target: int, learning_rate: float) -> None:
        """Turn to one target's head, with zero momentum."""
        self._target = target
        self._learning_rate = learning_rate
        for velocity in (*self._velocities, *self._bias_velocities):
            velocity.zero_()

    def iterate(self, positives: SampleRows, negatives: SampleRows, generator: torch.Generator) -> Tensor:
        """One iteration: mine the hardest negatives, one step of SGD on them and the positives.

        Args:
            positives: rows of the ``batch_positives`` positives of the batch.
            negatives: rows of the ``mining_negatives`` negatives to choose from; the ``batch_negatives`` with the
                highest target score (dropout off) are used.
            generator: draws the dropout masks.

        Returns:
            The batch's mean loss before the step, a 0-dimensional tensor on the device.
        """
        weights = [weight[self._target] for weight in self._heads.weights]
        biases = [bias[self._target] for bias in self._heads.biases]
        n_positives = len(positives.rows)
        batch = self._batch
        torch.index_select(positives.features, 0, positives.rows, out=batch[:n_positives])
        first = torch.cat(
            (
                torch.addmm(biases[0], batch[:n_positives], weights[0].T),
                self._mine(negatives, weights, biases, out=batch[n_positives:]),
            )
        )

        # Forward: the input of each layer, and the gates (ReLU and dropout) through which it came.
        x, inputs, gates = first, [batch], []
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            gates.append(_gate(x, self._config.dropout, generator))
            inputs.append(x * gates[-1])
            x = torch.addmm(bias, inputs[-1], weight.T)
        labels = torch.full((len(x),), BACKGROUND, device=x.device)
        labels[:n_positives] = TARGET
        log_probabilities = x.log_softmax(dim=1)
        loss = F.nll_loss(log_probabilities, labels)

        # Backward: the gradient at each layer's output, from the last layer to the first.
        gradients = [(log_probabilities.exp() - F.one_hot(labels, 2)) / len(x)]
        for weight, gate in zip(weights[:0:-1], gates[::-1], strict=True):
            gradients.insert(0, (gradients[0] @ weight) * gate)
        self._step(weights, biases, inputs, gradients)
        return loss

    def _mine(self, negatives: SampleRows, weights: list[Tensor], biases: list[Tensor], out: Tensor) -> Tensor:
        """Copy the hardest negatives to ``out`` [N, 4608]; returns the first layer's output for them [N, 512]."""
        mined = torch.index_select(negatives.features, 0, negatives.rows, out=self._mined)
        first = torch.addmm(biases[0], mined, weights[0].T)
        scores = score_heads(first.relu(), _stacked(weights[1:]), _stacked(biases[1:]))[0]
        hardest = scores.topk(len(out)).indices
        torch.index_select(mined, 0, hardest, out=out)
        return first[hardest]

    def _step(self, weights: list[Tensor], biases: list[Tensor], inputs: list[Tensor], gradients: list[Tensor]) -> None:
        """SGD with momentum on every layer, from its input and the gradient at its output."""
        config = self._config
        for i, (weight, bias, layer_input, gradient) in enumerate(zip(weights, biases, inputs, gradients, strict=True)):
            rate = self._learning_rate * (config.fc6_rate if i + 1 == len(weights) else 1.0)
            velocity = self._velocities[i].addmm_(gradient.T, layer_input, beta=config.momentum)
            weight.sub_(velocity.add_(weight, alpha=config.weight_decay), alpha=rate)
            bias_velocity = self._bias_velocities[i].mul_(config.momentum).add_(gradient.sum(dim=0))
            bias.sub_(bias_velocity, alpha=rate * config.bias_rate)


class SampleRows(NamedTuple):
    """Samples: some rows [n] of a feature matrix [R, 4608]."""

    features: Tensor
    rows: Tensor


def _gate(x: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """What ReLU and inverted dropout multiply x by; ``F.dropout`` would draw from torch's global state."""
    gate = (x > 0).to(x.dtype)
    if dropout == 0:
        return gate
    return gate.mul_(torch.empty_like(x).bernoulli_(1 - dropout, generator=generator)).div_(1 - dropout)


def _stacked(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor[None] for tensor in tensors]
