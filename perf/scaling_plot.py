"""The plot of what ``perf/scaling.py`` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tables import device_of

from fdn_triton.evaluation.report.plots import LIGHT

_AXES = (
    ("size", "size", "height of the frame"),
    ("targets", "targets", "targets"),
    ("candidates", "candidates", "candidates a target"),
)


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw cost per frame over each thing that was varied, and cost and memory over the long sequence, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels: Any = figure.subplots(2, 2)
    for panel, (axis, key, label) in zip(panels.flat, _AXES, strict=False):
        for color, (preset, sweep) in zip(LIGHT, sorted(result["sweeps"].items(), reverse=True), strict=False):
            points = sweep.get(axis, [])
            names = [str(point[key]) for point in points]
            panel.plot(names, [point["ms"]["mean"] for point in points], color=color, marker="o", label=preset)
            panel.plot(names, [point["ms"]["median"] for point in points], color=color, linewidth=0.8, linestyle=":")
        panel.set(xlabel=label, ylabel="ms a frame", yscale="log" if axis == "targets" else "linear")
        if axis != "targets":
            panel.set_ylim(0, None)
        _tidy(panel)
        panel.legend(frameon=False, title="mean; dotted: median", title_fontsize=8, fontsize=9)
    if result["length"]:
        _draw_length(panels.flat[3], result["length"])
    else:
        panels.flat[3].set_axis_off()
    figure.suptitle(f"Cost of a frame, {device_of(result)}, {result['date']}", fontsize=10)
    # Text stays text, and no date or random names: the same results give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})


def _draw_length(panel: Any, length: dict[str, Any]) -> None:
    points = length["points"]
    frames = [point["frame"] for point in points]
    panel.plot(frames, [point["ms"] for point in points], color=LIGHT[0])
    panel.set(xlabel=f"frame of one sequence ({length['preset']}, small frames)", ylim=(0, None))
    panel.set_ylabel("ms a frame", color=LIGHT[0])
    _tidy(panel)
    memory = panel.twinx()
    for key, dashes in (("resident_mb", "-"), ("device_mb", "--")):
        if key in points[0]:
            memory.plot(frames, [point[key] for point in points], color=LIGHT[1], linestyle=dashes)
    memory.set(ylim=(0, None))
    memory.set_ylabel("memory of the process, MB", color=LIGHT[1])
    memory.spines[["top"]].set_visible(False)


def _tidy(panel: Any) -> None:
    panel.grid(color="#e5e7eb", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
