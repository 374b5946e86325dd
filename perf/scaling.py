"""What a frame costs as one thing grows: ``python perf/scaling.py``.

Varies the frame's size, the number of targets and of candidates around a base case of 640x360, one target and the
preset's candidates, and runs one long sequence. Frames are made in memory, so that no decoding is counted; the first
frame learns less than usual, because it is not what is measured. Costs are of whole periods of long-term
updates. Writes ``perf/results/scaling-<device>.json`` and the plot beside it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scaling_plot import plot
from scaling_scene import BASE_WH, THINGS, Scene

from fdn_triton import InputError, Tracker, TrackerConfig
from fdn_triton.config import PRESETS
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.evaluation.report.plots import check_matplotlib
from fdn_triton.report import run_environment
from fdn_triton.results import check_writable, write_json

RESULTS = Path(__file__).parent / "results"
SIZES = {
    "240p": (426, 240),
    "360p": BASE_WH,
    "480p": (854, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "4K": (3840, 2160),
}
BASE_SIZE = "360p"
TARGETS = (1, 2, 4, 8, 16, 32, 64)
CANDIDATES = (64, 128, 256, 512, 1024, 2048, 4096)
FIRST_FRAME: dict[str, Any] = {
    "bbox_regression_samples": 200,
    "first_positives": 100,
    "first_negatives": 500,
    "first_iterations": 10,
}
LONG: dict[str, Any] = {
    "short_side": 112,
    "max_side": 200,
    "least_target_size": None,
    "candidates": 64,
    "mining_negatives": 128,
}
"""What makes 10,000 frames a matter of minutes; the memory of a target is as large as ever."""
_STAGES = ("features", "score", "collect", "update")
_MANY = 8  # above so many targets one period of updates is enough
_BINS = 50  # of the long sequence


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        size: a key of :data:`SIZES`.
        candidates: of each target.
    """

    size: str
    targets: int
    candidates: int


def main() -> int:
    options = _options()
    deadline = time.monotonic() + options.seconds
    try:
        check_matplotlib()
        scene, device = Scene(), Tracker(device=options.device).device
        known = run_environment(device)
        path = options.json or RESULTS / f"scaling-{_slug(known['device'])}.json"
        check_writable(path)
        result: dict[str, Any] = {**known, "length": None, "sweeps": {}}
        if options.length:
            result["length"] = long_sequence(scene, options.length_preset, options.length, device)
        for preset in reversed(options.presets):  # the slow one is cut where time runs out
            result["sweeps"][preset] = {}
            for axis, points in _sweeps(scene, preset, options, device, deadline):
                result["sweeps"][preset][axis] = points
        write_json(path, result)
        plot(result, path.with_suffix(".svg"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {path} and {path.with_suffix('.svg')}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--presets", nargs="+", choices=PRESETS, default=("paper", "fast"), help=f"of {', '.join(PRESETS)}"
    )
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES), help=f"of {', '.join(SIZES)}")
    parser.add_argument("--targets", nargs="*", type=int, default=TARGETS, help=f"numbers up to {THINGS}")
    parser.add_argument("--candidates", nargs="*", type=int, default=CANDIDATES, help="numbers")
    parser.add_argument("--periods", type=int, default=2, help="of long-term updates, measured in each case")
    parser.add_argument("--length", type=int, default=10_000, help="frames of the long sequence; 0: none")
    parser.add_argument("--length-preset", choices=PRESETS, default="fast")
    parser.add_argument("--seconds", type=float, default=420, help="begin no case but the base after this time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default perf/results/scaling-<device>.json")
    options = parser.parse_args()
    if options.periods < 1 or options.length < 0 or min([*options.targets, *options.candidates, 1]) < 1:
        parser.error("--periods, --targets and --candidates must be at least 1")
    least = max(PRESETS[preset].top_k for preset in options.presets)
    if min(options.candidates, default=least) < least:
        parser.error(f"--candidates must be at least {least}, which are averaged")
    if max(options.targets, default=1) > THINGS:
        parser.error(f"--targets goes up to {THINGS}")
    return options


