"""Box conversions and overlap against hand values and against counted pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdn_triton.kernels.boxes import centers, from_centers, iou, xywh_to_xyxy

_SETTINGS = settings(max_examples=100, deadline=None, derandomize=True, database=None)
_SIDE = st.integers(-400, 400).map(lambda quarter: quarter / 4)  # exact in fp32, so that round trips are too
_BOXES = st.lists(st.tuples(_SIDE, _SIDE, _SIDE, _SIDE), max_size=5).map(lambda rows: torch.tensor(rows).view(-1, 4))


def test_conversions_by_hand() -> None:
    xywh = torch.tensor([10.0, 20.0, 4.0, 7.0])
    assert xywh_to_xyxy(xywh).tolist() == [10, 20, 14, 27]
    assert centers(xywh).tolist() == [12, 23.5]
    assert from_centers(torch.tensor([12.0, 23.5]), torch.tensor([4.0, 7.0])).tolist() == xywh.tolist()


@_SETTINGS
@given(_BOXES)
def test_conversions_return(boxes: torch.Tensor) -> None:
    before = boxes.clone()
    corners = xywh_to_xyxy(boxes)
    assert torch.equal(torch.cat((corners[..., :2], corners[..., 2:] - corners[..., :2]), dim=-1), boxes)
    assert torch.equal(from_centers(centers(boxes), boxes[..., 2:]), boxes)
    assert torch.equal(boxes, before)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 10, 10), 50 / 150),
        ((5, 5, 10, 10), 25 / 175),
        ((2, 3, 4, 5), 20 / 100),
        ((10, 0, 10, 10), 0.0),  # touching
        ((40, 40, 10, 10), 0.0),
        ((5, 5, 0, 0), 0.0),
        ((-5, -5, 20, 20), 100 / 400),
        ((0.5, 0, 10, 10), 95 / 105),
    ],
)
def test_iou_by_hand(other: tuple[float, ...], expected: float) -> None:
    target = torch.tensor([0.0, 0.0, 10.0, 10.0])
    assert iou(target, torch.tensor(other)).item() == pytest.approx(expected, rel=1e-6)
    assert iou(torch.tensor(other), target).item() == pytest.approx(expected, rel=1e-6)


def test_iou_of_boxes_without_area_is_0() -> None:
    empty = torch.tensor([[3.0, 3.0, 0.0, 0.0], [3.0, 3.0, 5.0, 0.0]])
    assert iou(empty, empty).tolist() == [0.0, 0.0]


_PIXEL_BOX = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 9), st.integers(0, 9))


@_SETTINGS
@given(_PIXEL_BOX, _PIXEL_BOX)
def test_iou_counts_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    covered = []
    for x, y, w, h in (a, b):
        frame = torch.zeros(24, 24, dtype=torch.bool)
        frame[y : y + h, x : x + w] = True
        covered.append(frame)
    union = int((covered[0] | covered[1]).sum())
    expected = int((covered[0] & covered[1]).sum()) / union if union else 0.0
    actual = iou(torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)).item()
    assert actual == pytest.approx(expected, rel=1e-6)


def test_iou_broadcasts() -> None:
    a = torch.rand(4, 1, 4, generator=torch.Generator().manual_seed(0)) * 10
    b = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) * 10
    table = iou(a, b)
    assert table.shape == (4, 5)
    for i in range(4):
        for j in range(5):
            assert table[i, j].item() == pytest.approx(iou(a[i, 0], b[j]).item(), rel=1e-6)
    assert iou(torch.zeros(0, 4), b[0]).shape == (0,)
