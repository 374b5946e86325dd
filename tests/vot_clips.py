"""What the tests of VOT's experiment share: short sequences from the demo clip, and a tracker that is quick."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from fdn_triton.config import TrackerConfig
from fdn_triton.demo import clip_path

TRUTH = np.loadtxt(clip_path() / "groundtruth_rect.txt", delimiter=",") - (1, 1, 0, 0)  # [N, 4] xywh, 0-based

# Follows nothing for long, but takes all its steps in milliseconds.
QUICK = TrackerConfig(
    short_side=100,
    least_target_size=None,
    max_side=200,
    candidates=16,
    bbox_regression_draws=300,
    bbox_regression_samples=30,
    first_positive_draws=60,
    first_positives=20,
    first_negative_draws=100,
    first_negatives=40,
    first_iterations=2,
    positive_draws=20,
    positives=10,
    negative_draws=40,
    negatives=20,
    batch_positives=8,
    batch_negatives=8,
    mining_negatives=16,
    update_iterations=2,
)


def vot_folder(folder: Path, frames: int, polygon: bool = False) -> Path:
    """The demo clip's beginning as VOT distributes sequences, its boxes written as such or as polygons."""
    (folder / "color").mkdir(parents=True)
    for number in range(1, frames + 1):
        shutil.copy(clip_path() / "img" / f"{number:04d}.jpg", folder / "color" / f"{number:08d}.jpg")
    x, y, w, h = TRUTH[:frames].T
    rows = np.stack([x, y, x + w, y, x + w, y + h, x, y + h] if polygon else [x, y, w, h], axis=1)
    np.savetxt(folder / "groundtruth.txt", rows, "%.2f", ",")
    return folder
