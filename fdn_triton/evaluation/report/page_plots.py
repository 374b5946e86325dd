"""The plots of the page: inline SVG whose colours come from the page's style sheet, so that they follow its theme."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..summary import OURS, Evaluation
from .markup import Markup, element
from .plots import Plot, line_styles

_WIDTH, _HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 10, 44
_STRETCHES = 300  # of a sequence, of each of which overlap_figure shows the lowest value


def plot_figure(plot: Plot, evaluation: Evaluation) -> Markup:
    """The plot with its legend, best tracker first."""
    styles = line_styles(evaluation.trackers)
    ranked = plot.ranked(evaluation.trackers.values())
    curves: list[Markup] = []  # in the order of drawing: ours on top, then the better ones
    legend = []
    for tracker in ranked:
        style = _line(styles[tracker.name], tracker.name == OURS)
        x, y = _position(plot.thresholds / plot.upper, plot.curve(tracker.curves))
        value = f"{plot.value(tracker):.3f}"
        title = element("title", f"{tracker.name}: {value}")
        curve = element("g", title, element("polyline", points=_points(x, y), **style), data_tracker=tracker.name)
        curves.insert(len(curves) if tracker.name == OURS else 0, curve)
        name = element("span", tracker.name, class_="name")
        sample = swatch(styles[tracker.name], tracker.name == OURS)
        legend.append(element("li", sample, name, element("span", value), data_tracker=tracker.name))
    trackers = "1 tracker" if len(ranked) == 1 else f"{len(ranked)} trackers"
    image = element(
        "svg",
        *_axes(plot),
        *curves,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="plot",
        role="img",
        aria_label=f"{plot.title} of {trackers} against {plot.x_label}; their scores are in the legend",
    )
    caption = element("figcaption", element("h3", plot.title), element("p", f"Number: {plot.score_label}"))
    return element("figure", caption, image, element("ol", *legend, class_="legend"), class_="curves", id=plot.name)


def swatch(style: tuple[int, tuple[float, ...]], ours: bool) -> Markup:
    """A piece of a tracker's line, to be put before its name; ``style`` is of :func:`~.plots.line_styles`."""
    piece = element("path", d="M1 5H29", **_line(style, ours))
    return element("svg", piece, viewBox="0 0 30 10", class_="swatch", aria_hidden="true")


def _line(style: tuple[int, tuple[float, ...]], ours: bool) -> dict[str, str | None]:
    """The attributes of a curve's element."""
    color, dashes = style
    return {
        "class_": f"line line-{color}" + (" ours" if ours else ""),
        "stroke_dasharray": " ".join(f"{2 * dash:g}" for dash in dashes) or None,
    }


def overlap_figure(overlap: NDArray[np.float64], marked: list[int]) -> Markup:
    """Overlap over time, a small curve with a dot at each marked frame.

    Args:
        overlap: [N], NaN where there is no ground truth; not all of it is.
        marked: indices of frames.
    """
    width, height, edge = 1000, 100, 8
    x = edge + np.arange(len(overlap)) / max(1, len(overlap) - 1) * (width - 2 * edge)
    y = edge + (1 - overlap) * (height - 2 * edge)
    dots = "".join(f"M{x[k]:.1f} {y[k]:.1f}h0" for k in marked)
    stretches = np.array_split(np.arange(len(overlap)), min(len(overlap), _STRETCHES))
    lowest = [stretch[np.nanargmin(overlap[stretch])] for stretch in stretches if np.isfinite(overlap[stretch]).any()]
    return element(
        "svg",
        element("path", d=f"M0 {height / 2:g}H{width}", class_="grid"),
        element("polyline", points=_points(x[lowest], y[lowest]), class_="line line-0"),
        element("path", d=dots, class_="dots"),
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",  # as wide as the page, and no higher on a wide page than on a narrow one
        class_="overlap",
        role="img",
        aria_label=f"Overlap over {len(overlap)} frames, mean {np.nanmean(overlap):.2f}",
    )


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """The ``points`` of a polyline."""
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _position(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the axes, 0 to 1 -> pixels of the picture."""
    return _LEFT + x * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM)


def _axes(plot: Plot) -> list[Markup]:
    """Grid, numbers and labels of a plot whose vertical axis runs from 0 to 1."""
    ticks = np.linspace(0, 1, 6)
    xs, ys = _position(ticks, ticks)
    right, top = _WIDTH - _RIGHT, _TOP
    grid = "".join(f"M{_LEFT} {y:.1f}H{right}" for y in ys) + "".join(f"M{x:.1f} {ys[0]:.1f}V{top}" for x in xs)
    parts = [element("path", d=grid, class_="grid")]
    if plot.marked is not None:
        x = _position(np.array([plot.marked / plot.upper]), np.zeros(1))[0][0]
        parts.append(element("path", d=f"M{x:.1f} {ys[0]:.1f}V{top}", class_="mark"))
    for share, x, y in zip(ticks, xs, ys, strict=True):
        parts.append(element("text", f"{share * plot.upper:g}", x=f"{x:.1f}", y=f"{ys[0] + 17:.1f}", class_="tick"))
        parts.append(element("text", f"{share:g}", x=_LEFT - 8, y=f"{y + 4:.1f}", class_="tick end"))
    middle = f"{(_LEFT + right) / 2:g}"
    parts.append(element("text", plot.x_label, x=middle, y=_HEIGHT - 6, class_="label"))
    turned = f"rotate(-90) translate({-(_TOP + _HEIGHT - _BOTTOM) / 2:g} 12)"
    parts.append(element("text", plot.y_label, transform=turned, class_="label"))
    return parts
