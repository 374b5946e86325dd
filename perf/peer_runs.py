"""The trackers of ``perf/peers.py``, and one run of each over a sequence."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from rt_mdnet_scheme import CHANGES, SearchRegionFeatures
from torch import Tensor

from fdn_triton import InputError, Tracker, TrackerConfig
from fdn_triton.evaluation.cropping import CroppedFeatures
from fdn_triton.frame_features import FeatureProvider, FrameFeatures
from fdn_triton.run import run_tracker
from fdn_triton.sequence import DecodeAhead, Sequence

CSRT = "CSRT"
_CSRT_SCRIPT = Path(__file__).with_name("csrt.py")
_CSRT_SECONDS = 600


@dataclass(frozen=True)
class Peer:
    """A tracker that is compared.

    Attributes:
        name: of its row.
        about: what it is.
        preset: the numbers it starts from; None of CSRT.
        changes: what differs from the preset.
        features: what its tracker takes the features of boxes from.
        frames: it runs over so many frames of a sequence only; None: over all.
        native: it sees the image in its own size.
        first_frame: its first frame does what the tracker does there, so that its time says something.
    """

    name: str
    about: str
    preset: str | None = "paper"
    changes: Mapping[str, Any] = field(default_factory=dict)
    features: FeatureProvider = FrameFeatures
    frames: int | None = None
    native: bool = False
    first_frame: bool = True


def by_plain_layers(x: Tensor) -> Tensor:
    """ReLU, LRN and max-pooling, each a layer of PyTorch's, as py-MDNet has them."""
    return F.max_pool2d(F.local_response_norm(F.relu(x), 5, alpha=5e-4, beta=0.75, k=2.0), 3, 2)


# The first frame's thousands of crops take minutes, and frames after it are what is compared.
_FEW_FIRST_SAMPLES = {"bbox_regression_samples": 100, "first_positives": 100, "first_negatives": 200, "first_shifts": 1}
PEERS = {
    peer.name: peer
    for peer in (
        Peer("paper", "this package, preset `paper`"),
        Peer("fast", "this package, preset `fast`", preset="fast"),
        Peer(CSRT, "OpenCV's CSRT (opencv-contrib)", preset=None),
        Peer(
            "RT-MDNet's scheme",
            "one dense map of the warped search region, RoIAlignAdaMax, 10 iterations; fp32, samples as `paper`",
            changes=CHANGES,
            features=SearchRegionFeatures,
            frames=61,
            native=True,
        ),
        Peer(
            "MDNet's crops",
            "every candidate and sample warped to 107x107 and convolved, with this package's LRN",
            changes={"loss_threshold": None, **_FEW_FIRST_SAMPLES},
            features=CroppedFeatures,
            frames=11,
            native=True,
            first_frame=False,
        ),
        Peer(
            "MDNet's crops, plain LRN",
            "the same with ReLU, LRN and pooling as PyTorch's layers; too few frames for a long-term update",
            changes={"loss_threshold": None, **_FEW_FIRST_SAMPLES},
            features=partial(CroppedFeatures, pooled=by_plain_layers),
            frames=4,
            native=True,
            first_frame=False,
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """One pass of a tracker over a sequence.

    Attributes:
        boxes_xywh: [N, 4], pixels, 0-based.
        first_frame_s: seconds to learn the first frame.
        marks: [N] seconds on a clock at the end of each frame.
        known: what else is to be told of the tracker.
    """

    boxes_xywh: NDArray[np.float64]
    first_frame_s: float
    marks: list[float]
    known: dict[str, Any] = field(default_factory=dict)

    def fps(self, frames: int | None = None) -> float:
        """Of the frames after the first, or of the first so many of them, decoding included."""
        last = len(self.marks) if frames is None else min(frames, len(self.marks))
        return (last - 1) / (self.marks[last - 1] - self.marks[0])


def run_peer(peer: Peer, sequence: Sequence, seed: int, csrt_python: Path | None) -> Run:
    """Track the sequence's first target.

    Raises:
        InputError: CSRT's environment does not work; a frame cannot be read.
    """
    assert sequence.ground_truth is not None
    box = sequence.ground_truth[0, 0]
    if peer.preset is None:
        assert csrt_python is not None
        return _run_csrt(csrt_python, sequence, box)
    config = TrackerConfig.from_preset(peer.preset, seed=seed, **{**peer.changes, **_size_changes(peer, sequence)})
    tracker = Tracker(config, device="cpu", features=peer.features)
    boxes, marks, first_frame_s = [], [], 0.0
    with DecodeAhead(sequence.frames()) as frames:
        for step in run_tracker(tracker, frames, box):
            marks.append(time.perf_counter())
            boxes.append(step.boxes_xywh[0])
            first_frame_s = first_frame_s or step.track_s
    return Run(np.array(boxes), first_frame_s, marks)


def _size_changes(peer: Peer, sequence: Sequence) -> dict[str, int | None]:
    if not peer.native:
        return {}
    height, width = cv2.imread(str(sequence.images[0])).shape[:2]
    return {
        "short_side": min(height, width),
        "max_side": max(height, width),
        "target_size": None,
        "least_target_size": None,
        "resize_step": None,
    }


def _run_csrt(python: Path, sequence: Sequence, box: NDArray[np.float64]) -> Run:
    job = {"images": [str(path.resolve()) for path in sequence.images], "box": box.tolist()}
    try:
        done = subprocess.run(
            [python, _CSRT_SCRIPT], input=json.dumps(job), capture_output=True, text=True, timeout=_CSRT_SECONDS
        )
    except OSError as error:
        raise InputError(f"--csrt-python {python} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"CSRT took more than {_CSRT_SECONDS} s over {sequence.name}: give --frames") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"--csrt-python {python} cannot run CSRT ({last}): install opencv-contrib-python-headless there"
        )
    found = json.loads(done.stdout)
    known = {key: found[key] for key in ("opencv", "python", "threads")}
    return Run(np.array(found["boxes"], dtype=np.float64), found["first_frame_s"], found["marks"], known)
