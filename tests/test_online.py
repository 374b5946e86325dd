"""Learning while tracking: the sample memory, the batches, and when fine-tuning stops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fdn_triton.config import TrackerConfig
from fdn_triton.heads import FineTuner, Heads, SampleRows
from fdn_triton.online import SampleMemory, _batches, all_rows, fine_tune

CPU = torch.device("cpu")


def contents(samples: SampleRows) -> list[list[float]]:
    return samples.features[samples.rows].tolist()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_memory_is_a_list_of_the_last_frames(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 6), label="frames")
    rows = data.draw(st.integers(1, 5), label="rows a frame")
    first_rows = data.draw(st.integers(1, 12), label="rows of the first frame")
    memory = SampleMemory(frames, rows, first_rows, width=2, device=CPU)
    storage, capacity = memory.features.data_ptr(), memory.features.shape
    assert capacity == ((frames - 1) * rows + max(first_rows, rows), 2)

    model: list[list[list[float]]] = []
    value = 0.0  # every row ever stored is different, so that a stale or overwritten one shows
    for i in range(data.draw(st.integers(1, 25), label="appended")):
        limit = max(rows, first_rows) if i == 0 else rows
        count = data.draw(st.one_of(st.just(limit), st.integers(1, limit)), label=f"count {i}")
        frame = [[value + j, -value - j] for j in range(count)]
        value += count
        memory.append(torch.tensor(frame))
        model = [*model, frame][-frames:]

        assert len(memory) == len(model)
        for n in range(1, frames + 2):
            assert contents(memory.of_last(n)) == [row for held in model[-n:] for row in held]
    assert memory.features.data_ptr() == storage, "the memory must not move"
    assert memory.features.shape == capacity


def test_the_memory_does_not_keep_what_it_was_given() -> None:
    memory = SampleMemory(2, 3, 3, width=1, device=CPU)
    given_rows = torch.tensor([[1.0], [2.0]])
    memory.append(given_rows)
    given_rows.zero_()
    assert contents(memory.of_last(1)) == [[1.0], [2.0]]


def test_all_rows_are_all_rows() -> None:
    features = torch.arange(6.0).reshape(3, 2)
    assert contents(all_rows(features)) == features.tolist()


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 30), count=st.integers(1, 12), size=st.integers(1, 40), seed=st.integers(0, 99))
def test_batches_pass_through_all_samples_before_any_repeats(n: int, count: int, size: int, seed: int) -> None:
    features = torch.arange(100.0)[:, None]
    rows = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:n]
    batches = _batches(SampleRows(features, rows), count, size, torch.Generator().manual_seed(seed))
    assert [len(batch.rows) for batch in batches] == [size] * count
    sequence = torch.cat([batch.rows for batch in batches]).tolist()
    for start in range(0, len(sequence), n):
        one_pass = sequence[start : start + n]
        assert len(set(one_pass)) == len(one_pass), "a sample came twice in one pass"
        assert set(one_pass) <= set(rows.tolist())
        if len(one_pass) == n:
            assert set(one_pass) == set(rows.tolist())


def test_batches_are_shuffled_anew_in_every_pass_and_repeat_with_the_seed() -> None:
    samples = all_rows(torch.zeros(50, 1))
    first, second, third = (batch.rows.tolist() for batch in _batches(samples, 3, 50, torch.Generator().manual_seed(0)))
    assert first != second != third != first
    assert first != sorted(first)
    again = _batches(samples, 3, 50, torch.Generator().manual_seed(0))
    other = _batches(samples, 3, 50, torch.Generator().manual_seed(1))
    assert [batch.rows.tolist() for batch in again] == [first, second, third]
    assert other[0].rows.tolist() != first


def test_every_sample_is_equally_likely_to_come_first() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = all_rows(torch.zeros(4, 1))
    firsts = torch.tensor([int(_batches(samples, 1, 1, generator)[0].rows) for _ in range(2000)])
    # 2000 draws of one in four: five standard deviations are 97.
    assert (firsts.bincount(minlength=4) - 500).abs().max() < 97


class ScriptedTuner(FineTuner):
    """Returns the given losses and counts its steps."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses = list(losses)
        self.steps: list[tuple[list[int], list[int]]] = []

    def iterate(self, positives: SampleRows, negatives: SampleRows, generator: torch.Generator) -> Tensor:
        self.steps.append((positives.rows.tolist(), negatives.rows.tolist()))
        return torch.tensor(self.losses[len(self.steps) - 1])


def tune(tuner: FineTuner, iterations: int, threshold: float | None, seed: int = 0) -> tuple[int, float]:
    config = TrackerConfig(batch_positives=3, batch_negatives=4, mining_negatives=8)
    positives, negatives = all_rows(torch.ones(7, 2)), all_rows(-torch.ones(20, 2))
    generator = torch.Generator().manual_seed(seed)
    return fine_tune(tuner, positives, negatives, iterations, threshold, config, generator)


def test_the_first_loss_below_the_threshold_ends_it_and_its_step_counts() -> None:
    tuner = ScriptedTuner([0.5, 0.0625, 0.05, 0.5, 0.001])
    assert tune(tuner, 5, 0.0625) == (3, pytest.approx(0.05))
    assert len(tuner.steps) == 3, "equal to the threshold is not below; the step of the last iteration is taken"


def test_a_first_loss_below_the_threshold_is_one_iteration() -> None:
    tuner = ScriptedTuner([0.001, 1.0])
    assert tune(tuner, 2, 0.01) == (1, pytest.approx(0.001))
    assert len(tuner.steps) == 1


def test_without_a_loss_below_the_threshold_all_iterations_run() -> None:
    tuner = ScriptedTuner([0.5, 0.4, 0.3, 0.2])
    assert tune(tuner, 4, 0.01) == (4, pytest.approx(0.2))
    assert len(tuner.steps) == 4


def test_without_a_threshold_all_iterations_run() -> None:
    tuner = ScriptedTuner([0.0, 0.0, 0.125])
    assert tune(tuner, 3, None) == (3, 0.125)
    assert len(tuner.steps) == 3


@pytest.mark.parametrize("threshold", [None, 0.01])
def test_no_iterations(threshold: float | None) -> None:
    tuner = ScriptedTuner([])
    done, loss = tune(tuner, 0, threshold)
    assert done == 0
    assert math.isnan(loss)
    assert tuner.steps == []


def test_batches_have_the_configured_sizes_and_repeat_with_the_seed() -> None:
    first, again, other = (ScriptedTuner([1.0] * 4) for _ in range(3))
    tune(first, 4, None)
    tune(again, 4, None)
    tune(other, 4, None, seed=1)
    assert [(len(p), len(n)) for p, n in first.steps] == [(3, 8)] * 4
    assert first.steps == again.steps != other.steps


def test_the_last_iterations_step_is_in_the_weights() -> None:
    """A loss below the threshold at once changes the real head exactly as one iteration without threshold does."""
    changed = []
    for iterations, threshold in ((10, 1e9), (1, None), (0, None)):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(1, 3, 2, generator=generator), torch.randn(1, 2, 3, generator=generator)]
        heads = Heads(weights, [torch.ones(1, 3), torch.zeros(1, 2)])
        config = TrackerConfig(batch_positives=3, batch_negatives=4, mining_negatives=8, dropout=0)
        tuner = FineTuner(heads, config)
        tuner.begin(0, 0.1)
        done, _ = tune(tuner, iterations, threshold)
        assert done == min(iterations, 1)
        changed.append(heads.weights[0])
    # The batches are drawn for all iterations at once, here all samples are alike.
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])
