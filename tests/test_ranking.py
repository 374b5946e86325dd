"""The highest scores found by way of bf16 are those of exact products, or it is noticed that they might not be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from moving_patch import boxes_of, follow, tracker_of
from torch import Tensor

from fdn_triton import host_search, targets
from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import Heads
from fdn_triton.ranking import are_highest, likely_highest, saves, scores_exact_where_highest
from fdn_triton.weights import load_weights


@pytest.fixture(scope="module")
def head() -> Heads:
    return Heads.for_targets(
        NetworkConfig(), load_weights("fdn", NetworkConfig()).tensors, [torch.Generator().manual_seed(1)]
    )


def features(rows: int) -> Tensor:
    """As large as the trackers'."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4608, generator=g).relu() * 8 + torch.randn(rows, 1, generator=g)


def test_rows_that_are_left_out_must_be_far_below() -> None:
    """Scores 9, 8 ... 0, of which the two highest are wanted and four are looked at."""
    rough, likely = torch.arange(10.0).flip(0), torch.arange(4)
    for error, certain in ((0.0, True), (0.24, True), (0.26, False), (math.nan, False)):
        # The second highest is 8, the lowest that was looked at 6, the others at most that: 2 lie between, 8 errors.
        exact = rough[:4] - torch.tensor([0.0, 0.0, 0.0, error])
        assert are_highest(rough, likely, exact, 2) is certain, error


def test_likely_rows_are_the_highest_and_some_more() -> None:
    rough = torch.randn(500, generator=torch.Generator().manual_seed(0))
    assert set(likely_highest(rough, 5).tolist()) == set(rough.argsort(descending=True)[: 5 + 64].tolist())
    assert saves(70, 5) and not saves(69, 5)


def test_rough_scores_are_near_the_exact_ones(head: Heads) -> None:
    x = features(300)
    exact = head.scores(x[None])[0]
    error = (head.scores(x.bfloat16()[None])[0] - exact).abs().max()
    assert 0 < float(error) < 0.05 * float(exact.std())


@pytest.mark.parametrize("rows", [5, 60, 400])
def test_the_best_are_scored_exactly(head: Heads, rows: int) -> None:
    x = features(rows)[None]
    exact, scores = head.scores(x).topk(5), scores_exact_where_highest(head, x, 5).topk(5)
    assert torch.equal(scores.indices, exact.indices)
    torch.testing.assert_close(scores.values, exact.values, rtol=1e-5, atol=1e-5)


def test_where_many_are_alike_all_are_scored_exactly(head: Heads) -> None:
    """Rows that differ by less than bf16 can tell: the rough order says nothing."""
    x = (features(1).expand(300, -1) * (1 + 1e-4 * torch.arange(300.0)[:, None]))[None].contiguous()
    assert torch.equal(scores_exact_where_highest(head, x, 5), head.scores(x))


def test_the_same_negatives_are_mined(head: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with them the same is learnt; in the batch they come in the same order."""
    g, x = torch.Generator().manual_seed(2), features(700)
    rows = [(torch.randperm(100, generator=g)[:32], 100 + torch.randperm(600, generator=g)[:512]) for _ in range(3)]
    learnt, certain = [], []

    def noticed(*arguments: object) -> bool:
        certain.append(are_highest(*arguments))  # type: ignore[arg-type]
        return certain[-1]

    monkeypatch.setattr("fdn_triton.fine_tuning.are_highest", noticed)
    for rough in (False, True):
        heads = Heads([w.clone() for w in head.weights], [b.clone() for b in head.biases])
        tuner = FineTuner(heads, TrackerConfig(mining_negatives=512), together=False, rough=rough)
        tuner.begin([0], 5e-4)
        for positives, negatives in rows:
            tuner.iterate(SampleRows(x, positives[None], negatives[None]), tuner.new_keep())
        learnt.append(heads)
    assert len(certain) == 3 and any(certain)
    for one, other, before in zip(*(heads.parameters() for heads in learnt), head.parameters(), strict=True):
        assert float((one - before).abs().max()) > 0
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)


def test_boxes_are_the_same_on_cpus_with_and_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    tracks, calls, original = [], [], host_search.scores_exact_where_highest
    monkeypatch.setattr(host_search, "scores_exact_where_highest", lambda *each: calls.append(1) or original(*each))
    for multiplies in (False, True):
        monkeypatch.setattr(targets, "cpu_multiplies_bf16", lambda multiplies=multiplies: multiplies)
        tracks.append(boxes_of(follow(tracker_of(candidates=256, mining_negatives=256), 4)))
        assert len(calls) == 3 * multiplies
    np.testing.assert_allclose(tracks[1], tracks[0], rtol=0, atol=1e-2)
