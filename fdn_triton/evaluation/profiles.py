"""Precision, success and normalised precision curves of a track, by the rules of a named toolkit.

All toolkits count a frame as precise where its centre error is at most a threshold, and as a success where its overlap
is greater than a threshold. They disagree on the rest, which a :class:`Profile` names:

* OTB's own toolkit (``calc_seq_err_robust.py`` and ``eval_results.py`` of jwlim/tracker_benchmark) sets the first
  result to the ground truth and gives a frame without a valid ground truth the centre error and the overlap -1, so that
  it is precise at every threshold and a success at none. It knows no normalised precision; by the same rule that error
  is -1 here. (Its forerunner in MATLAB also repeats the result before a lost one, which helps trackers that report
  losses, such as TLD. pytracking's ``extract_results.py`` gives frames without ground truth an infinite centre error.)
* ``got10k`` 0.1.3 (``experiments/otb.py``) sets the first result to the ground truth, too, and compares what is left
  as it stands: a frame with NaN in either box fails. It knows no normalised precision either.
* pysot-toolkit (``ope_benchmark.py``, ``statistics.py``) compares the first result as it is stored. Overlaps need a
  valid ground truth as OTB's do, centre errors one whose centre has x and y above 0; other frames get -1.

The mean over sequences counts each the same, whatever its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .metrics import PRECISION_PIXELS, SUCCESS_THRESHOLDS, center_errors, overlaps

PRECISION_THRESHOLDS = np.arange(51)
"""Centre errors in pixels."""
NORM_PRECISION_THRESHOLDS = np.arange(51) / 100
"""Centre errors as a share of the ground truth's width and height."""

_NO_DIVISION_BY_ZERO = 1e-16  # as in pysot-toolkit; nothing beside a real size


@dataclass(frozen=True)
class Profile:
    """The rules by which a toolkit scores a track.

    Attributes:
        name: by which :data:`PROFILES` has it.
        about: the rules in one line, for the reader of a report.
        first_is_truth: the result of the first frame is replaced by the ground truth.
        valid_center: the ground truth with which a centre error counts; frames with any other are precise. "box": all
            of x, y, w, h are above 0 in 1-based pixels; "center": the centre is, in 1-based pixels; None: is not asked.
        valid_box: a frame is a success only where all of its ground truth's x, y, w, h are above 0 in 1-based pixels.
        omitted: sequence -> annotated frames at its start that are not used.
    """

    name: str
    about: str
    first_is_truth: bool
    valid_center: Literal["box", "center"] | None
    valid_box: bool
    omitted: Mapping[str, int] = field(default_factory=dict)


