"""The sample memory, and the batches that are drawn from it."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_tuner import ScriptedTuner, tune

from fdn_triton.online import SampleMemory, _batches


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_memory_is_a_list_of_the_last_frames(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 6), label="frames")
    rows = data.draw(st.integers(1, 5), label="rows a frame")
    first_rows = data.draw(st.integers(1, 12), label="rows of the first frame")
    capacity = SampleMemory.capacity_of(frames, rows, first_rows)
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


def test_batches_have_the_configured_sizes_and_repeat_with_the_seed() -> None:
    first, again, other = (ScriptedTuner([[1.0]] * 4) for _ in range(3))
    tune(first, 4, None)
    tune(again, 4, None)
    tune(other, 4, None, seed=1)
    assert [(len(p[0]), len(n[0])) for p, n, _ in first.steps] == [(3, 8)] * 4
    rows = [[step[:2] for step in tuner.steps] for tuner in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(first.steps, again.steps, strict=True))
