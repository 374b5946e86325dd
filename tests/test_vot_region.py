"""Regions of VOT: reading, bounding boxes, and when a box shares a pixel with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fdn_triton.errors import InputError
from fdn_triton.evaluation.vot_region import bounding_box, overlaps, read_regions

FRAME = (100, 80)
DIAMOND = [50, 20, 70, 40, 50, 60, 30, 40]


def test_rectangles_and_polygons_are_read(tmp_path: Path) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text("\ufeff1,2,3,4\r\n1.5\t2\t3\t4\n0,0, 10,0, 10,5\n", encoding="utf-8")
    regions = read_regions(path)
    assert [region.tolist() for region in regions] == [[1, 2, 3, 4], [1.5, 2, 3, 4], [0, 0, 10, 0, 10, 5]]


@pytest.mark.parametrize("row", ["NaN,NaN,NaN,NaN", "0", "5,5,0,4", "1,1,nan,2,3,3"])
def test_a_frame_without_region_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"1,2,3,4\n{row}\n1,2,3,4\n")
    with pytest.raises(InputError, match="line 2: no region"):
        read_regions(path)


def test_a_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "groundtruth.txt").write_text("m1,2,3,4,5\n")
    with pytest.raises(InputError, match="mask"):
        read_regions(tmp_path / "groundtruth.txt")


def test_bounding_boxes() -> None:
    assert bounding_box([1, 2, 3, 4]).tolist() == [1, 2, 3, 4]
    assert bounding_box(DIAMOND).tolist() == [30, 20, 40, 40]


@pytest.mark.parametrize(
    ("box", "region", "shared"),
    [
        ([10, 10, 5, 5], [14, 14, 5, 5], True),
        ([10, 10, 5, 5], [15, 10, 5, 5], False),  # side by side: columns 10 to 14, and 15 to 19
        ([10, 10, 5.4, 5], [14.6, 10, 5, 5], False),  # 5.4 becomes 5, 14.6 becomes 15
        ([10, 10, 5.6, 5], [14.6, 10, 5, 5], True),
        ([-20, 10, 15, 5], [-20, 10, 25, 5], False),  # they share pixels, but none in the frame
        ([90, 70, 50, 50], [98, 78, 50, 50], True),
        ([31, 21, 8, 8], DIAMOND, False),  # in the bounding box, not in the polygon
        ([31, 21, 10, 10], DIAMOND, True),
        ([60, 0, 3, 31], DIAMOND, True),  # touches the outline: y = x - 30 at x = 60
        ([45, 35, 3, 3], DIAMOND, True),
        ([0, 0, 100, 80], [200, 200, 300, 200, 250, 300], False),
        ([0, 0, 100, 80], [-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6], True),
    ],
)
def test_what_shares_a_pixel(box: list[float], region: list[float], shared: bool) -> None:
    assert overlaps(box, region, FRAME) is shared


def test_vot_toolkit_judges_alike() -> None:
    pytest.importorskip("vot", reason="the extra vot is not installed")
    from vot.region import Polygon, Rectangle, calculate_overlap

    generator = np.random.default_rng(0)
    differing = 0
    for _ in range(3000):
        box, other = np.concatenate((generator.uniform(-20, 60, (2, 2)), generator.uniform(2, 25, (2, 2))), axis=1)
        angle, half = generator.uniform(0, np.pi), generator.uniform(2, 14, 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half) @ turn.T + generator.uniform(0, 50, 2)
        pairs = ((other, Rectangle(*other)), (corners.ravel(), Polygon([tuple(corner) for corner in corners])))
        for region, theirs in pairs:
            overlap = calculate_overlap(Rectangle(*box), theirs, (64, 48))
            differing += overlaps(box, region, (64, 48)) != (overlap > 0)
            assert overlaps(box, region, (64, 48)) or overlap < 0.02
    assert differing < 0.005 * 6000  # those that share one row or column of pixels
