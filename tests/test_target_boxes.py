"""Boxes around targets and the selection of samples: plain PyTorch, Triton, and what is taken box by box."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from fdn_triton.kernels.boxes import iou
from fdn_triton.kernels.target_boxes import Limits, boxes_around, first_overlapping
from fdn_triton.sampling import apart, overlapping

TARGETS = torch.tensor(
    [
        [20.0, 20.0, 30.0, 40.0],
        [0.0, 0.0, 9.0, 14.0],  # smaller than min_size
        [500.0, 500.0, 9.0, 9.0],  # outside, for the most part
        [-20.0, 5.0, 60.0, 10.0],
        [3.0, 3.0, 700.0, 500.0],  # larger than the frame
    ]
)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("round_to", [None, (1.5, 1.25)])
@pytest.mark.parametrize("count", [1, 60, 300])
@pytest.mark.parametrize("spread", [0.6, torch.tensor([0.0, 0.3, 0.6, 1.0, 2.0])[:, None, None]], ids=["one", "each"])
def test_triton_draws_what_pytorch_draws(
    triton_device: torch.device, round_to: tuple[float, float] | None, count: int, spread: float | Tensor
) -> None:
    pytest.importorskip("triton")
    from fdn_triton.kernels.gpu.target_boxes import boxes_around as on_gpu

    limits = Limits((640, 360), 10.0, round_to)
    expected = boxes_around(TARGETS, noise(5, count), spread, 5.0, 1.05, limits)
    moved = spread.to(triton_device) if isinstance(spread, Tensor) else spread
    drawn = on_gpu(TARGETS.to(triton_device), noise(5, count).to(triton_device), moved, 5.0, 1.05, limits).cpu()
    difference = (drawn - expected).abs()
    if round_to is None:
        torch.testing.assert_close(drawn, expected, rtol=1e-6, atol=1e-4)
    else:  # what lies on the edge between two multiples may be rounded either way
        unit = torch.tensor(round_to * 2)
        assert (difference <= 1.001 * unit).all() and (difference > 1e-3).float().mean() < 0.01


def test_one_target_needs_no_axis_of_its_own(triton_device: torch.device) -> None:
    pytest.importorskip("triton")
    from fdn_triton.kernels.gpu.target_boxes import boxes_around as on_gpu

    limits = Limits((640, 360), 10.0)
    drawn = on_gpu(TARGETS[0].to(triton_device), noise(30).to(triton_device), 0.5, 2.0, 1.05, limits).cpu()
    torch.testing.assert_close(drawn, boxes_around(TARGETS[0], noise(30), 0.5, 2.0, 1.05, limits), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("way", ["pytorch", "triton"])
@pytest.mark.parametrize("at_most", [1, 5, 40, 100])
@pytest.mark.parametrize(("bound", "above"), [(0.3, True), (0.2, False), (2.0, True), (-1.0, False)])
def test_the_first_are_those_taken_one_by_one(
    triton_device: torch.device, way: str, at_most: int, bound: float, above: bool
) -> None:
    """Where none is wanted, the one nearest to it."""
    boxes = torch.rand(5, 60, 4, generator=torch.Generator().manual_seed(1)) * 40 + 1
    if way == "triton":
        pytest.importorskip("triton")
        from fdn_triton.kernels.gpu.target_boxes import first_overlapping as on_gpu

        on_device = on_gpu(boxes.to(triton_device), TARGETS.to(triton_device), bound, at_most, above)
        taken, counts = (tensor.cpu() for tensor in on_device)
    else:
        taken, counts = first_overlapping(boxes, TARGETS, bound, at_most, above=above)
    assert taken.shape == (5, min(at_most, 60), 4) and counts.dtype == torch.int64
    assert taken.isfinite().all()
    for t, target in enumerate(TARGETS):
        alone = (overlapping if above else apart)(boxes[t], target, bound, at_most)
        assert torch.equal(taken[t, : counts[t]], alone)
    some = iou(boxes, TARGETS[:, None]) > 0.3
    assert some.any(dim=1).tolist() != [True] * 5 and some.any(), "some targets have none, others have some"


def test_more_boxes_than_a_program_selects_from_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    boxes = torch.rand(2, 4097, 4, generator=torch.Generator().manual_seed(1)) * 40 + 1
    taken, counts = first_overlapping(boxes, TARGETS[:2], 0.3, 50, above=True)
    monkeypatch.setattr(sys.modules["fdn_triton.kernels.target_boxes"], "runs_on_triton", lambda x: True)
    again, counts_again = first_overlapping(boxes, TARGETS[:2], 0.3, 50, above=True)
    assert torch.equal(taken, again) and torch.equal(counts, counts_again)
