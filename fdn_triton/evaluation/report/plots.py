"""Success, precision and normalised precision plots as the field draws them: a curve per tracker, the legend by score.

:data:`PLOTS` and the colours serve the files written here (matplotlib, extra ``eval``) and the page alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...results import unwritable
from ..metrics import SUCCESS_THRESHOLDS
from ..profiles import NORM_PRECISION_THRESHOLDS, PRECISION_THRESHOLDS, Curves
from ..summary import OURS, Evaluation, TrackerScore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The first colour is ours. Neighbours differ in lightness too, for readers who see few colours, and every colour
# stands out from its background by 3:1 or more. Where trackers outnumber the colours, dashes tell them apart.
LIGHT = ("#d1490c", "#2274c4", "#119c8d", "#5b2a86", "#b28a00", "#6b7280")
DARK = ("#ff7a3d", "#62b0ff", "#4fd6ae", "#9a5fe0", "#f0d060", "#8d97a5")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2))


@dataclass(frozen=True, eq=False)
class Plot:
    """One kind of curve.

    Attributes:
        name: of the attribute of :class:`Curves` and of the files.
        title, x_label, y_label: as drawn.
        thresholds: [K], from 0 up.
        score: the attribute of :class:`Curves` that ranks the trackers.
        score_label: what the numbers in the legend are.
        marked: the threshold whose value is the score; None where the score is the area under the curve.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    thresholds: NDArray[Any]
    score: str
    score_label: str
    marked: float | None = None

    def curve(self, curves: Curves) -> NDArray[np.float64]:
        """[K] shares of frames, one per threshold."""
        return getattr(curves, self.name)

    @property
    def upper(self) -> float:
        """The last threshold, where the plot ends."""
        return float(self.thresholds[-1])

    def value(self, tracker: TrackerScore) -> float:
        """The tracker's score."""
        return float(getattr(tracker.curves, self.score))

    def ranked(self, trackers: Iterable[TrackerScore]) -> list[TrackerScore]:
        """Best first; of equals the first given first."""
        return sorted(trackers, key=self.value, reverse=True)


PLOTS = (
    Plot(
        "success", "Success", "overlap threshold", "share of frames", SUCCESS_THRESHOLDS,
        "auc", "area under the curve",
    ),
    Plot(
        "precision", "Precision", "centre error threshold, pixels", "share of frames", PRECISION_THRESHOLDS,
        "precision_20", "share within 20 pixels", 20.0,
    ),
    Plot(
        "norm_precision", "Normalised precision", "centre error threshold, target sizes", "share of frames",
        NORM_PRECISION_THRESHOLDS, "norm_precision_score", "share within 0.2 target sizes", 0.2,
    ),
)  # fmt: skip


def line_styles(names: Iterable[str]) -> dict[str, tuple[int, tuple[float, ...]]]:
    """Tracker -> colour, as an index of :data:`LIGHT`, and dashes, the same in every plot; no other has our colour."""
    others = len(LIGHT) - 1
    styles: dict[str, tuple[int, tuple[float, ...]]] = {OURS: (0, ())}
    for k, name in enumerate(name for name in names if name != OURS):
        styles[name] = 1 + k % others, DASHES[k // others % len(DASHES)]
    return styles


def draw(plot: Plot, evaluation: Evaluation) -> Figure:
    """The plot as a figure of its own; nothing of pyplot is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    styles = line_styles(evaluation.trackers)
    lines, labels = [], []
    for tracker in plot.ranked(evaluation.trackers.values()):
        color, dashes = styles[tracker.name]
        (line,) = axes.plot(
            plot.thresholds,
            plot.curve(tracker.curves),
            color=LIGHT[color],
            linestyle=(0, dashes) if dashes else "-",
            linewidth=2.8 if tracker.name == OURS else 1.5,
            zorder=3 if tracker.name == OURS else 2,
        )
        lines.append(line)
        labels.append(f"{tracker.name} [{plot.value(tracker):.3f}]")
    if plot.marked is not None:
        axes.axvline(plot.marked, color="#9ca3af", linewidth=0.8, linestyle=":", zorder=1)
    axes.set(
        xlim=(0, plot.upper), ylim=(0, 1), xlabel=plot.x_label, ylabel=plot.y_label,
        title=f"{plot.title}: {evaluation.benchmark} {evaluation.protocol.upper()}",
    )  # fmt: skip
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        lines, labels, title=plot.score_label, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
        fontsize=9, title_fontsize=9, alignment="left",
    )  # fmt: skip
    for text in (*legend.get_texts(), axes.title):
        text.set_parse_math(False)  # a dollar sign in a name is a dollar sign
    return figure


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``success``, ``precision`` and ``norm_precision`` as ``.png`` and ``.svg``; the paths written.

    Raises:
        InputError: matplotlib is missing, or a file cannot be written.
    """
    check_matplotlib()
    import matplotlib

    written = []
    for plot in PLOTS:
        figure = draw(plot, evaluation)
        for suffix in (".png", ".svg"):
            path = folder / f"{plot.name}{suffix}"
            # Text stays text, and no date or random names: the same results give the same file.
            try:
                with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
                    figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == ".svg" else None)
            except OSError as error:
                raise unwritable(path, error) from None
            written.append(path)
    return written


def check_matplotlib() -> None:
    """Find out now whether plots can be drawn, before hours of work end without them.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError("the report needs matplotlib: pip install 'fdn-triton[eval]'") from None
