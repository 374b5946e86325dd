"""Captured sequences: on a GPU, and with a recording in the graph's place."""

from __future__ import annotations

import pytest
import torch
from recorded_graphs import recorded_graphs
from torch import Tensor

from fdn_triton.cuda_graph import CapturedSequence

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Counter:
    """Adds up its inputs in a tensor of its own."""

    def __init__(self, device: str) -> None:
        self.total = torch.zeros(3, device=device)
        self.calls = 0

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        self.total.add_(x * y)
        return self.total * 2


def check_that_it_adds_up(device: str) -> None:
    counter = Counter(device)
    x, y = torch.tensor([1.0, 2.0, 3.0], device=device), torch.tensor(10.0, device=device)
    captured = CapturedSequence(counter.add, (x, y), changed=[counter.total])
    assert counter.total.tolist() == [0, 0, 0], "neither trying out nor capturing may count"
    calls = counter.calls
    assert captured(x, y).tolist() == [20, 40, 60]
    assert captured(x + 1, y / 10).tolist() == [24, 46, 68]
    assert x.tolist() == [1, 2, 3]
    counter.total.zero_()
    assert captured(x, y).tolist() == [20, 40, 60]
    assert counter.total.tolist() == [10, 20, 30]
    assert counter.calls == calls, "a replay does not come back to Python"

    other = CapturedSequence(counter.add, (x[:1], y), changed=[counter.total], shares_with=captured)
    assert other(x[:1], y).tolist() == [40, 60, 80]
    assert captured(x, y).tolist() == [60, 100, 140]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        captured(x)


def test_a_recorded_sequence_adds_up() -> None:
    with recorded_graphs() as graphs:
        check_that_it_adds_up("cpu")
    assert [graph.replays for graph in graphs] == [4, 1]


@needs_gpu
def test_a_captured_sequence_adds_up() -> None:
    check_that_it_adds_up("cuda")


@needs_gpu
def test_what_waits_cannot_be_captured() -> None:
    with pytest.raises(RuntimeError):
        CapturedSequence(lambda x: x + x.sum().item(), (torch.ones(3, device="cuda"),), changed=[])
