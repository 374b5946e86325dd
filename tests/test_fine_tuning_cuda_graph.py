"""What a CUDA graph needs of fine-tuning iterations: nothing that waits, and the same operations in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from narrow_heads import RATE, WIDTHS, Pool, config_of, copy_of, random_heads, random_keep
from recorded_graphs import recorded_graphs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fdn_triton.fine_tuning import FineTuner, SampleRows
from fdn_triton.heads import Heads

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WAITS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "_unique2", "equal")
DRAWS = ("bernoulli", "normal", "uniform", "rand", "native_dropout", "multinomial")


class NothingThatWaits(TorchDispatchMode):
    """Fails on operations that make the host wait for a GPU, that take values from the host, or that draw."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.names.append(name)
        assert not name.startswith(WAITS), f"{name} waits"
        assert not name.startswith(DRAWS), f"{name} draws"
        assert name != "lift_fresh", "a tensor of values from the host"
        if name.lstrip("_").startswith("index"):
            indices = [i for arg in args for i in (arg if isinstance(arg, (list, tuple)) else [arg])][1:]
            assert all(i.dtype != torch.bool for i in indices if isinstance(i, Tensor)), "a mask as index waits"
        assert name != "_to_copy" or "device" not in (kwargs or {}), "a copy to another device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x[0] > 0),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x.clone().bernoulli_(0.5),
        lambda x: torch.randperm(3),
        lambda x: F.one_hot(x.long()),
        lambda x: x.to("meta"),
    ],
)
def test_the_watch_sees_what_waits(waits: Any) -> None:
    with pytest.raises(AssertionError), NothingThatWaits():
        waits(torch.zeros(3))


@pytest.mark.parametrize("targets", [[1], [2, 0, 1]])
def test_an_iteration_together_waits_for_nothing_and_stays_in_place(targets: list[int]) -> None:
    heads, pool = random_heads(WIDTHS[3], targets=3), Pool(heads=len(targets))
    tuner = FineTuner(heads, config_of(), together=True)

    def addresses() -> list[int]:
        state = [*tuner._trained.parameters(), *tuner._velocities, *tuner._bias_velocities, tuner._rates]
        return [tensor.data_ptr() for tensor in state]

    tuner.begin(targets, RATE)
    keep, batches, before = tuner.new_keep(), [pool.batch(0), pool.batch(1)], addresses()
    with NothingThatWaits() as watch:
        tuner.iterate(batches[0], keep)
        tuner.stop(0)
        tuner.iterate(batches[1], keep)
    assert len(watch.names) > 60
    assert addresses() == before
    tuner.finish()
    tuner.begin(targets[::-1], RATE / 2)
    assert addresses() == before, "another group of as many heads uses the same graph"


def test_an_iteration_together_reads_no_value() -> None:
    """Tensors on the meta device have none: what asks for one fails."""
    weights, biases = random_heads(WIDTHS[3], targets=3).weights, random_heads(WIDTHS[3], targets=3).biases
    heads = Heads([w.to("meta") for w in weights], [b.to("meta") for b in biases])
    tuner = FineTuner(heads, config_of(), together=True)
    tuner.begin([2, 0], RATE)
    batch = SampleRows(*(tensor.to("meta") for tensor in Pool(heads=2).batch(0)))
    losses = tuner.iterate(batch, tuner.new_keep())
    with pytest.raises((NotImplementedError, RuntimeError)):
        losses.tolist()


def fine_tuned(heads: Heads, pool: Pool, captured: bool) -> tuple[Heads, list[list[float]]]:
    """Groups of several sizes at several rates, one head stopping early: what became of the heads, and the losses."""
    groups = (([0, 2], RATE), ([1], RATE), ([2, 1], RATE / 2), ([0, 1, 2], RATE), ([0], RATE / 2))
    heads, losses = copy_of(heads), []
    tuner = FineTuner(heads, config_of(), together=True, captured=pool.features if captured else None)
    for i, (group, rate) in enumerate(groups):
        tuner.begin(group, rate)
        pool.heads = len(group)
        for j in range(3):
            losses.append(tuner.iterate(pool.batch(10 * i + j), random_keep(tuner, 0.5, seed=j)).tolist())
            if j == 0 and len(group) > 1:
                tuner.stop(1)
        tuner.finish()
    return heads, losses


def test_the_same_operations_on_the_same_memory_are_every_later_iteration() -> None:
    """A recording stands in for the graph: nothing but the inputs and the memory may decide what an iteration does."""
    heads = random_heads(WIDTHS[3], targets=3)
    eager, eager_losses = fine_tuned(heads, Pool(), captured=False)
    with recorded_graphs() as graphs:
        replayed, replayed_losses = fine_tuned(heads, Pool(), captured=True)
    assert [graph.replays for graph in graphs] == [6, 6, 3]
    assert replayed_losses == eager_losses
    for a, b, before in zip(replayed.parameters(), eager.parameters(), heads.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, before)


def test_only_rows_of_the_pool_are_captured() -> None:
    pool = Pool()
    tuner = FineTuner(random_heads(WIDTHS[3]), config_of(), together=True, captured=pool.features)
    tuner.begin([0], RATE)
    with recorded_graphs() as graphs:
        tuner.iterate(pool.batch(0)._replace(features=pool.features.clone()), tuner.new_keep())
        assert not graphs
        tuner.iterate(pool.batch(0), tuner.new_keep())
        assert len(graphs) == 1


def on_gpu(heads: Heads, pool: Pool) -> Heads:
    pool.features = pool.features.float().to("cuda")
    return Heads([w.float().to("cuda") for w in heads.weights], [b.float().to("cuda") for b in heads.biases])


@NEEDS_GPU
def test_a_cuda_graph_does_what_eager_iterations_do() -> None:
    pool = Pool()
    heads = on_gpu(random_heads(WIDTHS[3], targets=3), pool)
    eager, eager_losses = fine_tuned(heads, pool, captured=False)
    replayed, replayed_losses = fine_tuned(heads, pool, captured=True)
    for a, b in zip(replayed_losses, eager_losses, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    for a, b in zip(replayed.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@NEEDS_GPU
def test_no_iteration_on_a_gpu_waits() -> None:
    pool = Pool(heads=2)
    heads = on_gpu(random_heads(WIDTHS[3], targets=3), pool)
    batches = [pool.batch(i) for i in range(2)]
    for captured in (None, pool.features):
        tuner = FineTuner(heads, config_of(), together=True, captured=captured)
        tuner.begin([2, 0], RATE)
        keep = tuner.new_keep()
        tuner.iterate(batches[0], keep)  # captures
        torch.cuda.set_sync_debug_mode("error")
        try:
            tuner.stop(1)
            tuner.iterate(batches[1], keep)
            tuner.finish()
        finally:
            torch.cuda.set_sync_debug_mode("default")
