"""Dropout while tracking, and that what a head draws is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scripted_tuner import CONFIG, ScriptedTuner, lessons, tune
from torch.utils._python_dispatch import TorchDispatchMode

from fdn_triton.fine_tuning import FineTuner
from fdn_triton.heads import Heads
from fdn_triton.online import DropoutTable, Lesson, _batches, _draw_dropout, fine_tune


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
        assert torch.equal(lesson.generator.get_state(), group[s].generator.get_state())


def test_dropout_keeps_the_mean_and_drops_the_stated_share() -> None:
    for p in (0.5, 0.2):
        keep = torch.ones(2, 300, 500)
        _draw_dropout(keep, p, torch.Generator().manual_seed(1))
        assert set(keep.unique().tolist()) == {0.0, torch.tensor(1.0).div(1 - p).item()}
        # 150,000 draws a layer: 0.01 is more than seven standard deviations.
        assert (keep == 0).float().mean(dim=(1, 2)).tolist() == pytest.approx([p, p], abs=0.01)
        assert not torch.equal(keep[0], keep[1])


def test_the_table_gives_each_head_what_it_would_have_alone() -> None:
    table = DropoutTable(0.2, torch.device("cpu"), length=5000)
    seeds = (5, 3, 5)
    places = table.places(4, 600, [torch.Generator().manual_seed(seed) for seed in seeds])
    assert places.shape == (4, 3)
    together, alone = torch.ones(3, 2, 300), torch.ones(1, 2, 300)
    for number in range(4):
        table.read(places[number], together)
        assert set(together.unique().tolist()) == {0.0, 1.25}
        assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
        table.read(table.places(4, 600, [torch.Generator().manual_seed(3)])[number], alone)
        assert torch.equal(alone[0], together[1])


def test_the_table_drops_the_stated_share_everywhere() -> None:
    """Places are spread evenly up to the last, and all that is read keeps the mean."""
    for p in (0.5, 0.2):
        table, keep = DropoutTable(p, torch.device("cpu"), length=1 << 20), torch.empty(64, 2, 5000)
        places = table.places(1, 10_000, [torch.Generator().manual_seed(seed) for seed in range(64)])
        table.read(places[0], keep)
        assert (keep == 0).float().mean().item() == pytest.approx(p, abs=0.01)
        assert keep.mean().item() == pytest.approx(1, abs=0.01)
    small = DropoutTable(0.5, torch.device("cpu"), length=12)
    places = small.places(4000, 10, [torch.Generator().manual_seed(0)])
    # 4000 draws of one in three: five standard deviations are 149.
    assert (places.flatten().bincount(minlength=3) - 1333).abs().max() < 149
    last = torch.empty(1, 1, 10)
    small.read(torch.tensor([2]), last)
    assert torch.equal(last.flatten(), small._row[2:])


def test_heads_together_draw_dropout_from_the_table_as_each_alone() -> None:
    """Though they stop at different iterations: rows, dropout and the generators afterwards."""
    losses = [[0.5, 0.5, 0.001], [0.001, 0.5, 0.5], [0.5, 0.001, 0.5]]
    table = DropoutTable(0.5, torch.device("cpu"), length=1000)
    together, group = ScriptedTuner(losses, together=True), lessons(3)
    fine_tune(together, torch.ones(300, 2), group, 0.1, 3, 0.01, table)
    for s, lesson in enumerate(lessons(3)):
        alone = ScriptedTuner([[loss[s]] for loss in losses])
        fine_tune(alone, torch.ones(300, 2), [lesson], 0.1, 3, 0.01, table)
        for mine, ours in zip(alone.steps, together.steps, strict=False):
            assert [mine[0][0], mine[1][0]] == [ours[0][s], ours[1][s]]
            assert torch.equal(mine[2][0], ours[2][s])
            assert set(mine[2].unique().tolist()) == {0.0, 2.0}
        assert torch.equal(lesson.generator.get_state(), group[s].generator.get_state())


def test_an_iteration_takes_as_many_launches_for_many_heads_as_for_two() -> None:
    """What a GPU does, counted in operations on a CPU."""

    class Counted(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += 1
            return func(*args, **(kwargs or {}))

    def operations(count: int, iterations: int) -> int:
        like = torch.ones(count, 1, 1)
        heads = Heads(
            [torch.randn(count, n, m) for n, m in ((6, 5), (6, 6), (2, 6))],
            [like.new_ones(count, n) for n in (6, 6, 2)],
        )
        tuner = FineTuner(heads, CONFIG, together=True)
        rows, table = torch.arange(200), DropoutTable(0.5, torch.device("cpu"), length=1000)
        group = [Lesson(t, rows[:100], rows[100:], torch.Generator().manual_seed(t)) for t in range(count)]
        with Counted() as counted:
            fine_tune(tuner, torch.randn(200, 5), group, 0.1, iterations, -1.0, table)
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
