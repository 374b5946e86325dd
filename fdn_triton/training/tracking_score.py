"""How well weights track: a short run over videos that are kept out of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..config import NetworkConfig, TrackerConfig
from ..evaluation.metrics import accuracy
from ..frame_source import image_frames
from ..run import run_tracker
from ..tracker import Tracker
from ..weights import NetworkWeights
from .domains import VideoDomain


def tracking_score(
    weights: NetworkWeights, videos: Sequence[VideoDomain], frames: int, network: NetworkConfig, device: str
) -> dict[str, float]:
    """Mean precision at 20 pixels and AUC over the first frames of the videos, with the tracker's defaults.

    A frame that cannot be read counts with the box before it.
    """
    tracker = Tracker(TrackerConfig(network=network), weights=weights, device=device)
    scores = []
    for video in videos:
        steps = run_tracker(tracker, image_frames(list(video.images[:frames])), video.boxes_xywh[0], "skip")
        boxes = np.array([step.boxes_xywh[0] for step in steps])
        score = accuracy(boxes, video.boxes_xywh)
        assert score is not None  # a domain has a box in every frame
        scores.append((score.precision, score.auc))
    precision, auc = np.mean(scores, axis=0)
    return {"precision": float(precision), "auc": float(auc)}
