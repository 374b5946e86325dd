"""Dropout while tracking, and that what a head draws is its own."""

from __future__ import annotations

import torch
from counted_operations import CountedOperations
from scripted_tuner import CONFIG, ScriptedTuner, lessons, tune

from fdn_triton.fine_tuning import FineTuner
from fdn_triton.heads import Heads
from fdn_triton.online import Lesson, _batches, fine_tune


def test_what_a_head_draws_does_not_depend_on_the_others() -> None:
    """Rows, dropout and the generator's state afterwards, though the heads stop at different iterations."""
    losses = [[0.5, 0.5, 0.001], [0.001, 0.5, 0.5], [0.5, 0.001, 0.5]]
    together, group = ScriptedTuner(losses, together=True), lessons(3)
    fine_tune(together, torch.ones(300, 2), group, 0.1, 3, 0.01)
    for s, lesson in enumerate(lessons(3)):
        alone = ScriptedTuner([[loss[s]] for loss in losses])
        ((done, _),) = fine_tune(alone, torch.ones(300, 2), [lesson], 0.1, 3, 0.01)
        assert done == len(alone.steps) == (2, 3, 1)[s]
        for mine, ours in zip(alone.steps, together.steps, strict=False):
            assert [mine[0][0], mine[1][0]] == [ours[0][s], ours[1][s]]
            assert torch.equal(mine[2][0], ours[2][s])
            assert set(mine[2].unique().tolist()) == {0.0, 2.0}
        assert torch.equal(lesson.generator.get_state(), group[s].generator.get_state())


def test_an_iteration_takes_as_many_launches_for_many_heads_as_for_two() -> None:
    """What a GPU does, counted in operations on a CPU."""

    def operations(count: int, iterations: int) -> int:
        like = torch.ones(count, 1, 1)
        heads = Heads(
            [torch.randn(count, n, m) for n, m in ((6, 5), (6, 6), (2, 6))],
            [like.new_ones(count, n) for n in (6, 6, 2)],
        )
        tuner = FineTuner(heads, CONFIG, together=True)
        rows = torch.arange(200)
        group = [Lesson(t, rows[:100], rows[100:], torch.Generator().manual_seed(t)) for t in range(count)]
        fine_tune(tuner, torch.randn(200, 5), group, 0.1, 1, -1.0)  # the table of dropout is made once
        with CountedOperations() as counted:
            fine_tune(tuner, torch.randn(200, 5), group, 0.1, iterations, -1.0)
        return counted.operations

    few, many = ([operations(count, iterations) for iterations in (4, 9)] for count in (2, 12))
    assert many[1] - many[0] == few[1] - few[0] > 0


def test_dropout_is_drawn_anew_in_every_iteration() -> None:
    tuner = ScriptedTuner([[1.0]] * 3)
    tune(tuner, 3, None)
    assert all(set(keep.unique().tolist()) == {0.0, 2.0} for _, _, keep in tuner.steps)
    assert not torch.equal(tuner.steps[0][2], tuner.steps[1][2])


def test_without_dropout_nothing_is_drawn_for_it() -> None:
    with_some, without = ScriptedTuner([[1.0]] * 3), ScriptedTuner([[1.0]] * 3, dropout=0.0)
    lesson, dry = lessons()[0], lessons()[0]
    fine_tune(with_some, torch.ones(30, 2), [lesson], 0.1, 3, None)
    fine_tune(without, torch.ones(30, 2), [dry], 0.1, 3, None)
    assert [step[:2] for step in without.steps] == [step[:2] for step in with_some.steps]
    assert all((keep == 1).all() for _, _, keep in without.steps)
    only_batches = torch.Generator().manual_seed(0)
    _batches(torch.arange(7), 3, 3, only_batches)
    _batches(torch.arange(20), 3, 8, only_batches)
    assert torch.equal(dry.generator.get_state(), only_batches.get_state())
    assert not torch.equal(lesson.generator.get_state(), only_batches.get_state())


def test_torchs_global_random_state_is_not_touched() -> None:
    state = torch.get_rng_state()
    tune(ScriptedTuner([[1.0]] * 3), 3, None)
    assert torch.equal(torch.get_rng_state(), state)
