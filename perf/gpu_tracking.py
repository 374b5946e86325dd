"""Frames a second of the whole tracker on a GPU: ``python perf/gpu_tracking.py``; ``perf/gpu.sh`` runs it too.

640x360 frames that are decoded already, the preset ``paper`` with all its updates, from memory to boxes on the host: of
1, 8 and 64 targets of one video, and of one target by what the tracker is compared with in the same run: the same in
eager PyTorch, without this project's kernels and without graphs, and MDNet's way, a crop of its own for each box. Each
case runs in a process of its own. Stages are timed by CUDA events; their floor is the largest of: least bytes over the
copy rate, operations over the rate of a large fp16 product, an empty kernel. Writes
``perf/results/gpu-tracking-<device>-<date>.json``. One that fails is reported, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from cases import TRITON_MODULES
from floors import Floors, Work, environment, measure_floors
from numpy.typing import NDArray
from own_process import in_own_process
from scaling_scene import BASE_WH, Scene

from fdn_triton import Tracker, TrackerConfig, TrackResult, kernels
from fdn_triton.backbone import ROI_FEATURES, Backbone
from fdn_triton.evaluation.cropping import CroppedFeatures
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.frame import network_size
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.heads import HIDDEN
from fdn_triton.results import write_json

RESULTS = Path(__file__).parent / "results"
OURS, EAGER, CROPS = "fdn_triton", "eager PyTorch", "MDNet's crops"
STAGES = ("features", "score", "update")
TABLE_HEAD = (
    "| tracker | targets | frames/s | iterations a frame | followed | "
    + " | ".join(f"{stage}, ms (x floor)" for stage in STAGES)
    + " |\n|---|---|---|---|---|"
    + "---|" * len(STAGES)
)
QUICK: dict[str, Any] = {
    "short_side": 112, "max_side": 200, "least_target_size": None, "candidates": 32, "mining_negatives": 128,
    "first_iterations": 3, "bbox_regression_samples": 50, "first_positives": 50, "first_negatives": 100,
    "positives": 10, "negatives": 30,
}  # fmt: skip
_GOALS = {1: 300.0, 64: 30.0}  # frames a second
_TOGETHER = 5.0  # times as many targets' frames a second with 8 targets as with one


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        provider: whose way.
        frames: measured, after ``skipped`` ones in which kernels are compiled and graphs captured.
        quick: on small frames and with few candidates, whose figures mean nothing.
    """

    provider: str
    targets: int
    frames: int
    skipped: int
    device: str
    quick: bool


@dataclass(frozen=True)
class Row:
    """One case's result.

    Attributes:
        fps: frames a second, of all targets together.
        stages_ms: mean per frame.
        floors_ms: of the stages; empty for what is compared with.
        iterations: of the updates, mean per frame.
        followed: share of targets and frames whose box overlaps the truth by more than a half.
        problem: why there is no result.
    """

    provider: str
    targets: int
    fps: float | None = None
    stages_ms: dict[str, float] | None = None
    floors_ms: dict[str, float] | None = None
    iterations: float | None = None
    followed: float | None = None
    problem: str = ""


