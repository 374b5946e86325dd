"""The README's tables of what ``perf/gpu_tracking.py`` and ``perf/gpu.py`` measured on GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from gpu_tracking import OURS, STAGES, Row, comparisons

RESULTS = Path(__file__).parent / "results"
_NONE = "Not recorded here yet."


def gpu_tracking_table(folder: Path = RESULTS) -> str:
    """Per GPU, a row per way of tracking and number of targets, and what is to be held against them."""
    return "\n\n".join(_tracking(path) for path in sorted(folder.glob("gpu-tracking-*.json"))) or _NONE


def gpu_operations_table(folder: Path = RESULTS) -> str:
    """Per GPU, a row per operation, shape and dtype: ours, against its floor and against what else computes it."""
    paths = sorted(set(folder.glob("gpu-*.json")) - set(folder.glob("gpu-tracking-*.json")))
    return "\n\n".join(_operations(path) for path in paths) or _NONE


def _tracking(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"{result['device']}, {result['date']}, torch {result['torch']}, triton {result['triton']}:",
        "",
        "| tracker | targets | frames/s | iterations a frame | "
        + " | ".join(f"{s}, ms (x floor)" for s in STAGES)
        + " |",
        "|---|---|---|---|" + "---|" * len(STAGES),
    ]
    rows = [Row(**row) for row in result["rows"]]
    for row in rows:
        if row.fps is None or row.stages_ms is None:
            lines.append(f"| {row.provider} | {row.targets} | failed: {row.problem} |" + " |" * (1 + len(STAGES)))
            continue
        floors = row.floors_ms or {}
        stages = (
            f"{row.stages_ms[s]:.2f}" + (f" ({row.stages_ms[s] / floors[s]:.0f})" if s in floors else "")
            for s in STAGES
        )
        lines.append(
            f"| {row.provider} | {row.targets} | {row.fps:.1f} | {row.iterations:.2f} | {' | '.join(stages)} |"
        )
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in comparisons(rows))])


def _operations(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"{result['device']}, {result['date']}, torch {result['torch']}, triton {result['triton']}:",
        "",
        "| operation | shape | dtype | ours, us | x floor | times as fast as |",
        "|---|---|---|---|---|---|",
    ]
    for (op, shape, dtype), group in groupby(
        result["rows"], lambda row: (row["op"], row.get("shape"), row.get("dtype"))
    ):
        rows = {row["provider"]: row for row in group}
        if OURS not in rows or "times" not in rows[OURS]:
            continue
        own = rows.pop(OURS)
        us = own["times"]["device"]["median"]
        lines.append(
            f"| `{op}` | {shape} | {dtype} | {us:.1f} | {us / own['floor'][0]:.1f} | {', '.join(_against(rows, us))} |"
        )
    return "\n".join(lines)


def _against(rows: dict[str, Any], ours_us: float) -> Iterator[str]:
    for name, row in rows.items():
        if "times" in row:
            yield f"{name}: {row['times']['device']['median'] / ours_us:.2f}"
        elif not row.get("skipped"):
            yield f"{name}: {row['problem']}"
