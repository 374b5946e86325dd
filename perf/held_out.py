"""Accuracy and work of the tracker with changed numbers, over videos that nothing is reported on.

::

    python perf/held_out.py --videos VIDEOS --out FILE paper={} fast='{"preset": "fast"}' small='{"short_side": 300}'

Presets are chosen with it. VIDEOS is a folder of sequences, as ``python -m fdn_triton.train domains`` takes them. Each
argument names changes of the preset ``paper``, or of another one. Results are added to those in the file. CPU time is
of the frames after the first, decoding included, summed over all cores: how much work there is.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fdn_triton.config import TrackerConfig
from fdn_triton.evaluation.metrics import accuracy
from fdn_triton.frame_source import image_frames
from fdn_triton.report import run_environment
from fdn_triton.run import run_tracker
from fdn_triton.tracker import Tracker
from fdn_triton.training.domains import VideoDomain, read_domains
from fdn_triton.weights import DEFAULT_WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--frames", type=int, default=40, help="of each video, at most")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="as python -m fdn_triton.track takes it")
    parser.add_argument("variants", nargs="+", metavar="NAME=CHANGES")
    parser.add_argument("--threads", type=int, default=1, help="several wait for each other, which counts as work")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    videos, _ = read_domains([options.videos])
    for text in options.variants:
        name, _, changes = text.partition("=")
        result = measured(videos, json.loads(changes), options.weights, options.frames, options.seeds, options.device)
        results = json.loads(options.out.read_text()) if options.out.exists() else {}
        options.out.write_text(json.dumps({**results, name: result}, indent=1) + "\n")
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in result["mean"].items()), flush=True)


def measured(
    videos: list[VideoDomain], changes: dict[str, Any], weights: str, frames: int, seeds: int, device: str = "cpu"
) -> dict[str, Any]:
    """What is written for one variant."""
    preset = changes.get("preset", "paper")
    numbers = {key: value for key, value in changes.items() if key != "preset"}
    runs = []
    for seed in range(seeds):
        config = TrackerConfig.from_preset(preset, **numbers, seed=seed)
        tracker = Tracker(config, weights=weights, device=device)
        runs += [{"seed": seed, **_of_video(tracker, video, frames)} for video in videos]
    keys = ("precision", "auc", "first_cpu_s", "frame_cpu_ms", "iterations")
    return {
        "preset": preset,
        "changes": numbers,
        "weights": {"name": tracker.weights.name, "sha256": tracker.weights.sha256},
        **run_environment(tracker.device),
        "frames": frames,
        "mean": {key: float(np.mean([run[key] for run in runs])) for key in keys},
        "runs": runs,
    }


def _of_video(tracker: Tracker, video: VideoDomain, frames: int) -> dict[str, Any]:
    boxes, iterations, started = [], 0, time.process_time()
    for step in run_tracker(tracker, image_frames(list(video.images[:frames])), video.boxes_xywh[0], "skip"):
        boxes.append(step.boxes_xywh[0])
        if step.number == 1:
            tracking_since = time.process_time()
        else:
            iterations += sum(update.iterations for update in step.updates if update is not None)
    score, later = accuracy(np.array(boxes), video.boxes_xywh), len(boxes) - 1
    assert score is not None  # a domain has a box in every frame
    return {
        "video": video.name,
        "precision": score.precision,
        "auc": score.auc,
        "first_cpu_s": tracking_since - started,
        "frame_cpu_ms": 1000 * (time.process_time() - tracking_since) / later,
        "iterations": iterations / later,
    }


if __name__ == "__main__":
    main()
