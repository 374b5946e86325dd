"""Precision and success: cases worked out by hand, and published boxes with their published accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fdn_triton.evaluation.metrics import Accuracy, accuracy, center_errors, overlaps
from fdn_triton.ground_truth import read_otb_boxes

DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAN = (np.nan,) * 4
SQUARE = (10.0, 20.0, 40.0, 40.0)


def rows(*boxes: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def scored(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> Accuracy:
    result = accuracy(boxes, truth)
    assert result is not None
    return result


def test_a_perfect_track_misses_the_last_threshold() -> None:
    """No overlap is greater than 1, so that the best area is 20 of 21 thresholds."""
    boxes = rows(SQUARE, (0.0, 0.0, 5.0, 7.0), (-3.0, 2.5, 10.25, 8.0))
    result = scored(boxes, boxes)
    assert result == Accuracy(precision=1.0, auc=pytest.approx(20 / 21), mean_iou=1.0, frames=3)


def test_known_offsets() -> None:
    truth = rows(SQUARE, SQUARE, SQUARE, SQUARE)
    boxes = rows(
        (30.0, 20.0, 40.0, 40.0),  # 20 px aside: half of it in common, 800 / 2400
        (10.0, 40.5, 40.0, 40.0),  # 20.5 px below: 19.5 * 40 / (3200 - 780)
        (22.0, 36.0, 40.0, 40.0),  # 12, 16: 20 px again; 28 * 24 / (3200 - 672)
        (10.0, 20.0, 40.0, 20.0),  # half the height: 800 / 1600, the centre 10 px above
    )
    expected = [1 / 3, 780 / 2420, 672 / 2528, 0.5]
    np.testing.assert_allclose(overlaps(boxes, truth), expected, rtol=1e-12)
    np.testing.assert_allclose(center_errors(boxes, truth), [20, 20.5, 20, 10], rtol=1e-12)
    result = scored(boxes, truth)
    assert result.precision == 0.75, "20 pixels are precise, 20.5 are not"
    assert result.mean_iou == pytest.approx(sum(expected) / 4)
    # Thresholds 0, 0.05, ... below the overlap: 7 (0 to 0.30), 7, 6 (0 to 0.25) and 10 (0 to 0.45, not 0.5).
    assert result.auc == pytest.approx((7 + 7 + 6 + 10) / (4 * 21))


def test_a_lost_target_scores_nothing() -> None:
    result = scored(rows((200.0, 200.0, 10.0, 10.0)), rows(SQUARE))
    assert (result.precision, result.auc, result.mean_iou) == (0, 0, 0)


def test_touching_and_empty_boxes_do_not_overlap() -> None:
    boxes = rows((50.0, 20.0, 40.0, 40.0), (10.0, 20.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0))
    truth = rows(SQUARE, SQUARE, (1.0, 1.0, 0.0, 0.0))
    np.testing.assert_array_equal(overlaps(boxes, truth), [0, 0, 0])


def test_frames_without_ground_truth_are_not_counted() -> None:
    far = (500.0, 500.0, 10.0, 10.0)
    one_number_missing = (10.0, 20.0, np.nan, 40.0)
    result = scored(rows(SQUARE, far, far, SQUARE), rows(SQUARE, NAN, one_number_missing, SQUARE))
    assert result == Accuracy(precision=1.0, auc=pytest.approx(20 / 21), mean_iou=1.0, frames=2)


@pytest.mark.parametrize("truth", [rows(NAN, NAN), rows()])
def test_nothing_to_compare_with_gives_none(truth: NDArray[np.float64]) -> None:
    assert accuracy(rows(SQUARE, SQUARE), truth) is None
    assert accuracy(rows(), rows(SQUARE)) is None


def test_rows_beyond_the_shorter_array_are_ignored() -> None:
    far = (500.0, 500.0, 10.0, 10.0)
    perfect = scored(rows(SQUARE), rows(SQUARE))
    assert accuracy(rows(SQUARE, far), rows(SQUARE)) == perfect
    assert accuracy(rows(SQUARE), rows(SQUARE, far)) == perfect


def test_boxes_published_for_mdnet_have_their_known_accuracy() -> None:
    """Each number is the mean over the sequences; every tracker starts from the ground truth."""
    results = sorted((DATA / "otb_results" / "MDNet").glob("*.txt"))
    if not results:
        pytest.skip(f"no published results in {DATA / 'otb_results'}")
    scores = []
    for result in results:
        truth = read_otb_boxes(DATA / "otb" / result.stem / "groundtruth_rect.txt")
        boxes = read_otb_boxes(result)
        boxes[0] = truth[0]
        scores.append(scored(boxes, truth))
    assert len(scores) == 13
    assert round(float(np.mean([score.precision for score in scores])), 3) == 0.977
    assert round(float(np.mean([score.auc for score in scores])), 3) == 0.694
