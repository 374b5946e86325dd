"""Precision and success of the Online Tracking Benchmark (Wu, Lim, Yang, PAMI 2015; paper 4.1).

Frames whose ground truth is invalid (NaN) are not counted. The first frame counts like any other: its result is the
box that the tracker was given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRECISION_PIXELS = 20
SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one target's track.

    Attributes:
        precision: share of frames whose centre error is at most 20 pixels.
        auc: area under the success curve: mean, over 21 thresholds from 0 to 1, of the share of frames whose
            overlap is greater.
        mean_iou: mean overlap.
        frames: frames that were scored.
    """

    precision: float
    auc: float
    mean_iou: float
    frames: int


def accuracy(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64]) -> Accuracy | None:
    """Compare results with ground truth over the frames that have both.

    Args:
        boxes_xywh: [N, 4], one row a frame.
        truth_xywh: [M, 4], NaN where there is no valid ground truth; rows beyond the shorter array are ignored.

    Returns:
        None where no frame has ground truth.
    """
    n = min(len(boxes_xywh), len(truth_xywh))
    valid = np.isfinite(truth_xywh[:n]).all(axis=1)
    boxes, truth = boxes_xywh[:n][valid], truth_xywh[:n][valid]
    if len(boxes) == 0:
        return None
    overlap = overlaps(boxes, truth)
    return Accuracy(
        precision=float((center_errors(boxes, truth) <= PRECISION_PIXELS).mean()),
        auc=float((overlap[:, None] > SUCCESS_THRESHOLDS).mean()),
        mean_iou=float(overlap.mean()),
        frames=len(boxes),
    )


def center_errors(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] distances in pixels between the centres of [N, 4] boxes."""
    difference = (boxes_xywh[:, :2] + boxes_xywh[:, 2:] / 2) - (truth_xywh[:, :2] + truth_xywh[:, 2:] / 2)
    return np.linalg.norm(difference, axis=1)


def overlaps(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] intersections over unions of [N, 4] boxes, at most 1 (equal boxes could pass it by rounding)."""
    low = np.maximum(boxes_xywh[:, :2], truth_xywh[:, :2])
    high = np.minimum(boxes_xywh[:, :2] + boxes_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=1)
    union = boxes_xywh[:, 2:].prod(axis=1) + truth_xywh[:, 2:].prod(axis=1) - intersection
    overlap = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return np.minimum(overlap, 1)