# The occluded start, left out by OTB's lists of frames to omit, by pytracking's otbdataset.py and pysot's OTB100.json.
_OCCLUDED_AT_FIRST = {"Tiger1": 5}

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="otb",
            about="OTB's own toolkit: first result set to the ground truth, frames without valid ground truth count as "
            "precise and as no success, Tiger1 from frame 6",
            first_is_truth=True,
            valid_center="box",
            valid_box=True,
            omitted=_OCCLUDED_AT_FIRST,
        ),
        Profile(
            name="got10k",
            about="got10k 0.1.3: first result set to the ground truth, all frames of all sequences as they stand",
            first_is_truth=True,
            valid_center=None,
            valid_box=False,
        ),
        Profile(
            name="pysot",
            about="pysot-toolkit: first result as stored, frames whose ground truth has no centre right of and below "
            "the image's corner count as precise, those without valid ground truth as no success, Tiger1 from frame 6",
            first_is_truth=False,
            valid_center="center",
            valid_box=True,
            omitted=_OCCLUDED_AT_FIRST,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Curves:
    """Accuracy of a track, or the mean over several.

    Attributes:
        precision: [51] share of frames whose centre error is at most 0, 1, ..., 50 pixels.
        success: [21] share of frames whose overlap is greater than 0, 0.05, ..., 1.
        norm_precision: [51] share of frames whose centre error, each axis divided by the ground truth's size there, is
            at most 0, 0.01, ..., 0.5 (TrackingNet; Mueller et al., ECCV 2018).
        frames: frames that were scored.
    """

    precision: NDArray[np.float64]
    success: NDArray[np.float64]
    norm_precision: NDArray[np.float64]
    frames: int

    @property
    def precision_20(self) -> float:
        """Precision at 20 pixels."""
        return float(self.precision[PRECISION_PIXELS])

    @property
    def auc(self) -> float:
        """Area under the success curve: the mean over its 21 thresholds."""
        return float(self.success.mean())

    @property
    def norm_precision_score(self) -> float:
        """Normalised precision at 0.20, which LaSOT's toolkit, pysot-toolkit and pytracking print.

        TrackingNet ranks by the area under the curve instead.
        """
        return float(self.norm_precision[20])

    @staticmethod
    def mean(curves: Sequence[Curves]) -> Curves:
        """The mean of one or more curves, each counting the same; ``frames`` are added up."""
        return _weighted(curves, [1] * len(curves))

    @staticmethod
    def pooled(curves: Sequence[Curves]) -> Curves:
        """The curves over all frames of one or more, each frame counting the same.

        So OTB's toolkit joins the runs of TRE and SRE on a sequence.
        """
        return _weighted(curves, [one.frames for one in curves])


def curves(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64], profile: Profile) -> Curves:
    """Compare one track with its ground truth.

    Args:
        boxes_xywh: [N, 4], one row a frame, 0-based pixels; rows that are no box may hold NaN or sizes not above 0.
        truth_xywh: [N, 4], 0-based pixels; NaN or sizes not above 0 where there is no valid ground truth.
        profile: the rules.

    Raises:
        InputError: there are no rows, or not as many results as ground truths: the toolkits stop there, too (pytracking
            fills up with empty boxes).
    """
    if len(boxes_xywh) != len(truth_xywh) or len(truth_xywh) == 0:
        raise InputError(
            f"{len(boxes_xywh)} results for {len(truth_xywh)} frames of ground truth: give a result for each frame"
        )
    boxes = boxes_xywh.copy()
    if profile.first_is_truth:
        boxes[0] = truth_xywh[0]

    error, norm_error = center_errors(boxes, truth_xywh), _norm_center_errors(boxes, truth_xywh)
    overlap = overlaps(boxes, truth_xywh)
    valid_box = (truth_xywh > (-1, -1, 0, 0)).all(axis=1)
    if profile.valid_box:
        overlap[~valid_box] = -1
    if profile.valid_center is not None:
        valid = valid_box if profile.valid_center == "box" else (_centers(truth_xywh) > 0).all(axis=1)
        error[~valid] = norm_error[~valid] = -1
    return Curves(
        precision=(error[:, None] <= PRECISION_THRESHOLDS).mean(axis=0),
        success=(overlap[:, None] > SUCCESS_THRESHOLDS).mean(axis=0),
        norm_precision=(norm_error[:, None] <= NORM_PRECISION_THRESHOLDS).mean(axis=0),
        frames=len(truth_xywh),
    )


def _norm_center_errors(boxes_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    # Divided before they are subtracted, as the toolkits do: boxes in whole pixels often fall on a threshold.
    size = truth_xywh[:, 2:] + _NO_DIVISION_BY_ZERO
    return np.linalg.norm(_centers(boxes_xywh) / size - _centers(truth_xywh) / size, axis=1)


def _centers(boxes_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 2] in 1-based pixels."""
    return boxes_xywh[:, :2] + 1 + (boxes_xywh[:, 2:] - 1) / 2


def _weighted(curves: Sequence[Curves], weights: Sequence[int]) -> Curves:
    return Curves(
        precision=np.average([one.precision for one in curves], axis=0, weights=weights),
        success=np.average([one.success for one in curves], axis=0, weights=weights),
        norm_precision=np.average([one.norm_precision for one in curves], axis=0, weights=weights),
        frames=sum(one.frames for one in curves),
    )
