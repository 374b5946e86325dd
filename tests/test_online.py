"""Learning while tracking: the sample memory, the batches, and when fine-tuning stops."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fdn_triton.config import TrackerConfig
from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import Heads
from fdn_triton.online import DropoutTable, Lesson, SampleMemory, _batches, _draw_dropout, fine_tune


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_memory_is_a_list_of_the_last_frames(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 6), label="frames")
    rows = data.draw(st.integers(1, 5), label="rows a frame")
    first_rows = data.draw(st.integers(1, 12), label="rows of the first frame")
    capacity = SampleMemory.capacity(frames, rows, first_rows)
    assert capacity == (frames - 1) * rows + max(first_rows, rows)
    pool = torch.full((3 * capacity, 2), math.nan)
    memory, other = (SampleMemory(pool, i * capacity, frames, rows, first_rows) for i in (1, 2))

    model: list[list[list[float]]] = []
    value = 0.0  # every row ever stored is different, so that a stale or overwritten one shows
    for i in range(data.draw(st.integers(1, 25), label="appended")):
        limit = max(rows, first_rows) if i == 0 else rows
        count = data.draw(st.one_of(st.just(limit), st.integers(1, limit)), label=f"count {i}")
        frame = [[value + j, -value - j] for j in range(count)]
        value += count
        memory.append(torch.tensor(frame))
        other.append(-torch.tensor(frame))
        model = [*model, frame][-frames:]

        assert len(memory) == len(other) == len(model)
        for n in range(1, frames + 2):
            held = [row for frame in model[-n:] for row in frame]
            assert pool[memory.of_last(n)].tolist() == held
            assert (-pool[other.of_last(n)]).tolist() == held
    assert pool[:capacity].isnan().all(), "a memory keeps to its rows of the pool"


def test_the_memory_does_not_keep_what_it_was_given() -> None:
    pool = torch.zeros(6, 1)
    memory = SampleMemory(pool, 0, 2, 3, 3)
    given_rows = torch.tensor([[1.0], [2.0]])
    memory.append(given_rows)
    given_rows.zero_()
    assert pool[memory.of_last(1)].tolist() == [[1.0], [2.0]]


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 30), count=st.integers(1, 12), size=st.integers(1, 40), seed=st.integers(0, 99))
def test_batches_pass_through_all_samples_before_any_repeats(n: int, count: int, size: int, seed: int) -> None:
    rows = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:n]
    batches = _batches(rows, count, size, torch.Generator().manual_seed(seed))
    assert batches.shape == (count, size)
    sequence = batches.flatten().tolist()
    for start in range(0, len(sequence), n):
        one_pass = sequence[start : start + n]
        assert len(set(one_pass)) == len(one_pass), "a sample came twice in one pass"
        assert set(one_pass) <= set(rows.tolist())
        if len(one_pass) == n:
            assert set(one_pass) == set(rows.tolist())


def test_batches_are_shuffled_anew_in_every_pass_and_repeat_with_the_seed() -> None:
    rows = torch.arange(50)
    first, second, third = _batches(rows, 3, 50, torch.Generator().manual_seed(0)).tolist()
    assert first != second != third != first
    assert first != sorted(first)
    again = _batches(rows, 3, 50, torch.Generator().manual_seed(0))
    other = _batches(rows, 3, 50, torch.Generator().manual_seed(1))
    assert again.tolist() == [first, second, third]
    assert other[0].tolist() != first


def test_every_sample_is_equally_likely_to_come_first() -> None:
    generator = torch.Generator().manual_seed(0)
    firsts = torch.tensor([int(_batches(torch.arange(4), 1, 1, generator)) for _ in range(2000)])
    # 2000 draws of one in four: five standard deviations are 97.
    assert (firsts.bincount(minlength=4) - 500).abs().max() < 97


CONFIG = TrackerConfig(batch_positives=3, batch_negatives=4, mining_negatives=8)


class ScriptedTuner(FineTuner):
    """Returns the given losses, of each head, and writes down what it is told."""

    def __init__(self, losses: Sequence[Sequence[float]], together: bool = False, dropout: float = 0.5) -> None:
        heads = Heads(
            [torch.ones(5, 4, 2), torch.ones(5, 4, 4), torch.ones(5, 2, 4)], [torch.ones(5, n) for n in (4, 4, 2)]
        )
        super().__init__(heads, dataclasses.replace(CONFIG, dropout=dropout), together=together)
        self.losses = list(losses)
        self.told: list[object] = []
        self.steps: list[tuple[list[list[int]], list[list[int]], Tensor]] = []

    def begin(self, targets: Sequence[int], learning_rate: float) -> None:
        super().begin(targets, learning_rate)
        self.told.append((list(targets), learning_rate))

    def iterate(self, samples: SampleRows, keep: Tensor) -> Tensor:
        self.steps.append((samples.positives.tolist(), samples.negatives.tolist(), keep.clone()))
        self.told.append("step")
        return torch.tensor(self.losses[len(self.steps) - 1])

    def stop(self, head: int) -> None:
        self.told.append(f"stop {head}")

    def finish(self) -> None:
        self.told.append("finish")


def lessons(count: int = 1, seed: int = 0) -> list[Lesson]:
    """Targets 3, 2, ... with rows of their own and equal generators."""
    return [
        Lesson(3 - s, 100 * s + torch.arange(7), 100 * s + 10 + torch.arange(20), torch.Generator().manual_seed(seed))
        for s in range(count)
    ]


def tune(tuner: FineTuner, iterations: int, threshold: float | None, seed: int = 0) -> tuple[int, float]:
    (result,) = fine_tune(tuner, torch.ones(30, 2), lessons(seed=seed), 0.1, iterations, threshold)
    return result


# When it stops


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
    assert tuner.told == [([3, 2, 1], 0.1), "step", "stop 1", "step", "stop 2", "step", "stop 0", "finish"]


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
        rows, dropout = torch.arange(200), DropoutTable(CONFIG.dropout, torch.device("cuda"))
        group = [Lesson(t, rows[:100], rows[100:], torch.Generator().manual_seed(t)) for t in (2, 0)]
        fine_tune(tuner, features, group, 0.1, 1, None, dropout)  # captures
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                fine_tune(tuner, features, group, 0.1, iterations, 0.0, dropout)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return len(warned)

    assert 0 < waits(9) - waits(4) <= 5


# What is drawn


def test_batches_have_the_configured_sizes_and_repeat_with_the_seed() -> None:
    first, again, other = (ScriptedTuner([[1.0]] * 4) for _ in range(3))
    tune(first, 4, None)
    tune(again, 4, None)
    tune(other, 4, None, seed=1)
    assert [(len(p[0]), len(n[0])) for p, n, _ in first.steps] == [(3, 8)] * 4
    rows = [[step[:2] for step in tuner.steps] for tuner in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(first.steps, again.steps, strict=True))


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
