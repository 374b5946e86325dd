"""What four targets of real footage cost beside one: ``python perf/many_targets.py --seq OTB/Bolt2``.

Each target is tracked alone and all are tracked together, by trackers that take turns frame by frame, so that whatever
else the machine does meets all alike. The ratio is the time of a frame with all targets, after the first frame and
without decoding, by the mean of those with one. ``perf/scaling.py`` varies the number of targets in a made scene.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fdn_triton import Tracker, TrackerConfig
from fdn_triton.config import PRESETS
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.report import run_environment
from fdn_triton.results import write_json
from fdn_triton.sequence import open_sequence

RUNNERS = ("268,74,34,64", "170,85,30,60", "222,88,30,55", "385,84,30,55")
"""Scattered over Bolt2's first frame, 0-based pixels."""
KINDS = ("wall", "cpu", "features", "score", "collect", "update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", type=Path, required=True, help="as python -m fdn_triton.track takes it")
    parser.add_argument("--init", action="append", metavar="X,Y,W,H", help="a target; by default four runners of Bolt2")
    parser.add_argument("--frames", type=int, default=101)
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    boxes_xywh = np.array([[float(number) for number in text.split(",")] for text in options.init or RUNNERS])
    # Frames of one size, whichever targets are in them: else the work of one and of all is not the same.
    config = TrackerConfig.from_preset(options.preset, resize_step=None)
    found = {"preset": options.preset, **measure(options.seq, boxes_xywh, options.frames, config, options.device)}
    print(table(found))
    if options.json is not None:
        write_json(options.json, found)


def measure(
    sequence: Path, boxes_xywh: NDArray[np.float64], frames: int, config: TrackerConfig, device: str
) -> dict[str, Any]:
    """Track the targets [T, 4] alone and together."""
    video = open_sequence(sequence, frames)
    groups = [*boxes_xywh[:, None], boxes_xywh]
    trackers = [Tracker(config, device=device) for _ in groups]
    spent: list[Counter[str]] = [Counter() for _ in groups]  # seconds
    iterations = [0] * len(groups)
    tracks: list[list[NDArray[np.float64]]] = [[] for _ in groups]
    for frame in video.frames():
        assert frame.image is not None, frame.problem
        for i, (tracker, group) in enumerate(zip(trackers, groups, strict=True)):
            if frame.number == 1:
                tracker.init(frame.image, group)
                tracker.clock.lap()
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            result = tracker.update(frame.image)
            stages = tracker.clock.lap()  # waits for a GPU
            if frame.number == 2:  # compiles and allocates
                continue
            spent[i].update({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **stages})
            iterations[i] += sum(update.iterations for update in result.updates if update)
            tracks[i].append(result.boxes_xywh)
        print(f"\r{frame.number} frames", end="", file=sys.stderr)
    print(file=sys.stderr)
    count, alone = len(tracks[0]), len(boxes_xywh)
    one = {kind: 1000 * sum(seconds[kind] for seconds in spent[:-1]) / alone / count for kind in KINDS}
    together = {kind: 1000 * spent[-1][kind] / count for kind in KINDS}
    apart_xywh = np.concatenate([np.array(track) for track in tracks[:-1]], axis=1)
    together_xywh = np.array(tracks[-1])
    return {
        "sequence": video.name,
        "frames": count + 2,
        "targets": alone,
        **run_environment(trackers[0].device),
        "one_ms": one,
        "all_ms": together,
        "ratio": {kind: together[kind] / one[kind] for kind in KINDS if one[kind]},
        "iterations_per_frame": {"one": sum(iterations[:-1]) / alone / count, "all": iterations[-1] / count},
        "equal_boxes": float((together_xywh == apart_xywh).all(axis=2).mean()),
        "mean_iou": float(overlaps(together_xywh.reshape(-1, 4), apart_xywh.reshape(-1, 4)).mean()),
    }


def table(found: dict[str, Any]) -> str:
    """Milliseconds a frame, the ratio, and whether the boxes are the same."""
    lines = [f"{'ms a frame':<12}{'1 target':>10}{found['targets']:>4} targets{'ratio':>8}"]
    lines += [
        f"{kind:<12}{found['one_ms'][kind]:>10.1f}{found['all_ms'][kind]:>12.1f}{found['ratio'][kind]:>8.2f}"
        for kind in KINDS
    ]
    lines.append(f"boxes together and alone: {found['equal_boxes']:.1%} equal, mean IoU {found['mean_iou']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
