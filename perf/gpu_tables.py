"""The README's tables of what ``perf/gpu_tracking.py`` and ``perf/gpu.py`` measured on GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_tracking import OURS, TABLE_HEAD, Row, comparisons, failed, table_line
from measure import MARKS

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
    rows = [Row(**row) for row in result["rows"]]
    table = [TABLE_HEAD, *(table_line(row) for row in rows)]
    return "\n".join([_where(result), "", *table, "", *(f"- {sentence}" for sentence in comparisons(rows))])


def _operations(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        _where(result),
        "",
        "| operation | shape | dtype | ours, us | x floor | times as fast as |",
        "|---|---|---|---|---|---|",
    ]
    providers: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in result["rows"]:
        where = row["op"], row.get("shape", ""), row.get("dtype", "")
        providers.setdefault(where, {})[row["provider"]] = row
    for where, rows in providers.items():
        own = rows.pop(OURS, None)
        if own is None:  # what there was no time for
            continue
        if "times" in own:
            us = own["times"]["device"]["median"]
            floor = f"{us / own['floor'][0]:.1f}" if own.get("floor") else ""
            cells = [f"{us:.1f}{_mark(own)}", floor, ", ".join(_against(rows, us))]
        else:
            cells = [failed(own["problem"]), "", ""]
        lines.append(f"| `{where[0]}` | {' | '.join([*where[1:], *cells])} |")
    return "\n".join(lines)


def _where(result: dict[str, Any]) -> str:
    versions = [f"{key} {result[key]}" for key in ("torch", "triton") if key in result]
    return ", ".join(filter(None, [result.get("device", "a GPU"), result.get("date"), *versions])) + ":"


def _against(rows: dict[str, Any], ours_us: float) -> Iterator[str]:
    for name, row in rows.items():
        if "times" in row:
            yield f"{name}: {row['times']['device']['median'] / ours_us:.2f}{_mark(row)}"
        elif not row.get("skipped"):
            yield f"{name}: {failed(row['problem'])}"


def _mark(row: dict[str, Any]) -> str:
    return MARKS[row["times"]["method"]]
