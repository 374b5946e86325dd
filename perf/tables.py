"""Print the tables of the README and of the weights' card from ``perf/results/*.json``: ``python perf/tables.py``.

``track-*.json`` is what ``python -m fdn_triton.track --seq OTB/<sequence> --seed <seed> --json FILE`` writes,
``otb-<weights>.json`` the ``summary.json`` of ``python -m fdn_triton.evaluate otb --compare PUBLISHED``.
"""

from __future__ import annotations

import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    print(tracking_table(load()), accuracy_table(), sequence_table(), sep="\n\n")


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


def accuracy_table() -> str:
    """A row per tracker, the best AUC first: ours with each of the measured weights, and the published ones."""
    evaluations = _evaluations()
    scores = {f"**FDN, {name}**": summary["trackers"]["FDN"] for name, summary in evaluations.items()}
    scores |= {name: score for name, score in evaluations["fdn"]["trackers"].items() if name != "FDN"}
    lines = ["| tracker | precision | AUC | seeds |", "|---|---|---|---|"]
    for name, score in sorted(scores.items(), key=lambda item: -item[1]["auc"]):
        seeds = ", ".join(score["seeds"]) if name.startswith("**") else "published"
        lines.append(f"| {name} | {_with_spread(score, 'precision')} | {_with_spread(score, 'auc')} | {seeds} |")
    return "\n".join(lines)


def sequence_table() -> str:
    """A row per sequence: precision / AUC of the shipped weights, of the same without FC layers, and of MDNet."""
    evaluations = _evaluations()
    ours, classified = (evaluations[name]["trackers"]["FDN"]["sequences"] for name in ("fdn", "classification"))
    mdnet = evaluations["fdn"]["trackers"]["MDNet"]["sequences"]
    lines = ["| sequence | frames | fdn | classification only | MDNet, published |", "|---|---|---|---|---|"]
    for name, score in ours.items():
        cells = [f"{_with_spread(score, 'precision')} / {_with_spread(score, 'auc')}"]
        cells += [f"{other[name]['precision']:.3f} / {other[name]['auc']:.3f}" for other in (classified, mdnet)]
        lines.append(f"| {name} | {mdnet[name]['frames']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _evaluations() -> dict[str, dict[str, Any]]:
    paths = sorted(RESULTS.glob("otb-*.json"))
    return {path.stem.removeprefix("otb-"): json.loads(path.read_text(encoding="utf-8")) for path in paths}


def _with_spread(score: dict[str, Any], name: str) -> str:
    text = f"{score[name]:.3f}"
    return f"{text} ± {score['spread'][name]:.3f}" if score["spread"] else text


def _group(run: dict[str, Any]) -> tuple[str, str, str, str, str]:
    device = f"{run['cpu']['name']}, {run['cpu']['threads']} threads" if run["device"] == "cpu" else run["device"]
    return run["sequence"], run["preset"], device, run["date"], run["weights"]["name"]


if __name__ == "__main__":
    main()
