"""The heads: their start values, and a fine-tuning iteration against autograd and torch.optim.SGD."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.heads import FineTuner, Heads, SampleRows, _gate

WIDTHS = {3: (20, 16, 12, 2), 2: (20, 16, 2)}  # narrow layers: in float64 the comparison is tight and quick
RATE = 0.02


def config_of(**changes: object) -> TrackerConfig:
    small = {"batch_positives": 6, "batch_negatives": 10, "mining_negatives": 40, "dropout": 0.0}
    return TrackerConfig.from_preset("paper", **{**small, **changes})


def random_heads(widths: Sequence[int], targets: int = 1, seed: int = 0) -> Heads:
    g = torch.Generator().manual_seed(seed)
    pairs = list(pairwise(widths))
    weights = [torch.randn(targets, n, m, generator=g, dtype=torch.float64) * m**-0.5 for m, n in pairs]
    biases = [torch.randn(targets, n, generator=g, dtype=torch.float64) * 0.2 for _, n in pairs]
    return Heads(weights, biases)


def copy_of(heads: Heads) -> Heads:
    return Heads([w.clone() for w in heads.weights], [b.clone() for b in heads.biases])


def samples(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_of(features: Tensor, count: int, seed: int) -> SampleRows:
    """Some rows in an order that is not theirs: an iteration must go by the rows, not by the matrix."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    return SampleRows(features, order[:count])


