"""When fine-tuning while tracking stops, of one head and of several together."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from scripted_tuner import CONFIG, ScriptedTuner, lessons, tune

from fdn_triton.fine_tuning import FineTuner
from fdn_triton.heads import Heads
from fdn_triton.online import Lesson, fine_tune


def test_the_first_loss_below_the_threshold_ends_it_and_its_step_counts() -> None:
    tuner = ScriptedTuner([[0.5], [0.0625], [0.05], [0.5], [0.001]])
    assert tune(tuner, 5, 0.0625) == (3, pytest.approx(0.05))
    assert len(tuner.steps) == 3, "equal to the threshold is not below; the step of the last iteration is taken"
    assert tuner.told[-1] == "finish"


def test_a_first_loss_below_the_threshold_is_one_iteration() -> None:
    tuner = ScriptedTuner([[0.001], [1.0]])
    assert tune(tuner, 2, 0.01) == (1, pytest.approx(0.001))
    assert len(tuner.steps) == 1


def test_without_a_loss_below_the_threshold_all_iterations_run() -> None:
    tuner = ScriptedTuner([[0.5], [math.nan], [0.3], [0.2]])
    assert tune(tuner, 4, 0.01) == (4, pytest.approx(0.2))
    assert len(tuner.steps) == 4


def test_without_a_threshold_all_iterations_run() -> None:
    tuner = ScriptedTuner([[0.0], [0.0], [0.125]])
    assert tune(tuner, 3, None) == (3, 0.125)
    assert len(tuner.steps) == 3


@pytest.mark.parametrize("threshold", [None, 0.01])
@pytest.mark.parametrize("together", [False, True])
def test_no_iterations(threshold: float | None, together: bool) -> None:
    tuner = ScriptedTuner([], together)
    results = fine_tune(tuner, torch.ones(30, 2), lessons(2), 0.1, 0, threshold)
    assert [done for done, _ in results] == [0, 0]
    assert all(math.isnan(loss) for _, loss in results)
    assert tuner.told == []


@pytest.mark.parametrize("together", [False, True])
def test_no_lessons(together: bool) -> None:
    tuner = ScriptedTuner([], together)
    assert fine_tune(tuner, torch.ones(30, 2), [], 0.1, 5, None) == []
    assert tuner.told == []


def test_heads_together_stop_one_by_one() -> None:
    tuner = ScriptedTuner([[0.5, 0.005, 0.5], [0.4, 9.0, 0.009], [0.001, 0.3, 0.3], [0.0, 0.0, 0.0]], together=True)
    results = fine_tune(tuner, torch.ones(300, 2), lessons(3), 0.1, 4, 0.01)
    assert results == [(3, pytest.approx(0.001)), (1, pytest.approx(0.005)), (2, pytest.approx(0.009))]
    assert tuner.told == [([3, 2, 1], 0.1), "step", "stop 1", "step", "stop 2", "step", "finish"]


def test_heads_together_without_a_threshold_report_their_last_losses() -> None:
    tuner = ScriptedTuner([[0.0, 0.0], [0.25, 0.5]], together=True)
    assert fine_tune(tuner, torch.ones(300, 2), lessons(2), 0.1, 2, None) == [(2, 0.25), (2, 0.5)]
    assert tuner.told == [([3, 2], 0.1), "step", "step", "finish"]


def test_heads_apart_are_trained_one_after_the_other() -> None:
    tuner = ScriptedTuner([[0.005], [0.5], [0.006]])
    assert fine_tune(tuner, torch.ones(300, 2), lessons(2), 0.1, 3, 0.01) == [
        (1, pytest.approx(0.005)),
        (2, pytest.approx(0.006)),
    ]
    assert [told for told in tuner.told if isinstance(told, tuple)] == [([3], 0.1), ([2], 0.1)]
    assert tuner.told.count("finish") == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_waits_for_a_gpu_once_an_iteration_at_most() -> None:
    def waits(iterations: int) -> int:
        generator = torch.Generator("cuda").manual_seed(0)
        features = torch.randn(200, 20, device="cuda", generator=generator)
        weights = [torch.randn(3, n, m, device="cuda", generator=generator) for n, m in ((16, 20), (16, 16), (2, 16))]
        heads = Heads(weights, [torch.ones(3, n, device="cuda") for n in (16, 16, 2)])
        tuner = FineTuner(heads, CONFIG, together=True, captured=features)
        rows = torch.arange(200)
        group = [Lesson(t, rows[:100], rows[100:], torch.Generator().manual_seed(t)) for t in (2, 0)]
        fine_tune(tuner, features, group, 0.1, 1, None)  # captures
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                fine_tune(tuner, features, group, 0.1, iterations, 0.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return len(warned)

    assert 0 < waits(9) - waits(4) <= 5


@pytest.mark.parametrize("together", [False, True])
def test_the_last_iterations_step_is_in_the_weights(together: bool) -> None:
    """A loss below the threshold at once changes the real head exactly as one iteration without threshold does."""
    changed = []
    for iterations, threshold in ((10, 1e9), (1, None), (0, None)):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(1, 3, 2, generator=generator), torch.randn(1, 2, 3, generator=generator)]
        heads = Heads(weights, [torch.ones(1, 3), torch.zeros(1, 2)])
        tuner = FineTuner(heads, dataclasses.replace(CONFIG, dropout=0), together=together)
        features = torch.ones(30, 2)
        features[10:] = -1
        lesson = lessons()[0]._replace(target=0)
        ((done, _),) = fine_tune(tuner, features, [lesson], 0.1, iterations, threshold)
        assert done == min(iterations, 1)
        changed.append(heads.weights[0])
    # The batches are drawn for all iterations at once, here all samples are alike.
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])
