"""Fine-tuning iterations against autograd and torch.optim.SGD, of one head and of several together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from narrow_heads import RATE, WIDTHS, Pool, config_of, copy_of, random_heads, random_keep, samples, some
from torch import Tensor, nn

from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import Heads

WAYS = pytest.mark.parametrize("together", [False, True], ids=["one", "together"])


class Oracle:
    """The same iteration with torch's own layers, automatic gradients and optimizer."""

    def __init__(self, heads: Heads, target: int, config: TrackerConfig, rate: float = RATE) -> None:
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

    def logits(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x).relu()
            x = x if keep is None else x * keep[i]
        return self.layers[-1](x)

    def iterate(self, positives: Tensor, negatives: Tensor, keep: Tensor | None = None) -> float:
        with torch.no_grad():
            order = self.logits(negatives)[:, 1].argsort(descending=True)
        hardest = negatives[order[: self.config.batch_negatives]]
        labels = torch.cat((torch.ones(len(positives)), torch.zeros(len(hardest)))).long()
        loss = F.cross_entropy(self.logits(torch.cat((positives, hardest)), keep), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def iterate_on(self, batch: SampleRows, head: int = 0, keep: Tensor | None = None) -> float:
        return self.iterate(batch.features[batch.positives[head]], batch.features[batch.negatives[head]], keep)


def assert_head_equals(heads: Heads, target: int, oracle: Oracle, rtol: float = 1e-11, atol: float = 1e-13) -> None:
    for weight, bias, layer in zip(heads.weights, heads.biases, oracle.layers, strict=True):
        torch.testing.assert_close(weight[target], layer.weight.data, rtol=rtol, atol=atol)
        torch.testing.assert_close(bias[target], layer.bias.data, rtol=rtol, atol=atol)


# The arithmetic


@pytest.mark.parametrize("fc_layers", [3, 2])
@pytest.mark.parametrize("targets, together", [([1], False), ([1], True), ([2, 0], True), ([0, 1, 2], True)])
def test_three_iterations_equal_autograd_and_sgd(fc_layers: int, targets: list[int], together: bool) -> None:
    config, heads = config_of(), random_heads(WIDTHS[fc_layers], targets=3)
    before, pool = copy_of(heads), Pool(heads=len(targets))
    tuner = FineTuner(heads, config, together=together)
    tuner.begin(targets, RATE)
    keep = tuner.new_keep()
    oracles = [Oracle(before, target, config) for target in targets]
    for i in range(3):
        batch = pool.batch(seed=i)
        losses = tuner.iterate(batch, keep)
        assert losses.tolist() == pytest.approx([o.iterate_on(batch, s) for s, o in enumerate(oracles)], rel=1e-12)
    tuner.finish()
    for target, oracle in zip(targets, oracles, strict=True):
        assert_head_equals(heads, target, oracle)
        moved = [(w - b).abs()[target].max() for w, b in zip(heads.weights, before.weights, strict=True)]
        assert min(moved) > 1e-3, "the steps must be large against the tolerance"
    for target in {0, 1, 2} - set(targets):
        pairs = zip(heads.parameters(), before.parameters(), strict=True)
        assert all(torch.equal(parameter[target], old[target]) for parameter, old in pairs)


@WAYS
def test_dropout_multiplies_the_hidden_layers_outputs(together: bool) -> None:
    """One set of units for all samples of a head: which sample comes where in the batch is nobody's business."""
    config, heads = config_of(), random_heads(WIDTHS[3], targets=2)
    targets = [1, 0] if together else [1]
    oracles = [Oracle(heads, target, config) for target in targets]
    tuner, pool = FineTuner(heads, config, together=together), Pool(heads=len(targets))
    tuner.begin(targets, RATE)
    for i in range(2):
        keep = random_keep(tuner, 0.4, seed=i)
        keep = keep[:, :, :1].expand_as(keep)
        assert 0 < keep.count_nonzero() < keep.numel()
        losses = tuner.iterate(pool.batch(i), keep).tolist()
        for s, oracle in enumerate(oracles):
            assert losses[s] == pytest.approx(oracle.iterate_on(pool.batch(i), s, keep[s]), rel=1e-12)
    tuner.finish()
    for target, oracle in zip(targets, oracles, strict=True):
        assert_head_equals(heads, target, oracle)


@WAYS
def test_an_iteration_of_the_real_size_in_float32(together: bool) -> None:
    config = TrackerConfig()
    targets = [0, 1] if together else [1]
    heads = Heads.for_targets(NetworkConfig(), {}, [torch.Generator().manual_seed(s) for s in (0, 1)])
    for weight in heads.weights:
        weight.mul_(3)  # scores that differ: with ties in float32 the two might mine different negatives
    oracles = [Oracle(heads, target, config, 5e-4) for target in targets]
    features = samples(1500, 4608, seed=1).float().relu() * 3
    rows = torch.arange(1500)
    batch = SampleRows(features, some(rows[:100], len(targets), 32, 3), some(rows[100:], len(targets), 1024, 4))
    tuner = FineTuner(heads, config, together=together)
    tuner.begin(targets, 5e-4)
    losses = tuner.iterate(batch, tuner.new_keep())
    tuner.finish()
    assert losses.tolist() == pytest.approx([o.iterate_on(batch, s) for s, o in enumerate(oracles)], rel=1e-5)
    for target, oracle in zip(targets, oracles, strict=True):
        # Sums of 128 to 4608 float32 products in another order: 1e-6 of the largest weight's size.
        assert_head_equals(heads, target, oracle, rtol=1e-5, atol=1e-6)


def test_three_heads_together_are_three_heads_alone() -> None:
    config, pool = config_of(), Pool(heads=3)
    alone = random_heads(WIDTHS[3], targets=3)
    for group in (alone.weights, alone.biases):
        group[:] = [parameter.float() for parameter in group]
    pool.features = pool.features.float()
    together = copy_of(alone)
    tuner = FineTuner(together, config, together=True)
    tuner.begin([2, 0, 1], RATE)
    keep = random_keep(tuner, 0.5)
    losses = [tuner.iterate(pool.batch(i), keep).clone() for i in range(4)]
    tuner.finish()
    single = FineTuner(alone, config, together=False)
    for s, target in enumerate([2, 0, 1]):
        single.begin([target], RATE)
        for i in range(4):
            features, positives, negatives = pool.batch(i)
            loss = single.iterate(SampleRows(features, positives[s : s + 1], negatives[s : s + 1]), keep[s : s + 1])
            torch.testing.assert_close(loss, losses[i][s : s + 1], rtol=1e-5, atol=1e-6)
        single.finish()
    for a, b in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@WAYS
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_mining_takes_exactly_the_highest_scores_without_dropout(dropout: float, together: bool) -> None:
    """Iterating over all the negatives does what iterating over only the hardest ones does."""
    heads, pool = random_heads(WIDTHS[3]), Pool()
    positives = torch.arange(6)[None]
    scores = Oracle(heads, 0, config_of()).logits(pool.features[30:70])[:, 1]
    hardest = 30 + scores.argsort(descending=True)[:10]
    results = []
    for mining, rows in ((40, torch.arange(30, 70)), (10, hardest), (10, torch.arange(30, 40))):
        config, changed = config_of(mining_negatives=mining), copy_of(heads)
        tuner = FineTuner(changed, config, together=together)
        tuner.begin([0], RATE)
        tuner.iterate(SampleRows(pool.features, positives, rows[None]), random_keep(tuner, dropout))
        tuner.finish()
        results.append(changed)
    all_of_them, only_hardest, others = results
    for a, b, c in zip(all_of_them.weights, only_hardest.weights, others.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert (a - c).abs().max() > 1e-5, "other negatives must make a difference"


@WAYS
def test_the_loss_is_the_batchs_before_the_step(together: bool) -> None:
    config, heads, batch = config_of(), random_heads(WIDTHS[3]), Pool().batch(0)
    before = Oracle(heads, 0, config)
    tuner = FineTuner(heads, config, together=together)
    tuner.begin([0], RATE)
    losses = tuner.iterate(batch, tuner.new_keep())
    tuner.finish()
    after = Oracle(heads, 0, config)
    assert losses.shape == (1,)
    assert losses.item() == pytest.approx(before.iterate_on(batch), rel=1e-12)
    assert losses.item() > after.iterate_on(batch) + 1e-3, "the step must lower this batch's loss"


# Beginning and stopping


@WAYS
def test_begin_takes_the_momentum_and_the_stops_away(together: bool) -> None:
    config, heads, batch = config_of(), random_heads(WIDTHS[3]), Pool().batch(0)
    tuner = FineTuner(heads, config, together=together)
    tuner.begin([0], RATE)
    keep = tuner.new_keep()
    for _ in range(3):
        tuner.iterate(batch, keep)
    tuner.stop(0)
    tuner.finish()
    oracle = Oracle(heads, 0, config, RATE / 2)
    tuner.begin([0], RATE / 2)
    tuner.iterate(batch, keep)
    tuner.finish()
    oracle.iterate_on(batch)
    assert_head_equals(heads, 0, oracle)


def test_a_head_that_has_stopped_stays_exactly_as_it_is() -> None:
    config, heads, pool = config_of(), random_heads(WIDTHS[3], targets=4), Pool(heads=3)
    untouched = copy_of(heads)
    oracles = [Oracle(heads, target, config) for target in (3, 0, 2)]
    tuner = FineTuner(heads, config, together=True)
    tuner.begin([3, 0, 2], RATE)
    keep = tuner.new_keep()
    for i in range(6):
        tuner.iterate(pool.batch(i), keep)
        for s, oracle in enumerate(oracles):
            if s != 1 or i < 2:
                oracle.iterate_on(pool.batch(i), s)
        if i == 1:
            tuner.stop(1)
            tuner.finish()
            stopped = [parameter[0].clone() for parameter in heads.parameters()]
    tuner.finish()
    for target, oracle in zip((3, 0, 2), oracles, strict=True):
        assert_head_equals(heads, target, oracle)
    assert all(torch.equal(p[0], s) for p, s in zip(heads.parameters(), stopped, strict=True))
    assert all(torch.equal(p[1], u[1]) for p, u in zip(heads.parameters(), untouched.parameters(), strict=True))


def test_a_head_stopped_alone_stays_as_it_is() -> None:
    config, heads, pool = config_of(), random_heads(WIDTHS[3]), Pool()
    tuner = FineTuner(heads, config, together=False)
    tuner.begin([0], RATE)
    tuner.iterate(pool.batch(0), tuner.new_keep())
    tuner.stop(0)
    before = copy_of(heads)
    tuner.iterate(pool.batch(1), tuner.new_keep())
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), before.parameters(), strict=True))


def test_groups_of_changing_size_do_not_disturb_each_other() -> None:
    config, heads = config_of(), random_heads(WIDTHS[3], targets=3)
    oracles = [Oracle(heads, target, config) for target in range(3)]
    tuner = FineTuner(heads, config, together=True)
    for group in ([0, 1, 2], [1], [2, 0], [1, 2]):
        batch = Pool(heads=len(group)).batch(seed=len(group))
        tuner.begin(group, RATE)
        for oracle in oracles:
            oracle.optimizer.state.clear()
        for _ in range(2):
            tuner.iterate(batch, tuner.new_keep())
            for s, target in enumerate(group):
                oracles[target].iterate_on(batch, s)
        tuner.finish()
    for target, oracle in enumerate(oracles):
        assert_head_equals(heads, target, oracle)


def test_one_head_at_a_time_takes_only_one() -> None:
    tuner = FineTuner(random_heads(WIDTHS[3], targets=2), config_of(), together=False)
    with pytest.raises(ValueError, match="too many values"):
        tuner.begin([0, 1], RATE)
