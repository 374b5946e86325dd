"""Print the tables of the README and of the weights' card from ``perf/results/*.json``: ``python perf/tables.py``.

``--write`` puts them into the texts, each between ``<!-- name -->`` and ``<!-- /name -->``.
``track-*.json`` is what ``python -m fdn_triton.track --seq OTB/<sequence> --seed <seed> --json FILE`` writes,
``otb-<weights>.json`` the ``summary.json`` of ``python -m fdn_triton.evaluate otb --compare PUBLISHED``,
``peers-*.json`` what ``python perf/peers.py`` writes, ``scaling-<device>.json`` what ``python perf/scaling.py`` does,
``gpu-*.json`` what ``perf/gpu.sh`` does, ``fast-choice.json`` and ``held-out*.json`` what ``python perf/held_out.py``
does, ``ablation*.json`` what ``python -m fdn_triton.evaluate ablation`` does.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from gpu_tables import gpu_operations_table, gpu_tracking_table

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
CARD = Path(__file__).parents[1] / "fdn_triton" / "weights" / "README.md"


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        for path, name, table in places():
            path.write_text(with_table(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")
    else:
        print(*(table for _, _, table in places()), sep="\n\n")


def places() -> list[tuple[Path, str, str]]:
    """Every table: the text it is in, the name of its place there, and the table."""
    return [
        (README, "accuracy", accuracy_table()),
        (README, "ablation", ablation_table(RESULTS / "ablation.json")),
        (README, "ablation-short", ablation_table(RESULTS / "ablation-short.json")),
        (README, "measured", tracking_table(load())),
        (README, "presets", held_out_table()),
        (README, "peers", peers_table()),
        (README, "scaling", scaling_tables()),
        (README, "gpu-tracking", gpu_tracking_table()),
        (README, "gpu-operations", gpu_operations_table()),
        (CARD, "sequences", sequence_table()),
        (CARD, "held-out-size", held_out_table(RESULTS / "held-out-size.json")),
        (CARD, "held-out-turned", held_out_table(RESULTS / "held-out-turned.json")),
        (CARD, "held-out-samples", held_out_table(RESULTS / "held-out-samples.json")),
        (CARD, "held-out-fourth-step", held_out_table(RESULTS / "held-out-fourth-step.json")),
        (CARD, "held-out-crowds", held_out_table(RESULTS / "held-out-crowds.json")),
        (CARD, "held-out-gpu", held_out_table(RESULTS / "held-out-gpu.json")),
        (CARD, "held-out-small", held_out_table(RESULTS / "held-out-small.json")),
        (CARD, "held-out", held_out_table(RESULTS / "held-out.json")),
    ]


def with_table(text: str, name: str, table: str) -> str:
    """The text with this table in its place.

    Raises:
        ValueError: it has no such place, or several.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.S)
    new, count = place.subn(lambda match: f"{match[1]}{table}{match[2]}", text)
    if count != 1:
        raise ValueError(f"{count} places <!-- {name} --> instead of one")
    return new


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
        scores = score, classified[name], mdnet[name]
        cells = [f"{_with_spread(each, 'precision')} / {_with_spread(each, 'auc')}" for each in scores]
        lines.append(f"| {name} | {mdnet[name]['frames']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation_table(path: Path) -> str:
    """What was run, and a row per variant that was, with the paper's ordering beside ours."""
    if not path.exists():
        return "Not recorded here yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "; ".join(f"{key}: {value}" for key, value in result["settings"].items()) + ".",
        "",
        "| variant | precision | AUC | iterations an update | fps | against | difference of AUC "
        "| iterations, fps: ratio | paper | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["variants"].items():
        if "auc" not in row:
            continue
        other, paper = row["comparison"], row["paper"]
        own = "" if row["weights"]["own"] else " (the method's weights)"
        cells = [f"{name}{own}", f"{row['precision']:.3f}", f"{row['auc']:.3f}"]
        cells += [_number(row["iterations_per_update"]), _number(row["fps"])]
        if other:
            error = "" if other["auc_standard_error"] is None else f" ± {other['auc_standard_error']:.3f}"
            ratios = ", ".join(_number(other[f"{measure}_ratio"]) for measure in ("iterations", "fps"))
            cells += [other["against"], f"{other['auc_difference']:+.3f}{error}", ratios]
            found = [f"{measure} {relation}" for measure, relation in paper["ordering"].items()] if paper else []
            cells += [f"{', '.join(found)} ({paper['source']})" if found else "–", other["verdict"]]
        lines.append(f"| {' | '.join(cells)}{' | –' * (10 - len(cells))} |")
    missing = [
        f"`{name}` ({row['left_out'] or 'failed'})" for name, row in result["variants"].items() if "auc" not in row
    ]
    return "\n".join([*lines, *(["", f"Left out: {'; '.join(missing)}."] if missing else [])])


def held_out_table(path: Path = RESULTS / "fast-choice.json") -> str:
    """A row per set of numbers that was tried, in the order of the file, which ``perf/held_out.py`` writes."""
    lines = [
        "| numbers | changes | precision | AUC | seeds | CPU ms a frame | iterations a frame | first frame, CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in json.loads(path.read_text(encoding="utf-8")).items():
        mean, seeds = result["mean"], sorted({run["seed"] for run in result["runs"]})
        changes = ", ".join(f"{key} {value}" for key, value in result["changes"].items())
        base = "" if result["preset"] == name else f"{result['preset']}; " if changes else result["preset"]
        lines.append(
            f"| {name} | {base}{changes} | {mean['precision']:.3f} | {mean['auc']:.3f} "
            f"| {', '.join(map(str, seeds))} | {mean['frame_cpu_ms']:.0f} | {mean['iterations']:.2f} "
            f"| {mean['first_cpu_s']:.1f} |"
        )
    return "\n".join(lines)


def scaling_tables(folder: Path = RESULTS) -> str:
    """Per device the plot, and a row for the base case and for the ends of what was varied."""
    parts = [_scaling_table(path) for path in sorted(folder.glob("scaling-*.json"))]
    return "\n\n".join(parts) or "Not recorded here yet."


def _scaling_table(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"![Cost of a frame by size, targets, candidates and length](perf/results/{path.stem}.svg)",
        "",
        f"{device_of(result)}, {result['date']}, milliseconds a frame:",
        "",
        "| preset | frame | targets | candidates | mean | median | mean / base | features / score / collect / update |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for preset, sweep in sorted(result["sweeps"].items(), reverse=True):
        base = sweep["base"][0]["ms"]["mean"]
        shown = [*sweep["base"]]
        for axis in ("size", "candidates"):
            shown += [*sweep[axis][:1], *sweep[axis][-1:]]
        shown += [point for point in sweep["targets"] if point["targets"] == 4] + sweep["targets"][-1:]
        rows = [row for k, row in enumerate(shown) if row not in shown[:k]]
        for row in rows:
            stages = " / ".join(
                f"{row['stages_ms'][stage]:.1f}" for stage in ("features", "score", "collect", "update")
            )
            mean, median = row["ms"]["mean"], row["ms"]["median"]
            cells = f"{row['targets']} | {row['candidates']} | {mean:.1f} | {median:.1f} | {mean / base:.2f} | {stages}"
            lines.append(f"| {preset} | {row['size']} | {cells} |")
    if length := result["length"]:
        points, changes = length["points"], length["changes"]
        settings = ", ".join(f"`{name}` {value}" for name, value in changes.items())
        early, late = (
            f"{point['ms']:.1f} ms and {point['resident_mb']:.0f} MB at frame {point['frame']}"
            for point in (points[len(points) // 10], points[-1])
        )
        lines += ["", f"One long sequence (`{length['preset']}` with {settings}): {early}, {late}."]
    return "\n".join(lines)


def peers_table(path: Path = RESULTS / "peers-cpu.json") -> str:
    """A row per tracker, the fastest first, and a row per ratio with what is asked of it."""
    if not path.exists():
        return "Not recorded here yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    names = list(result["sequences"])
    lines = [
        f"{device_of(result)}, {result['date']}, fps of {', '.join(names)}:",
        "",
        f"| tracker | what it is | fps | {' / '.join(names)} | frames of each | first frame, s | precision | AUC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(result["trackers"].items(), key=lambda item: -item[1]["fps"]):
        runs = row["sequences"]
        whole = all(runs[each]["frames"] == result["sequences"][each] for each in names)
        frames = "all" if whole else ", ".join(sorted({str(run["frames"]) for run in runs.values()}))
        cells = [
            f"{row['fps']:.2f}",
            " / ".join(f"{runs[each]['fps']:.2f}" for each in names),
            frames,
            f"{row['first_frame_s']:.1f}" if "first_frame_s" in row else "",
            f"{row['precision']:.3f}" if "precision" in row else "",
            f"{row['auc']:.3f}" if "auc" in row else "",
        ]
        lines.append(f"| {name} | {row['about']} | {' | '.join(cells)} |")
    lines += ["", "| over the same frames | times as fast | asked of it | |", "|---|---|---|---|"]
    for row in result["ratios"]:
        asked, ratio = row["at_least"], row["ratio"]
        verdict = ["", ""] if asked is None else [f"{asked:g}", "held" if ratio >= asked else "**missed**"]
        lines.append(f"| {row['of']} to {row['to']} | {ratio:.2f} | {' | '.join(verdict)} |")
    for row in result["gains"]:
        verdict = ["more", "held" if row["auc"] > 0 else "**missed**"]
        lines.append(f"| {row['of']} to {row['to']}, AUC | {row['auc']:+.3f} | {' | '.join(verdict)} |")
    return "\n".join(lines)


def _evaluations() -> dict[str, dict[str, Any]]:
    paths = sorted(RESULTS.glob("otb-*.json"))
    return {path.stem.removeprefix("otb-"): json.loads(path.read_text(encoding="utf-8")) for path in paths}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _with_spread(score: dict[str, Any], name: str) -> str:
    text = f"{score[name]:.3f}"
    return f"{text} ± {score['spread'][name]:.3f}" if score["spread"] else text


def _group(run: dict[str, Any]) -> tuple[str, str, str, str, str]:
    return run["sequence"], run["preset"], device_of(run), run["date"], run["weights"]["name"]


def device_of(run: dict[str, Any]) -> str:
    """The GPU, or the processor and how many threads of it were used."""
    if run["device"] != "cpu":
        return str(run["device"])
    cpu = run["cpu"]
    return f"{cpu['name']}{'' if cpu.get('bf16', True) else ' without bf16'}, {cpu['threads']} threads"


if __name__ == "__main__":
    main()