def _sweeps(
    scene: Scene, preset: str, options: argparse.Namespace, device: torch.device, deadline: float
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Per axis its points; the base case is measured once."""
    measured: dict[Case, dict[str, Any]] = {}
    base = Case(BASE_SIZE, 1, PRESETS[preset].candidates)
    axes = {
        "base": [base],
        "size": [replace(base, size=size) for size in options.sizes],
        "candidates": [replace(base, candidates=candidates) for candidates in options.candidates],
        "targets": [replace(base, targets=targets) for targets in options.targets],
    }
    for axis, cases in axes.items():
        points = []
        for case in cases:
            if case not in measured and case != base and time.monotonic() > deadline:
                print(f"{preset:<8}{_words(case):<36}left out: --seconds {options.seconds:g} are over", flush=True)
                continue
            if case not in measured:
                row = measured[case] = measure_case(scene, preset, case, options.periods, device)
                print(f"{preset:<8}{_words(case):<36}{row['ms']['mean']:>9.1f} ms a frame", flush=True)
            points.append(measured[case])
        yield axis, points


def measure_case(scene: Scene, preset: str, case: Case, periods: int, device: torch.device) -> dict[str, Any]:
    """Cost per frame: mean and median, and the mean of each stage, milliseconds."""
    config = TrackerConfig.from_preset(preset, **{**FIRST_FRAME, "candidates": case.candidates})
    frames = config.long_interval * (1 if case.targets > _MANY else periods)
    size = SIZES[case.size]
    tracker = Tracker(config, device=device)
    tracker.init(scene.frame(0, size), scene.boxes(0, case.targets, size))
    seconds, stages, iterations, found = [], defaultdict[str, float](float), 0, []
    for index in range(1, frames + 2):
        image = scene.frame(index, size)
        tracker.clock.lap()
        started = time.perf_counter()
        result = tracker.update(image)
        laps = tracker.clock.lap()  # waits for a GPU
        elapsed = time.perf_counter() - started
        if index == 1:  # compiles and allocates
            continue
        seconds.append(elapsed)
        iterations += sum(update.iterations for update in result.updates if update)
        found.append(np.mean(overlaps(result.boxes_xywh, scene.boxes(index, case.targets, size)) > 0.5))
        for stage, stage_s in laps.items():
            stages[stage] += stage_s
    return {
        "size": case.size,
        "targets": case.targets,
        "candidates": config.candidates,
        "frames": frames,
        "ms": {"mean": 1000 * statistics.fmean(seconds), "median": 1000 * statistics.median(seconds)},
        "stages_ms": {stage: 1000 * stages[stage] / frames for stage in _STAGES},
        "iterations": iterations / frames,
        "followed": float(np.mean(found)),
    }


def long_sequence(scene: Scene, preset: str, frames: int, device: torch.device) -> dict[str, Any]:
    """Cost per frame and memory over a sequence of so many frames, in at most 50 parts."""
    tracker = Tracker(TrackerConfig.from_preset(preset, **{**FIRST_FRAME, **LONG}), device=device)
    tracker.init(*scene.close_up(0))
    part = max(1, frames // _BINS)
    points, followed, began = [], 0, time.perf_counter()
    for index in range(1, frames + 1):
        image, box_xywh = scene.close_up(index)
        result = tracker.update(image)
        tracker.clock.lap()
        followed += int(overlaps(result.boxes_xywh, box_xywh[None])[0] > 0.5)
        if index % part == 0:
            now = time.perf_counter()
            points.append({"frame": index, "ms": 1000 * (now - began) / part, **_memory(device)})
            began = time.perf_counter()
    print(f"{preset:<8}{f'{frames} frames':<36}{points[-1]['ms']:>9.1f} ms a frame", flush=True)
    return {"preset": preset, "changes": LONG, "followed": followed / frames, "points": points}


def _memory(device: torch.device) -> dict[str, float]:
    """Megabytes: resident, and on a GPU what its tensors take."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found = {"resident_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6}
    except OSError:
        raise InputError("the memory of a process is read from /proc, which is not here: give --length 0") from None
    if device.type == "cuda":
        found["device_mb"] = torch.cuda.memory_allocated(device) / 1e6
    return found


def _words(case: Case) -> str:
    return f"{case.size}, {case.targets} target{'s' * (case.targets > 1)}, {case.candidates} candidates"


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
