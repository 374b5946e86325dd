"""The heads' fine-tuning iteration: hard negative mining, softmax cross-entropy, SGD with momentum (paper 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from .config import TrackerConfig
from .cuda_graph import CapturedSequence
from .device import upload
from .heads import BACKGROUND, TARGET, Heads, linear_of_heads
from .ranking import are_highest, likely_highest, saves

_ROWS_AT_ONCE = 64  # rounded to bf16: 1 MB


class SampleRows(NamedTuple):
    """Samples of S heads: rows of one feature matrix.

    Attributes:
        features: [R, 4608].
        positives: [S, p] int64.
        negatives: [S, n] int64.
    """

    features: Tensor
    positives: Tensor
    negatives: Tensor


class FineTuner:
    """Fine-tunes some of the heads: :meth:`begin`, then :meth:`iterate` as often as wanted, then :meth:`finish`.

    The gradients of the few layers are written out, without autograd: they go straight into the momentum, and the
    host waits for nothing. The last layer learns at ``fc6_rate`` times the learning rate, biases at ``bias_rate``
    times; weight decay is on weights only (MDNet).

    There are two ways, with the same results up to rounding. Where ``together`` is set, for a GPU, S heads are trained
    at once, in copies; negatives are ranked in reduced precision, and only the batch goes through the first layer
    exactly. Else, for a CPU, S is 1 and the head changes in place; mining and training share the first layer's
    products, and the large buffers live as long as the object, because fresh memory costs a CPU more than the work
    done in it.

    Args:
        heads: changed in place; up to date after :meth:`finish`.
        config: batch sizes, momentum, weight decay and factors of the rates.
        together: which way.
        captured: features on a CUDA device: iterations on rows of this matrix are captured as a graph, one for each S.
        dtype: of the features, unless ``together``; where it is a smaller one than the heads', what is multiplied with
            them is rounded to it. None for the heads'.
        rough: unless ``together``, find the hardest negatives by way of bf16 (:mod:`.ranking`).

    Attributes:
        heads: others of the same shape may take their place, no more than ``capacity``; not between begin and finish.
        capacity: most heads.
    """

    def __init__(
        self,
        heads: Heads,
        config: TrackerConfig,
        *,
        together: bool,
        captured: Tensor | None = None,
        dtype: torch.dtype | None = None,
        rough: bool = False,
    ) -> None:
        self.config = config
        self.together = together
        self.heads = heads
        self.capacity = len(heads)
        self._captured = captured
        most = self.capacity if together else 1
        like = heads.weights[0]
        n, width = config.batch_positives + config.batch_negatives, like.shape[2]
        if together:
            self._copies = Heads(
                [torch.empty_like(weight) for weight in heads.weights],
                [torch.empty_like(bias) for bias in heads.biases],
            )
        else:
            self._mined = like.new_empty(config.mining_negatives, width, dtype=dtype)
            self._batch = like.new_empty(n, width, dtype=dtype)
        rough = rough and saves(config.mining_negatives, config.batch_negatives)
        self._mined_bf16 = like.new_empty(config.mining_negatives, width, dtype=torch.bfloat16) if rough else None
        self._velocities = [torch.zeros_like(weight[:most]) for weight in heads.weights]
        self._bias_velocities = [torch.zeros_like(bias[:most]) for bias in heads.biases]
        # What weights and biases of each layer learn at, per head: on the device, because heads stop one by one.
        self._rates = like.new_zeros(2, len(heads.weights), most)
        # The mean cross-entropy is the sum of these times the log probabilities.
        self._loss_weights = like.new_zeros(n, 2)
        self._loss_weights[: config.batch_positives, TARGET] = -1 / n
        self._loss_weights[config.batch_positives :, BACKGROUND] = -1 / n
        self._graphs: dict[int, CapturedSequence[Tensor]] = {}

    def begin(self, targets: Sequence[int], learning_rate: float) -> None:
        """Turn to the heads of S targets, of only one unless ``together``, with zero momentum."""
        self._targets = list(targets)
        count = len(self._targets)
        if self.together:
            self._trained = self._copies[:count]
            self._places = upload(torch.tensor(self._targets, device="cpu"), self._rates.device)
            for copy, stacked in zip(self._trained.parameters(), self.heads.parameters(), strict=True):
                torch.index_select(stacked, 0, self._places, out=copy)
        else:
            (target,) = self._targets
            self._trained = self.heads[target : target + 1]
        for velocity in (*self._velocities, *self._bias_velocities):
            velocity[:count].zero_()
        for i in range(len(self._trained.weights)):
            rate = learning_rate * (self.config.fc6_rate if i + 1 == len(self._trained.weights) else 1.0)
            self._rates[0, i].fill_(rate)
            self._rates[1, i].fill_(rate * self.config.bias_rate)

    def new_keep(self) -> Tensor:
        """Dropout factors for :meth:`iterate` that drop nothing."""
        hidden = self._trained.biases[:-1]
        return hidden[0].new_ones(len(self._targets), len(hidden), len(self._loss_weights), hidden[0].shape[1])

    def iterate(self, samples: SampleRows, keep: Tensor) -> Tensor:
        """One iteration: mine the hardest negatives, one step of SGD on them and the positives.

        Args:
            samples: per head the ``batch_positives`` positives of the batch, and the ``mining_negatives`` negatives to
                choose from; the ``batch_negatives`` with the highest target score (dropout off) are used.
            keep: what dropout multiplies the hidden layers' outputs by: [S, hidden layers, batch, 512].

        Returns:
            The batches' mean losses before the step [S], on the device; valid until the next iteration.
        """
        if samples.features is not self._captured:
            return self._iterate(samples, keep)
        features, *rows = samples
        inputs = (*rows, keep)
        if len(keep) not in self._graphs:
            self._graphs[len(keep)] = CapturedSequence(
                lambda positives, negatives, keep: self._iterate(SampleRows(features, positives, negatives), keep),
                inputs,
                changed=[*self._trained.parameters(), *self._velocities, *self._bias_velocities],
                shares_with=next(iter(self._graphs.values()), None),
            )
        return self._graphs[len(keep)](*inputs)

    def stop(self, head: int) -> None:
        """From here on this one of the S heads stays exactly as it is, however many iterations the others take."""
        self._rates[:, :, head].zero_()

    def finish(self) -> None:
        """Put what was learnt into the heads."""
        if not self.together:
            return
        for copy, stacked in zip(self._trained.parameters(), self.heads.parameters(), strict=True):
            stacked.index_copy_(0, self._places, copy)

    def _iterate(self, samples: SampleRows, keep: Tensor) -> Tensor:
        weights, biases = self._trained.weights, self._trained.biases
        batch, x = self._mine_together(samples) if self.together else self._mine_in_buffers(samples)

        # Forward: the input of each layer, and the gates (ReLU and dropout) through which it came.
        inputs, gates = [batch], []
        for weight, bias, kept in zip(weights[1:], biases[1:], keep.unbind(1), strict=True):
            gates.append((x > 0) * kept)
            inputs.append(x * gates[-1])
            x = linear_of_heads(inputs[-1], weight, bias)
        log_probabilities = x.log_softmax(dim=2)
        losses = (log_probabilities * self._loss_weights).sum(dim=(1, 2))

        # Backward: the gradient at each layer's output, from the last layer to the first.
        gradients = [torch.add(self._loss_weights, log_probabilities.exp(), alpha=1 / len(self._loss_weights))]
        for weight, gate in zip(weights[:0:-1], gates[::-1], strict=True):
            gradients.insert(0, linear_of_heads(gradients[0], weight.transpose(1, 2)) * gate)
        self._step(inputs, gradients)
        return losses

    def _mine_together(self, samples: SampleRows) -> tuple[Tensor, Tensor]:
        """The batches [S, n, 4608], and the first layer's outputs for them [S, n, 512]."""
        features, positives, negatives = samples
        scores = self._trained.scores(features[negatives], allow_tf32=True)
        hardest = scores.topk(self.config.batch_negatives).indices
        batch = features[torch.cat((positives, negatives.gather(1, hardest)), dim=1)]
        return batch, linear_of_heads(batch, self._trained.weights[0], self._trained.biases[0])

    def _mine_in_buffers(self, samples: SampleRows) -> tuple[Tensor, Tensor]:
        """As :meth:`_mine_together`, of one head."""
        features, (positives,), (negatives,) = samples
        weights, biases = self._trained.weights, self._trained.biases
        n_positives = len(positives)
        torch.index_select(features, 0, positives, out=self._batch[:n_positives])
        weight = weights[0].to(features.dtype)
        mined, first, hardest = self._hardest(features, negatives, weight)
        torch.index_select(mined, 0, hardest, out=self._batch[n_positives:])
        positive_first = linear_of_heads(self._batch[None, :n_positives], weight, biases[0])
        return self._batch[None], torch.cat((positive_first, first[:, hardest]), dim=1)

    def _hardest(self, features: Tensor, negatives: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Some negatives [m, 4608], the first layer's outputs for them [1, m, 512], and the hardest of their rows."""
        count = self.config.batch_negatives
        if self._mined_bf16 is not None:
            rough = self._trained.scores(self._in_bf16(features, negatives, out=self._mined_bf16)[None])[0]
            likely = likely_highest(rough, count)
            mined, first, scores = self._scored(features, negatives[likely], weight)
            if are_highest(rough, likely, scores, count):
                return mined, first, scores.topk(count).indices
        mined, first, scores = self._scored(features, negatives, weight)
        return mined, first, scores.topk(count).indices

    def _scored(self, features: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows' features [m, 4608], the first layer's outputs for them [1, m, 512], and their scores [m]."""
        weights, biases = self._trained.weights, self._trained.biases
        mined = torch.index_select(features, 0, rows, out=self._mined[: len(rows)])
        first = linear_of_heads(mined[None], weight, biases[0])
        return mined, first, Heads(weights[1:], biases[1:]).scores(first.relu())[0]

    def _in_bf16(self, features: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        """Rows of the features, by way of a few at a time that stay in the cache."""
        few = self._mined[:_ROWS_AT_ONCE]
        out = out[: len(rows)]
        for some, place in zip(rows.split(len(few)), out.split(len(few)), strict=True):
            place.copy_(torch.index_select(features, 0, some, out=few[: len(some)]))
        return out

    def _step(self, inputs: list[Tensor], gradients: list[Tensor]) -> None:
        """SGD with momentum on every layer, from its input and the gradient at its output."""
        config, count = self.config, len(self._trained)
        weight_rates, bias_rates = self._rates[:, :, :count, None]
        for i, (weight, bias) in enumerate(zip(self._trained.weights, self._trained.biases, strict=True)):
            velocity, bias_velocity = self._velocities[i][:count], self._bias_velocities[i][:count]
            gradient, of_bias = gradients[i].transpose(1, 2), gradients[i].sum(dim=1)
            if self.together:
                velocity.baddbmm_(gradient, inputs[i], beta=config.momentum).add_(weight, alpha=config.weight_decay)
                weight.addcmul_(velocity, weight_rates[i, :, None], value=-1)
                bias_velocity.mul_(config.momentum).add_(of_bias)
                bias.addcmul_(bias_velocity, bias_rates[i], value=-1)
                continue
            of_weight = linear_of_heads(gradient.to(inputs[i].dtype), inputs[i].transpose(1, 2)).to(weight.dtype)
            self._step_at_once(weight, of_weight, velocity, float(weight_rates[i]), config.weight_decay)
            self._step_at_once(bias, of_bias, bias_velocity, float(bias_rates[i]), 0.0)

    def _step_at_once(self, parameter: Tensor, gradient: Tensor, velocity: Tensor, rate: float, decay: float) -> None:
        """The same in one pass over the weights, which are larger than a CPU's cache."""
        sgd(
            [parameter],
            [gradient],
            [velocity],
            fused=True,
            weight_decay=decay,
            momentum=self.config.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
