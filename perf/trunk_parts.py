"""What normalising and pooling cost beside the convolutions, on a CPU: ``python perf/trunk_parts.py --seq OTB/Deer``.

Sequences are tracked as ever, with a clock around the two kinds of operations of the trunk: convolutions, and what is
behind the first two of them, ReLU, normalisation and pooling. Frames from the third one on count: what is compiled and
allocated is so by then.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from fdn_triton import Tracker, TrackerConfig, backbone, frame_features
from fdn_triton.config import PRESETS
from fdn_triton.report import run_environment
from fdn_triton.results import write_json
from fdn_triton.sequence import open_sequence
from fdn_triton.timing import StageClock

_FIRST_COUNTED = 3  # frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", type=Path, nargs="+", required=True, help="as python -m fdn_triton.track takes it")
    parser.add_argument("--frames", type=int, default=80, help="of each, at most")
    parser.add_argument("--preset", choices=PRESETS, nargs="+", default=["paper", "fast"])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    clock = StageClock(torch.device("cpu"))
    without_padding, pool = backbone._without_padding, frame_features.normalise_and_pool
    backbone._without_padding = lambda layer: clock.stage("convolutions")(without_padding(layer))
    frame_features.normalise_and_pool = clock.stage("normalisation and pooling")(pool)
    rows = []
    for preset in options.preset:
        for sequence in options.seq:
            found = measure(sequence, options.frames, TrackerConfig.from_preset(preset), clock)
            rows.append({"preset": preset, **found})
            print(f"{preset:<8}{found['sequence']:<14}{found['ratio']:.3f}", flush=True)
    if options.json is not None:
        write_json(options.json, {**run_environment(torch.device("cpu")), "rows": rows})


def measure(sequence: Path, frames: int, config: TrackerConfig, clock: StageClock) -> dict[str, Any]:
    """Milliseconds a frame of both kinds, and their ratio."""
    video = open_sequence(sequence, frames)
    if video.ground_truth is None or video.length is None or video.length < _FIRST_COUNTED:
        raise SystemExit(f"{sequence}: give an annotated sequence of {_FIRST_COUNTED} frames at least")
    tracker, counted = Tracker(config, device="cpu"), 0
    for frame in video.frames():
        assert frame.image is not None, frame.problem
        if frame.number == 1:
            tracker.init(frame.image, video.ground_truth[:, 0])
            continue
        if frame.number == _FIRST_COUNTED:
            clock.lap()
        targets = len(tracker.update(frame.image).boxes_xywh)
        counted += frame.number >= _FIRST_COUNTED
    ms = {kind: 1000 * seconds / counted for kind, seconds in clock.lap().items()}
    ratio = ms["normalisation and pooling"] / ms["convolutions"]
    return {"sequence": video.name, "frames": counted, "targets": targets, "ms": ms, "ratio": ratio}


if __name__ == "__main__":
    main()
