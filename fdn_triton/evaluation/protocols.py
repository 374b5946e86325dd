"""Where a tracker is started and with which box: the protocols of the Online Tracking Benchmark (PAMI 2015, 3.2).

OPE, one-pass evaluation, is one run from the first frame. TRE, temporal robustness, starts at 20 frames and runs to the
end each time. SRE, spatial robustness, starts on the first frame with 12 wrong boxes: 4 shifted, 4 with one corner
pulled out, 4 scaled. All are scored against the true boxes of the frames they ran over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

ProtocolName = Literal["ope", "tre", "sre"]

SEGMENTS = 20
"""Starts of TRE."""
SHORTEST_SEGMENT = 20
"""Frames that the last start of TRE leaves, where the sequence is that long."""

# What is added to x, y, w, h, as a share of the width (x, w) and height (y, h). The toolkit also rounds to whole
# pixels and cuts boxes at the frame; the boxes here stay as they are computed.
_SPATIAL = {
    "left": (-0.1, 0.0, 0.0, 0.0),
    "right": (0.1, 0.0, 0.0, 0.0),
    "up": (0.0, -0.1, 0.0, 0.0),
    "down": (0.0, 0.1, 0.0, 0.0),
    "top-left": (-0.1, -0.1, 0.1, 0.1),
    "top-right": (0.0, -0.1, 0.1, 0.1),
    "bottom-left": (-0.1, 0.0, 0.1, 0.1),
    "bottom-right": (0.0, 0.0, 0.1, 0.1),
    "scale-0.8": (0.1, 0.1, -0.2, -0.2),
    "scale-0.9": (0.05, 0.05, -0.1, -0.1),
    "scale-1.1": (-0.05, -0.05, 0.1, 0.1),
    "scale-1.2": (-0.1, -0.1, 0.2, 0.2),
}


@dataclass(frozen=True)
class Part:
    """One run of a protocol, to the end of the sequence.

    Attributes:
        name: of the run, fit for a file's name: ``ope``, ``tre-07``, ``sre-top-left``.
        first_frame: where it starts, 0-based.
        box_xywh: what the tracker is given there, 0-based pixels.
    """

    name: str
    first_frame: int
    box_xywh: tuple[float, float, float, float]


def parts(protocol: ProtocolName, truth_xywh: NDArray[np.float64]) -> list[Part]:
    """The runs of a protocol on one target.

    Args:
        protocol: which.
        truth_xywh: [N, 4], 0-based pixels, a row a frame; NaN where there is no valid ground truth.

    Returns:
        One run of OPE, 12 of SRE, 20 of TRE (fewer where the sequence has not that many frames to start from).

    Raises:
        InputError: there is no valid box on the first frame, or for TRE on any.
    """
    if protocol == "tre":
        starts = _starts(truth_xywh)
        return [Part(f"tre-{k:02d}", start, _box(truth_xywh[start])) for k, start in enumerate(starts, 1)]
    if len(truth_xywh) == 0 or not np.isfinite(truth_xywh[0]).all():
        raise InputError("the ground truth has no box on the first frame")
    if protocol == "ope":
        return [Part("ope", 0, _box(truth_xywh[0]))]
    width_height = np.tile(truth_xywh[0, 2:], 2)
    return [
        Part(f"sre-{name}", 0, _box(truth_xywh[0] + np.array(change) * width_height))
        for name, change in _SPATIAL.items()
    ]


def _starts(truth_xywh: NDArray[np.float64]) -> list[int]:
    """Frames where TRE starts, as the toolkit's ``splitSeqTRE`` spreads them; each once.

    Frames whose target reaches beyond the left or upper border (in the toolkit's 1-based pixels: x or y not above 0)
    are no starts. Its lists of occluded frames to avoid belong to no download and are not used.
    """
    usable = np.flatnonzero(np.isfinite(truth_xywh).all(axis=1) & (truth_xywh[:, :2] > -1).all(axis=1))
    if len(usable) == 0:
        raise InputError("the ground truth has no box inside the frame to start from")
    last = int(np.count_nonzero(usable <= len(truth_xywh) - SHORTEST_SEGMENT))
    if last == 0:
        return [int(usable[0])]
    step = last / (SEGMENTS - 1)
    positions = [math.floor(1 + k * step) for k in range(SEGMENTS) if 1 + k * step <= last] + [last]
    return [int(usable[position - 1]) for position in sorted(set(positions))]


def _box(box_xywh: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, w, h = box_xywh.tolist()
    return x, y, w, h