class _EagerFeatures(FrameFeatures):
    """Without a graph."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._capture = False


def measure_case(case: Case) -> Iterator[Row]:
    """The case's row, without floors."""
    config = TrackerConfig(**(QUICK if case.quick else {}), resize_step=None)  # floors are of one size of frames
    features: Any = {OURS: FrameFeatures, EAGER: _EagerFeatures, CROPS: CroppedFeatures}[case.provider]
    scene = Scene()
    with ExitStack() as stack:
        if case.provider == EAGER:
            stack.enter_context(without_triton())
        tracker = Tracker(config, device=case.device, features=features)
        tracker.init(scene.frame(0), scene.boxes(0, case.targets))
        if case.provider == EAGER:
            without_graphs(tracker)
        frames = (scene.frame(i) for i in range(1, case.skipped + case.frames + 1))
        _follow(tracker, islice(frames, case.skipped))
        _wait(tracker.device)
        tracker.clock.lap()
        started = time.perf_counter()
        results = _follow(tracker, frames)
        _wait(tracker.device)
        seconds = time.perf_counter() - started
        stages = tracker.clock.lap()
    truths = (scene.boxes(case.skipped + i, case.targets) for i in range(1, case.frames + 1))
    found = [overlaps(r.boxes_xywh, truth) > 0.5 for r, truth in zip(results, truths, strict=True)]
    iterations = sum(update.iterations for result in results for update in result.updates if update)
    yield Row(
        case.provider,
        case.targets,
        fps=case.frames / seconds,
        stages_ms={stage: 1000 * stages.get(stage, 0.0) / case.frames for stage in STAGES},
        iterations=iterations / case.frames,
        followed=float(np.mean(found)),
    )


def _follow(tracker: Tracker, frames: Iterable[NDArray[np.uint8]]) -> list[TrackResult]:
    return [tracker.update(frame) for frame in frames]


@contextmanager
def without_triton() -> Iterator[None]:
    """All operations go through plain PyTorch."""
    with ExitStack() as stack:
        for name in TRITON_MODULES:
            module = import_module(f"{kernels.__name__}.{name}")
            stack.enter_context(mock.patch.object(module, "runs_on_triton", lambda tensor: False))
        yield


def without_graphs(tracker: Tracker) -> None:
    """The tracker launches every operation of a search and of an iteration."""
    targets = tracker._targets
    assert targets._tuner is not None
    targets._capture, targets._tuner._captured = False, None


def floors_of(case: Case, floors: Floors, iterations: float) -> dict[str, float]:
    """Milliseconds a frame of each stage, from the least work of the paper's network and the configuration."""
    config = TrackerConfig(**QUICK) if case.quick else TrackerConfig()
    height, width = network_size(BASE_WH[1], BASE_WH[0], config.short_side, config.max_side)
    backbone = Backbone(config.network)
    with torch.device("meta"):
        x: Any = torch.empty(1, 3, height, width)
    flops, moved = 0.0, 3.0 * prod(BASE_WH)
    for i, convolution in enumerate(backbone.to("meta").convolutions()):
        y = convolution(x)
        flops += 2 * y.numel() * prod(convolution.weight.shape[1:])
        moved += 2 * (x.numel() + y.numel() + convolution.weight.numel())
        x = y[:, :, ::2, ::2] if i < 2 else y
    heads = ROI_FEATURES * HIDDEN + HIDDEN * HIDDEN + HIDDEN * 2
    candidates, samples = config.candidates, config.positives + config.negatives
    mined, batch = config.mining_negatives, config.batch_positives + config.batch_negatives
    work = {
        "features": Work(bytes=moved, flops=flops),
        # The samples' features are written to the memories.
        "score": Work(
            bytes=4.0 * case.targets * (heads + (candidates + samples) * ROI_FEATURES),
            flops=2.0 * case.targets * candidates * heads,
        ),
        # Weights and momenta are read and written; the gradient costs as much again as the forward, twice.
        "update": Work(
            bytes=4.0 * iterations * (mined * ROI_FEATURES + 4 * heads),
            flops=2.0 * iterations * heads * (mined + 3 * batch),
        ),
    }
    return {stage: floors.of(work[stage], "fp16")[0] / 1000 for stage in STAGES}


