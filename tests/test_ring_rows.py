"""Rows that many rings get at once: what each gets row by row, in plain PyTorch and by Triton."""

from __future__ import annotations

import pytest
import torch

from fdn_triton.kernels.ring_rows import append_to_rings


@pytest.mark.parametrize("way", ["pytorch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("width", [1, 300, 1500])
def test_rows_go_where_they_are_counted(triton_device: torch.device, way: str, dtype: torch.dtype, width: int) -> None:
    """None, some around the end and all of them; from a view whose rows do not lie side by side."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.rand(40, width, generator=generator)
    rows = torch.rand(3, 8, width, generator=generator).to(dtype)[:, 1:7]
    counts, first, starts, capacity = [0, 3, 6], [0, 10, 25], [3, 8, 7], 9
    expected = pool.clone()
    for s in range(3):
        for i in range(counts[s]):
            expected[first[s] + (starts[s] + i) % capacity] = rows[s, i].float()
    device, append = torch.device("cpu"), append_to_rings
    if way == "triton":
        pytest.importorskip("triton")
        from fdn_triton.kernels.gpu.ring_rows import append_to_rings as append

        device = triton_device
    pool = pool.to(device)
    append(
        pool, rows.to(device), *(torch.tensor(numbers, device=device) for numbers in (counts, first, starts)), capacity
    )
    assert torch.equal(pool.cpu(), expected)


def test_more_rows_than_a_ring_holds_are_refused() -> None:
    one = torch.tensor([1])
    with pytest.raises(ValueError, match="5 rows do not fit a ring of 4"):
        append_to_rings(torch.zeros(9, 2), torch.zeros(1, 5, 2), one, one, one, 4)
