"""Tables of random numbers: what is read from them, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from fdn_triton.noise import NoiseTable, dropout_table, gaussian_table, uniform_table

CPU = torch.device("cpu")


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_each_target_reads_what_it_would_read_alone() -> None:
    table = NoiseTable(torch.rand(5000, generator=torch.Generator().manual_seed(0)))
    places = table.places(4, 600, generators(5, 3, 5))
    assert places.shape == (4, 3)
    alone = table.places(4, 600, generators(3))
    for number in range(4):
        together = table.read(places[number], 600)
        assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
        assert torch.equal(table.read(alone[number], 600)[0], together[1])
        assert torch.equal(table.read(places[number], 20), together[:, :20]), "fewer numbers from the same place"
        given = torch.empty(3, 600)
        assert table.read(places[number], 600, out=given) is given and torch.equal(given, together)


def test_places_are_spread_evenly_up_to_the_last() -> None:
    small = NoiseTable(torch.arange(12.0))
    places = small.places(4000, 10, generators(0))
    # 4000 draws of one in three: five standard deviations are 149.
    assert (places.flatten().bincount(minlength=3) - 1333).abs().max() < 149
    assert small.read(torch.tensor([2]), 10).tolist() == [[2.0, 3, 4, 5, 6, 7, 8, 9, 10, 11]]


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_dropout_drops_the_stated_share_and_keeps_the_mean(share: float) -> None:
    table = dropout_table(share, 10_000, CPU)
    factors = table.read(table.places(1, 10_000, generators(*range(64)))[0], 10_000)
    assert set(factors.unique().tolist()) == {0.0, torch.tensor(1.0).div(1 - share).item()}
    assert (factors == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert factors.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("table", [gaussian_table, uniform_table, partial(dropout_table, 0.5)])
def test_tables_are_made_once_and_many_times_as_long_as_what_is_read(table: Callable[..., NoiseTable]) -> None:
    assert table(100, CPU) is table(200, CPU), "one that is long enough for both"
    size = 100_000
    assert table(size, CPU)._row.shape == (64 * size,)


def test_tables_hold_mdnets_distributions() -> None:
    gaussian, uniform = gaussian_table(1200, CPU)._row, uniform_table(1200, CPU)._row
    assert len(gaussian) == len(uniform) > 1 << 21
    for row, quartile in ((gaussian, 0.5 * 0.67449), (uniform, 0.5)):
        assert float(row.min()) >= -1 and float(row.max()) <= 1
        assert float((row.abs() < quartile).float().mean()) == pytest.approx(0.5, abs=2e-3)
        assert float(row.mean()) == pytest.approx(0, abs=2e-3)
    # P(|z| > 2) of a standard normal is clipped.
    assert float((gaussian.abs() == 1).float().mean()) == pytest.approx(0.0455, abs=2e-3)


def test_torchs_global_random_state_is_not_touched() -> None:
    state = torch.get_rng_state()
    for table in (gaussian_table, uniform_table, partial(dropout_table, 0.3)):
        table(70_000, CPU)  # of a size of its own: drawn now
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_reads_the_same_numbers() -> None:
    for table in (gaussian_table, uniform_table, partial(dropout_table, 0.5)):
        read = []
        for device in (CPU, torch.device("cuda:0")):
            of_device = table(300, device)
            places = of_device.places(2, 300, generators(1, 2))[1]
            read.append(of_device.read(places.to(device), 300).cpu())
        assert torch.equal(*read)