def main() -> int:
    options = _options()
    deadline = time.monotonic() + options.seconds
    device = torch.device(options.device)
    rows: list[Row] = []
    try:
        ((floors, known),) = in_own_process(_floors, (options.device, options.quick), 60)
    except RuntimeError as error:
        print(f"no floors: {error}")
        floors, known = None, {"device": str(device)}
    targets = (1, 2) if options.quick else (1, 8, 64)
    frames, skipped = (4, 2) if options.quick else (options.frames, 21)
    wanted = [(OURS, count) for count in targets] + [(EAGER, 1), (CROPS, 1)]
    path = options.json
    if path is None and not options.quick and device.type != "cpu":
        slug = "".join(c if c.isalnum() else "-" for c in str(known["device"]).lower())
        path = RESULTS / f"gpu-tracking-{slug}-{known.get('date')}.json"
    print(TABLE_HEAD)
    for provider, count in wanted:
        case = Case(provider, count, frames if provider != CROPS else max(2, frames // 10), skipped, options.device,
                    options.quick)  # fmt: skip
        rows.append(_measured(case, floors, deadline - time.monotonic()))
        print(table_line(rows[-1]), flush=True)
        if path is not None:  # after each row: who stops this has what was measured
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {**known, "floors": floors and asdict(floors), "rows": [asdict(row) for row in rows]})
    for sentence in comparisons(rows):
        print(sentence)
    if path is not None:
        print(f"written to {path}")
    return 1 if any(row.problem for row in rows) else 0


def comparisons(rows: Sequence[Row]) -> Iterator[str]:
    """What the figures are to be held against, one sentence each, for those that are there."""
    fps = {(row.provider, row.targets): row.fps for row in rows if row.fps}
    one = fps.get((OURS, 1))
    for count, goal in _GOALS.items():
        if ours := fps.get((OURS, count)):
            yield f"{count} target{'s' * (count > 1)}: {ours:.4g} frames/s, wanted {goal:g}: {_verdict(ours >= goal)}"
    if one is None:
        return
    if eight := fps.get((OURS, 8)):
        times = 8 * eight / one
        yield (
            f"8 targets: {times:.3g} times the targets' frames/s of one, wanted {_TOGETHER:g}: "
            f"{_verdict(times >= _TOGETHER)}"
        )
    for provider in (EAGER, CROPS):
        if other := fps.get((provider, 1)):
            yield f"one target: {one / other:.3g} times as fast as {provider}"


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _measured(case: Case, floors: Floors | None, seconds: float) -> Row:
    if seconds <= 0:
        return Row(case.provider, case.targets, problem="out of time")
    try:
        (row,) = in_own_process(measure_case, case, seconds)
    except RuntimeError as error:
        return Row(case.provider, case.targets, problem=str(error))
    if floors is None or case.provider != OURS:
        return row
    return Row(**{**asdict(row), "floors_ms": floors_of(case, floors, row.iterations)})


def _floors(argument: tuple[str, bool]) -> Iterator[tuple[Floors, dict[str, Any]]]:
    device = torch.device(argument[0])
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else torch.no_grad():
        yield measure_floors(device, argument[1]), environment(device)


def failed(problem: str) -> str:
    """A table's cell that says why there is no figure."""
    return "failed: " + problem.replace("|", "/")


def table_line(row: Row) -> str:
    """The row under :data:`TABLE_HEAD`."""
    cells = [row.provider, str(row.targets)]
    if row.fps is None or row.stages_ms is None:
        cells += [failed(row.problem), *[""] * (2 + len(STAGES))]
    else:
        cells += [f"{row.fps:.1f}", f"{row.iterations:.2f}", f"{row.followed:.2f}"]
        for stage in STAGES:
            ms, floor = row.stages_ms[stage], (row.floors_ms or {}).get(stage)
            cells.append(f"{ms:.2f}" + (f" ({ms / floor:.1f})" if floor else ""))
    return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"cuda or cpu (default here: {default})")
    parser.add_argument("--quick", action="store_true", help="small frames: a test of this program")
    parser.add_argument("--frames", type=int, default=200, help="measured in each case; a tenth with crops")
    parser.add_argument("--seconds", type=float, default=300, help="start nothing and stop all after this time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="of the result; on a GPU there is a default")
    return parser.parse_args()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
