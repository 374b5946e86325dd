"""A benchmark of a few frames for the tests of the evaluation: pieces of the embedded clip as OTB folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from fdn_triton.config import TrackerConfig
from fdn_triton.demo import clip_path

TRUTH = np.loadtxt(clip_path() / "groundtruth_rect.txt", delimiter=",")  # 1-based

# A tracker that follows nothing for long, but takes all its steps in milliseconds.
QUICK = {
    "short_side": 100,
    "least_target_size": None,
    "max_side": 200,
    "candidates": 16,
    "bbox_regression_draws": 300,
    "bbox_regression_samples": 30,
    "first_positive_draws": 60,
    "first_positives": 20,
    "first_negative_draws": 100,
    "first_negatives": 40,
    "first_iterations": 2,
    "positive_draws": 20,
    "positives": 10,
    "negative_draws": 40,
    "negatives": 20,
    "batch_positives": 8,
    "batch_negatives": 8,
    "mining_negatives": 16,
    "update_iterations": 2,
    "long_interval": 3,
}
QUICK_FLAGS = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def quick_config() -> TrackerConfig:
    """The numbers of :data:`QUICK_FLAGS`."""
    return TrackerConfig.from_preset("paper", **QUICK)


def add_sequence(root: Path, name: str, first: int = 1, frames: int = 5) -> Path:
    """A folder of ``frames`` frames of the clip from frame ``first`` (1-based) on."""
    folder = root / name
    (folder / "img").mkdir(parents=True)
    for number in range(first, first + frames):
        shutil.copy(clip_path() / "img" / f"{number:04d}.jpg", folder / "img")
    np.savetxt(folder / "groundtruth_rect.txt", TRUTH[first - 1 : first - 1 + frames], "%.1f", ",")
    return folder


def small_benchmark(root: Path) -> Path:
    """Three sequences of different lengths, two of them with names of OTB's."""
    add_sequence(root, "Bird2", 1, 5)
    add_sequence(root, "Jogging-1", 20, 7)
    add_sequence(root, "owl", 40, 4)
    return root
