"""What is compared of the fine-tuning: one iteration of T heads, mining, forward, loss, backward and step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from floors import Work
from measure import Call
from parts import OURS, Inputs, Part, Provider, Sizes
from torch import Tensor

from fdn_triton import TrackerConfig
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import BACKGROUND, TARGET, Heads
from fdn_triton.kernels import score_heads_ref

_LEARNING_RATE = 1e-4
# The losses agree to this: on a GPU negatives are ranked in TF32, so that the last ones chosen can differ.
_TOLERANCE = 1e-2


def fine_tuning_parts(sizes: Sizes) -> Iterator[Part]:
    """One iteration; its result, for the check, is the loss of each head before the step."""
    config = TrackerConfig(mining_negatives=sizes.mined, batch_negatives=min(96, sizes.mined))
    for targets in sizes.learners:
        yield Part(
            "fine_tuning",
            f"T = {targets}, {sizes.mined} negatives",
            "fp32",
            partial(_samples_and_heads, sizes, config, targets),
            partial(_losses, config),
            partial(_work, config),
            {
                OURS: Provider(partial(_ours, config, True), tolerance=_TOLERANCE, capture=False),
                "the same without a graph": Provider(
                    partial(_ours, config, False), tolerance=_TOLERANCE, capture=False
                ),
                "autograd and torch.optim": Provider(
                    partial(_by_autograd, config), tolerance=_TOLERANCE, capture=False
                ),
            },
        )


def _samples_and_heads(
    sizes: Sizes, config: TrackerConfig, targets: int, generator: torch.Generator, device: torch.device
) -> Inputs:
    """Features [R, 4608], positives [T, p], negatives [T, n], three weights, three biases."""
    seed = int(torch.randint(1 << 31, (), generator=generator))
    on_device = torch.Generator(device).manual_seed(seed)
    samples = torch.arange(targets * (config.batch_positives + config.mining_negatives), device=device)
    rows = samples.view(targets, -1).split((config.batch_positives, config.mining_negatives), dim=1)
    outs = (*sizes.widths[1:], 2)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=on_device, device=device) * scale

    weights = [normal(targets, out, width, scale=width**-0.5) for out, width in zip(outs, sizes.widths, strict=True)]
    biases = [normal(targets, out, scale=0.1) for out in outs]
    return normal(len(samples), sizes.widths[0]).relu(), *rows, *weights, *biases


def _ours(config: TrackerConfig, graph: bool, *inputs: Tensor) -> Call:
    features, positives, negatives, *layers = inputs
    heads = Heads([layer.clone() for layer in layers[:3]], [layer.clone() for layer in layers[3:]])
    tuner = FineTuner(heads, config, together=True, captured=features if graph and features.is_cuda else None)
    tuner.begin(range(len(heads)), _LEARNING_RATE)
    samples, keep = SampleRows(features, positives, negatives), tuner.new_keep()
    return lambda: tuner.iterate(samples, keep)


def _by_autograd(config: TrackerConfig, *inputs: Tensor) -> Call:
    """Head after head with autograd and ``torch.optim.SGD``, as trackers of the MDNet family have it."""
    features, positives, negatives, *layers = inputs
    heads = [[layer[t].clone().requires_grad_() for layer in layers] for t in range(len(positives))]
    optimizers = []
    for head in heads:
        groups = []
        for i, parameter in enumerate(head):
            rate = _LEARNING_RATE * (config.fc6_rate if i % 3 == 2 else 1.0) * (config.bias_rate if i >= 3 else 1.0)
            decay = config.weight_decay if i < 3 else 0.0
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
        optimizers.append(torch.optim.SGD(groups, lr=_LEARNING_RATE, momentum=config.momentum))

    def forward(head: list[Tensor], x: Tensor) -> Tensor:
        for i in range(3):
            x = F.linear(x, head[i], head[3 + i])
            x = x.relu() if i < 2 else x
        return x

    def iterate() -> Tensor:
        losses = []
        for t, (head, optimizer) in enumerate(zip(heads, optimizers, strict=True)):
            with torch.no_grad():
                scores = forward(head, features[negatives[t]])[:, TARGET]
                hardest = negatives[t][scores.topk(config.batch_negatives).indices]
            with torch.enable_grad():
                loss = _loss(forward(head, features[torch.cat((positives[t], hardest))]), config)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    return iterate


def _losses(config: TrackerConfig, *inputs: Tensor) -> Tensor:
    features, positives, negatives, *layers = inputs
    losses = []
    for t in range(len(positives)):
        head = [layer[t : t + 1].double() for layer in layers]
        mined = score_heads_ref(features[negatives[t]].double(), head[:3], head[3:])[0]
        hardest = negatives[t][mined.topk(config.batch_negatives).indices]
        batch = features[torch.cat((positives[t], hardest))].double()
        losses.append(_loss(score_heads_ref(batch, head[:3], head[3:], both_columns=True)[0], config))
    return torch.stack(losses)


def _loss(scores: Tensor, config: TrackerConfig) -> Tensor:
    labels = torch.full((len(scores),), BACKGROUND, device=scores.device)
    labels[: config.batch_positives] = TARGET
    return F.cross_entropy(scores, labels)


def _work(config: TrackerConfig, *inputs: Tensor) -> Work:
    """Samples read once, weights and momenta read and written; the products that must be exact (mining need not be)."""
    features, _, _, *layers = inputs
    batch = config.batch_positives + config.batch_negatives
    parameters = sum(layer.nbytes for layer in layers)
    flops = 3 * 2 * batch * sum(layer.numel() for layer in layers[:3]) - 2 * batch * layers[0].numel()
    return Work(bytes=features.nbytes + 4 * parameters, flops=flops)
