"""Print the README's tables from ``perf/results/*.json``: ``python perf/tables.py``.

Each JSON is what ``python -m fdn_triton.track --seq OTB/<sequence> --seed <seed> --json FILE`` writes.
"""

from __future__ import annotations

import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    print(tracking_table(load()))


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All summaries of tracking runs, sorted."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("track-*.json"))]
    return sorted(runs, key=_group)


def tracking_table(runs: list[dict[str, Any]]) -> str:
    """A row per sequence and device: medians over the seeds of speed, means of accuracy."""
    lines = [
        "| sequence | frames | device | date | weights | seeds | precision | AUC | first frame, s | fps end to end "
        "| read / features / score / collect / update, ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, group in groupby(runs, _group):
        same = list(group)
        sequence, preset, device, date, weights = key
        stages = " / ".join(
            f"{statistics.median(run['stages_ms'][stage]['mean'] for run in same):.0f}"
            for stage in ("read", "features", "score", "collect", "update")
        )
        lines.append(
            f"| {sequence} ({preset}) | {same[0]['frames']} | {device} | {date} | {weights} "
            f"| {', '.join(str(run['seed']) for run in same)} "
            f"| {statistics.fmean(run['precision'] for run in same):.3f} "
            f"| {statistics.fmean(run['auc'] for run in same):.3f} "
            f"| {statistics.median(run['first_frame_s'] for run in same):.1f} "
            f"| {statistics.median(run['fps']['end_to_end'] for run in same):.2f} | {stages} |"
        )
    return "\n".join(lines)


def _group(run: dict[str, Any]) -> tuple[str, str, str, str, str]:
    device = f"{run['cpu']['name']}, {run['cpu']['threads']} threads" if run["device"] == "cpu" else run["device"]
    return run["sequence"], run["preset"], device, run["date"], run["weights"]["name"]


if __name__ == "__main__":
    main()