class Oracle:
    """The same iteration with torch's own layers, automatic gradients and optimizer."""

    def __init__(self, heads: Heads, target: int, config: TrackerConfig, rate: float) -> None:
        self.config = config
        self.layers = nn.ModuleList()
        for weight, bias in zip(heads.weights, heads.biases, strict=True):
            layer = nn.Linear(weight.shape[2], weight.shape[1], dtype=weight.dtype)
            layer.weight.data.copy_(weight[target])
            layer.bias.data.copy_(bias[target])
            self.layers.append(layer)
        groups = []
        for i, layer in enumerate(self.layers):
            layer_rate = rate * (10 if i + 1 == len(self.layers) else 1)
            groups.append({"params": [layer.weight], "lr": layer_rate, "weight_decay": 5e-4})
            groups.append({"params": [layer.bias], "lr": layer_rate * 2, "weight_decay": 0})
        self.optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)

    def logits(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)

    def iterate(self, positives: Tensor, negatives: Tensor) -> float:
        with torch.no_grad():
            order = self.logits(negatives)[:, 1].argsort(descending=True)
        hardest = negatives[order[: self.config.batch_negatives]]
        labels = torch.cat((torch.ones(len(positives)), torch.zeros(len(hardest)))).long()
        loss = F.cross_entropy(self.logits(torch.cat((positives, hardest))), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def assert_head_equals(heads: Heads, target: int, oracle: Oracle, rtol: float, atol: float) -> None:
    for weight, bias, layer in zip(heads.weights, heads.biases, oracle.layers, strict=True):
        torch.testing.assert_close(weight[target], layer.weight.data, rtol=rtol, atol=atol)
        torch.testing.assert_close(bias[target], layer.bias.data, rtol=rtol, atol=atol)


@pytest.mark.parametrize("fc_layers", [3, 2])
def test_three_iterations_equal_autograd_and_sgd(fc_layers: int) -> None:
    config, heads = config_of(), random_heads(WIDTHS[fc_layers])
    before = copy_of(heads)
    tuner, oracle = FineTuner(heads, config), Oracle(heads, 0, config, RATE)
    tuner.begin(0, RATE)
    positives, negatives = samples(30, 20, seed=1) + 0.3, samples(90, 20, seed=2)
    for i in range(3):
        p, n = rows_of(positives, 6, seed=10 + i), rows_of(negatives, 40, seed=20 + i)
        loss = tuner.iterate(p, n, torch.Generator())
        assert float(loss) == pytest.approx(oracle.iterate(positives[p.rows], negatives[n.rows]), rel=1e-12)
        assert_head_equals(heads, 0, oracle, rtol=1e-11, atol=1e-13)
    moved = [(w - b).abs().max() for w, b in zip(heads.weights, before.weights, strict=True)]
    assert min(moved) > 1e-3, "the steps must be large against the tolerance"


def test_an_iteration_of_the_real_size_in_float32() -> None:
    config = TrackerConfig(dropout=0.0)
    heads = Heads.for_targets(NetworkConfig(), {}, [torch.Generator().manual_seed(0)])
    for weight in heads.weights:
        weight.mul_(3)  # scores that differ: with ties in float32 the two might mine different negatives
    oracle, tuner = Oracle(heads, 0, config, 5e-4), FineTuner(heads, config)
    positives, negatives = samples(32, 4608, seed=1).float().relu() * 3, samples(1024, 4608, seed=2).float().relu() * 3
    tuner.begin(0, 5e-4)
    loss = tuner.iterate(rows_of(positives, 32, 3), rows_of(negatives, 1024, 4), torch.Generator())
    assert float(loss) == pytest.approx(oracle.iterate(positives, negatives), rel=1e-5)
    # Sums of 128 to 4608 float32 products in another order: 1e-6 of the largest weight's size.
    assert_head_equals(heads, 0, oracle, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_mining_takes_exactly_the_highest_scores_without_dropout(dropout: float) -> None:
    """Iterating over all the negatives does what iterating over only the hardest ones does."""
    positives, negatives = samples(6, 20, seed=1), samples(40, 20, seed=2)
    heads = random_heads(WIDTHS[3])
    scores = Oracle(heads, 0, config_of(), RATE).logits(negatives)[:, 1]
    hardest = scores.argsort(descending=True)[:10]
    results = []
    for mining, rows in ((40, torch.arange(40)), (10, hardest), (10, torch.arange(10))):
        config, changed = config_of(dropout=dropout, mining_negatives=mining), copy_of(heads)
        tuner = FineTuner(changed, config)
        tuner.begin(0, RATE)
        tuner.iterate(
            SampleRows(positives, torch.arange(6)), SampleRows(negatives, rows), torch.Generator().manual_seed(5)
        )
        results.append(changed)
    all_of_them, only_hardest, others = results
    for a, b, c in zip(all_of_them.weights, only_hardest.weights, others.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert (a - c).abs().max() > 1e-5, "other negatives must make a difference"


def test_the_loss_is_the_batchs_before_the_step() -> None:
    config, heads = config_of(), random_heads(WIDTHS[3])
    before = Oracle(heads, 0, config, RATE)
    positives, negatives = samples(6, 20, seed=1), samples(40, 20, seed=2)
    tuner = FineTuner(heads, config)
    tuner.begin(0, RATE)
    loss = tuner.iterate(
        SampleRows(positives, torch.arange(6)), SampleRows(negatives, torch.arange(40)), torch.Generator()
    )
    after = Oracle(heads, 0, config, RATE)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(before.iterate(positives, negatives), rel=1e-12)
    assert float(loss) > after.iterate(positives, negatives) + 1e-3, "the step must lower this batch's loss"


def run(heads: Heads, config: TrackerConfig, seed: int, iterations: int = 3, target: int = 0) -> Heads:
    """The heads after some iterations on fixed samples."""
    heads = copy_of(heads)
    tuner, generator = FineTuner(heads, config), torch.Generator().manual_seed(seed)
    tuner.begin(target, RATE)
    positives, negatives = samples(6, 20, seed=1), samples(40, 20, seed=2)
    for _ in range(iterations):
        tuner.iterate(SampleRows(positives, torch.arange(6)), SampleRows(negatives, torch.arange(40)), generator)
    return heads


def test_dropout_repeats_with_the_generators_seed() -> None:
    heads, config = random_heads(WIDTHS[3]), config_of(dropout=0.5)
    first, again, other = (run(heads, config, seed) for seed in (3, 3, 4))
    for a, b, c in zip(first.weights, again.weights, other.weights, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_dropout_keeps_the_mean_of_activations_and_drops_the_stated_share() -> None:
    x = torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    for p in (0.5, 0.2):
        gate = _gate(x, p, torch.Generator().manual_seed(1))
        active = gate[x > 0]
        assert (gate[x <= 0] == 0).all(), "ReLU"
        assert set(active.unique().tolist()) == {0.0, torch.tensor(1.0).div(1 - p).item()}
        # About 100,000 draws: 0.02 is more than five standard deviations.
        assert (active == 0).float().mean().item() == pytest.approx(p, abs=0.01)
        assert (x * gate).mean().item() == pytest.approx(x.relu().mean().item(), rel=0.02)
    assert torch.equal(x * _gate(x, 0.0, torch.Generator()), x.relu())


def test_without_dropout_the_generator_is_not_used() -> None:
    generator = torch.Generator().manual_seed(9)
    state = generator.get_state()
    heads, config = random_heads(WIDTHS[3]), config_of()
    tuner = FineTuner(heads, config)
    tuner.begin(0, RATE)
    tuner.iterate(rows_of(samples(6, 20, 1), 6, 0), rows_of(samples(40, 20, 2), 40, 0), generator)
    assert torch.equal(generator.get_state(), state)


def test_begin_takes_the_momentum_away() -> None:
    config, heads = config_of(), random_heads(WIDTHS[3])
    positives, negatives = rows_of(samples(6, 20, 1), 6, 0), rows_of(samples(40, 20, 2), 40, 0)
    tuner = FineTuner(heads, config)
    tuner.begin(0, RATE)
    for _ in range(3):
        tuner.iterate(positives, negatives, torch.Generator())
    fresh, carried_on = copy_of(heads), copy_of(heads)
    tuner.begin(0, RATE)
    tuner.iterate(positives, negatives, torch.Generator())

    new = FineTuner(fresh, config)
    new.begin(0, RATE)
    new.iterate(positives, negatives, torch.Generator())
    for a, b in zip(heads.weights + heads.biases, fresh.weights + fresh.biases, strict=True):
        assert torch.equal(a, b)

    oracle = Oracle(carried_on, 0, config, RATE)
    oracle.iterate(samples(6, 20, 1), samples(40, 20, 2))
    assert_head_equals(heads, 0, oracle, rtol=1e-11, atol=1e-13)


def test_only_the_chosen_targets_head_changes() -> None:
    heads, config = random_heads(WIDTHS[3], targets=3), config_of(dropout=0.5)
    after = run(heads, config, seed=0, target=1)
    for old, new in zip(heads.weights + heads.biases, after.weights + after.biases, strict=True):
        assert torch.equal(old[0], new[0])
        assert torch.equal(old[2], new[2])
        assert not torch.equal(old[1], new[1])
    alone = run(Heads([w[1:2] for w in heads.weights], [b[1:2] for b in heads.biases]), config, seed=0)
    for new, single in zip(after.weights, alone.weights, strict=True):
        assert torch.equal(new[1], single[0])


@pytest.mark.parametrize("fc_layers", [3, 2])
def test_scores_are_the_target_column_before_softmax(fc_layers: int) -> None:
    heads = random_heads(WIDTHS[fc_layers], targets=3)
    features = torch.stack([samples(7, 20, seed) for seed in range(3)])
    scores = heads.scores(features)
    for t in range(3):
        expected = Oracle(heads, t, config_of(), RATE).logits(features[t])[:, 1].detach()
        torch.testing.assert_close(scores[t], expected, rtol=1e-12, atol=1e-12)


def test_fresh_heads_have_the_stated_distribution() -> None:
    heads = Heads.for_targets(NetworkConfig(), {}, [torch.Generator().manual_seed(s) for s in (0, 1)])
    assert [tuple(w.shape) for w in heads.weights] == [(2, 512, 4608), (2, 512, 512), (2, 2, 512)]
    for weight in heads.weights:
        count = weight[0].numel()
        for head in weight:
            # Five standard errors of the mean and of the standard deviation.
            assert abs(head.mean().item()) < 5 * 0.01 / count**0.5
            assert head.std().item() == pytest.approx(0.01, abs=5 * 0.01 / (2 * count) ** 0.5)
        assert not torch.equal(weight[0], weight[1])
    assert [b.unique().tolist() for b in heads.biases] == [[pytest.approx(0.1)], [pytest.approx(0.1)], [0.0]]

    two_layers = Heads.for_targets(NetworkConfig(fc_layers=2), {}, [torch.Generator().manual_seed(0)])
    assert [tuple(w.shape) for w in two_layers.weights] == [(1, 512, 4608), (1, 2, 512)]


def test_weights_of_a_file_are_taken_over_except_for_the_last_layer() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = {"fc4": (512, 4608), "fc5": (512, 512), "fc6": (2, 512)}
    tensors = {f"{name}.weight": torch.randn(shape, generator=g) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.randn(shape[0], generator=g) for name, shape in shapes.items()}
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    heads = Heads.for_targets(NetworkConfig(), tensors, [torch.Generator().manual_seed(s) for s in (1, 2)])
    for t in range(2):
        for i, name in enumerate(("fc4", "fc5")):
            assert torch.equal(heads.weights[i][t], tensors[f"{name}.weight"])
            assert torch.equal(heads.biases[i][t], tensors[f"{name}.bias"])
    assert heads.weights[2].std().item() == pytest.approx(0.01, rel=0.2), "fc6 is fresh whatever a file holds"
    assert not heads.biases[2].any()
    for parameter in heads.weights + heads.biases:
        parameter.add_(1)  # fine-tuning one target must reach neither the other one nor the file's tensors
    heads.weights[0][0].add_(1)
    assert torch.equal(heads.weights[0][1], tensors["fc4.weight"] + 1)
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


def test_a_targets_head_does_not_depend_on_the_others() -> None:
    together = Heads.for_targets(NetworkConfig(), {}, [torch.Generator().manual_seed(s) for s in (5, 6, 7)])
    for t, seed in enumerate((5, 6, 7)):
        alone = Heads.for_targets(NetworkConfig(), {}, [torch.Generator().manual_seed(seed)])
        for a, b in zip(together.weights + together.biases, alone.weights + alone.biases, strict=True):
            assert torch.equal(a[t], b[0])


def test_torchs_global_random_state_is_not_touched() -> None:
    state = torch.get_rng_state()
    Heads.for_targets(NetworkConfig(), {}, [torch.Generator().manual_seed(0)])
    run(random_heads(WIDTHS[3]), config_of(dropout=0.5), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
