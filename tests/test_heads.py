"""The heads: their start values, and their scores."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fdn_triton.config import NetworkConfig
from fdn_triton.heads import Heads

WIDTHS = {3: (20, 16, 12, 2), 2: (20, 16, 2)}


def random_heads(widths: tuple[int, ...], targets: int = 1, seed: int = 0) -> Heads:
    g = torch.Generator().manual_seed(seed)
    pairs = list(pairwise(widths))
    weights = [torch.randn(targets, n, m, generator=g, dtype=torch.float64) * m**-0.5 for m, n in pairs]
    biases = [torch.randn(targets, n, generator=g, dtype=torch.float64) * 0.2 for _, n in pairs]
    return Heads(weights, biases)


def samples(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("fc_layers", [3, 2])
def test_scores_are_the_target_column_before_softmax(fc_layers: int) -> None:
    heads = random_heads(WIDTHS[fc_layers], targets=3)
    features = torch.stack([samples(7, 20, seed) for seed in range(3)])
    scores = heads.scores(features)
    for t in range(3):
        x = features[t]
        for i, (weight, bias) in enumerate(zip(heads.weights, heads.biases, strict=True)):
            x = torch.nn.functional.linear(x if i == 0 else x.relu(), weight[t], bias[t])
        torch.testing.assert_close(scores[t], x[:, 1], rtol=1e-12, atol=1e-12)


def test_some_of_the_heads_are_views() -> None:
    heads = random_heads(WIDTHS[3], targets=4)
    part = heads[1:3]
    assert (len(heads), len(part)) == (4, 2)
    features = torch.stack([samples(5, 20, seed) for seed in range(4)])
    torch.testing.assert_close(part.scores(features[1:3]), heads.scores(features)[1:3], rtol=1e-12, atol=1e-12)
    assert len(part.parameters()) == 6
    for parameter in part.parameters():
        parameter.zero_()
    assert all(parameter[1:3].count_nonzero() == 0 for parameter in heads.parameters())
    assert all(parameter[0].any() and parameter[3].any() for parameter in heads.parameters())


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
    assert torch.equal(torch.get_rng_state(), state)
