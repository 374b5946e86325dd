"""A picture of a training's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_VALIDATED = ("top1", "accuracy", "precision", "auc")


def plot_log(rows: list[dict[str, float]], path: Path) -> None:
    """Draw loss and what validation measured over the steps; nothing where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    loss_axes: Any = figure.subplots()
    loss_axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], color="0.6", label="loss")
    loss_axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    shares = loss_axes.twinx()
    for name in _VALIDATED:
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            shares.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    shares.set(ylim=(0, 1), ylabel="share")
    figure.legend(loc="upper center", ncols=5, frameon=False)
    figure.savefig(path)
