"""Time the operations and what else computes them on a GPU: ``python perf/gpu.py``; ``perf/gpu.sh`` tests them first.

Prints a table and writes ``perf/results/gpu-<device>-<date>.json``. Every provider is checked against the operation's
reference before it is timed. Times are medians (quartiles are in the JSON) of CUDA graph replays over inputs that
together exceed the cache (marked "e": CUDA events around plain launches, "c": the host's clock). "wall" is one call as
the host sees it, launch and wait included. The floor is the largest of: an empty kernel, the least bytes over the copy
rate, bytes gathered over the L2 rate, and operations over the rate of a large matrix product, all measured on the same
device. "x ours" above 1 means that ours is faster. One that fails is reported, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmarks import PARTS
from comparison import Row, Task, compare
from floors import Floors, environment, measure_floors
from measure import MARKS, SAMPLES
from own_process import in_own_process
from parts import OURS, QUICK, Sizes
from sweep import sweep

RESULTS = Path(__file__).parent / "results"
_COLUMNS = (
    ("operation", 23),
    ("shape", 24),
    ("dtype", 5),
    ("provider", 26),
    ("device us", 10),
    ("wall us", 9),
    ("rate", 12),
    ("floor us", 9),
    ("x floor", 7),
    ("x ours", 7),
)


def main() -> int:
    options = _options()
    deadline = time.monotonic() + options.seconds
    sizes, samples = (QUICK, 5) if options.quick else (Sizes(), SAMPLES)
    if options.sweep:
        return _print_sweep(Task(tuple(options.op), False, sizes, options.device, None, samples=10), options.seconds)

    try:
        ((floors, known),) = in_own_process(
            floors_and_environment, (options.device, options.quick), min(60, options.seconds)
        )
    except RuntimeError as error:
        print(f"no floors: {error}")
        floors, known = None, {}
    floors_failed = floors is None and time.monotonic() < deadline
    if floors:
        print(", ".join(f"{key} {value}" for key, value in known.items()))
        print(f"{_in_words(floors)}\n")

    ops = tuple(options.op)
    if options.quick:
        tasks = [Task(ops, False, sizes, options.device, floors, samples)]
    else:  # torch.compile comes last: it takes the most time, and is missed the least
        tasks = [Task((op,), False, sizes, options.device, floors, samples) for op in ops]
        tasks.append(Task(ops, True, sizes, options.device, floors, samples))
    rows: list[Row] = []
    print(_line(name for name, _ in _COLUMNS))
    print(_line("-" * width for _, width in _COLUMNS))
    for task in tasks:
        for row in _rows_until(deadline, task):
            rows.append(row)
            print(_line(_cells(row, _ours(row, rows))), flush=True)

    path = options.json
    if path is None and options.device != "cpu" and not options.quick:
        path = RESULTS / _file_name(known)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {**known, "floors": floors and asdict(floors), "rows": [_record(row) for row in rows]}
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten to {path}")
    failed = [row for row in rows if row.times is None and not row.skipped]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} rows measured or skipped, {len(failed)} failed")
    return 1 if failed or floors_failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"cuda or cpu (default here: {default})")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: a test of this program, not of the kernels")
    every = list(PARTS)
    parser.add_argument("--op", nargs="+", choices=every, default=every, metavar="OP", help=f"of {', '.join(every)}")
    parser.add_argument("--seconds", type=float, default=300, help="start nothing and stop all after this time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument("--sweep", action="store_true", help="instead, try other launch configurations of our kernels")
    options = parser.parse_args()
    if options.sweep and options.device == "cpu":
        parser.error("a sweep needs a GPU")
    return options


def floors_and_environment(argument: tuple[str, bool]) -> Iterator[tuple[Floors, dict[str, Any]]]:
    """Of this device; on small sizes if the second is set."""
    device = torch.device(argument[0])
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else torch.no_grad():
        yield measure_floors(device, argument[1]), environment(device)


def _rows_until(deadline: float, task: Task) -> Iterator[Row]:
    """The task's rows, and one more that says so if it failed or there was no time."""
    rest = deadline - time.monotonic()
    if rest <= 0:
        yield Row(", ".join(task.ops), "", "", "all", problem="out of time", skipped=True)
        return
    try:
        yield from in_own_process(compare, task, rest)
    except RuntimeError as error:
        yield Row(", ".join(task.ops), "", "", "the rest", problem=str(error))


def _print_sweep(task: Task, seconds: float) -> int:
    """For every shape the chosen configuration and the fastest one, in the order of ``_select_config``'s result."""
    print("| sweep | shape | dtype | chosen | us | fastest | us | chosen / fastest | tried | of them unusable |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    try:
        for s in in_own_process(sweep, task, seconds):
            times = f"{s.chosen} | {s.chosen_us:.2f} | {s.best} | {s.best_us:.2f} | {s.chosen_us / s.best_us:.2f}"
            print(f"| {s.what} | {s.shape} | {s.dtype} | {times} | {s.tried} | {s.unusable} |", flush=True)
    except RuntimeError as error:
        print(f"FAILED: {error}")
        return 1
    return 0


def _ours(row: Row, rows: list[Row]) -> Row | None:
    """Our row at the same shape, if it was measured."""
    key = (row.op, row.shape, row.dtype, OURS)
    return next((r for r in rows if (r.op, r.shape, r.dtype, r.provider) == key and r.times), None)


def _cells(row: Row, ours: Row | None) -> list[str]:
    where = [row.op, row.shape, row.dtype, row.provider]
    if row.times is None:
        return [*where, ("skipped: " if row.skipped else "FAILED: ") + row.problem]
    device_us = row.times.device.median
    assert row.work is not None
    if row.work.flops:
        rate = f"{row.work.flops / device_us / 1e6:.3g} TFLOP/s"
    else:
        rate = f"{row.work.bytes / device_us / 1e3:.3g} GB/s"
    floor = [f"{row.floor[0]:.2f}", f"{device_us / row.floor[0]:.2f}"] if row.floor else ["", ""]
    against = f"{device_us / ours.times.device.median:.2f}" if ours and ours.times else ""
    return [
        *where,
        f"{device_us:.2f}{MARKS[row.times.method]}",
        f"{row.times.wall.median:.1f}",
        rate,
        *floor,
        against,
    ]


def _line(cells: Any) -> str:
    widths = (width for _, width in _COLUMNS)
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)) + " |"


def _record(row: Row) -> dict[str, Any]:
    """The row for the JSON: what is unknown is left out."""
    return {
        key: value for key, value in asdict(row).items() if value is not None and value != "" and value is not False
    }


def _in_words(floors: Floors) -> str:
    rates = ", ".join(f"{name} products {rate / 1e12:.3g} TFLOP/s" for name, rate in floors.matmul.items())
    return (
        f"empty kernel {floors.empty_us:.2f} us, copy {floors.copy / 1e9:.4g} GB/s, "
        f"gather {floors.gather / 1e9:.4g} GB/s, {rates}"
    )


def _file_name(known: dict[str, Any]) -> str:
    device = re.sub(r"[^a-z0-9]+", "-", str(known.get("device")).lower()).strip("-")
    return f"gpu-{device}-{known.get('date')}.json"


if __name__ == "__main__":
    sys.exit(main())
