"""The report of an evaluation: one page that needs nothing but itself, and its numbers and plots as files.

The page's style sheet and script, ``page.css`` and ``page.js``, are put into it.
"""

from __future__ import annotations

import csv
import io
from importlib import resources
from pathlib import Path
from typing import Any

from ...results import unwritable, write_json
from ..summary import OURS, Evaluation, TrackerScore
from .markup import Markup, element
from .numbers import Spread, fps, our_scores, sequence_rows
from .page_plots import plot_figure
from .plots import DARK, LIGHT, PLOTS, write_plots
from .strips import strip
from .tables import (
    attribute_names,
    attribute_tables,
    pairs,
    sequence_table,
    stage_table,
    tracker_table,
    update_table,
)

_PROTOCOLS = {
    "ope": "One-pass evaluation (OPE): each sequence once, from its first frame",
    "tre": "Temporal robustness (TRE): each sequence from 20 starts spread over it",
    "sre": "Spatial robustness (SRE): each sequence from 12 first boxes, shifted and scaled",
}


def write_report(evaluation: Evaluation, out: Path, strips: bool = True) -> list[Path]:
    """Write the report into a folder.

    ``report.html``; ``success``, ``precision`` and ``norm_precision`` as ``.png`` and ``.svg``; ``sequences.csv``, the
    table per sequence; ``curves.json``, the curves of every tracker. The same evaluation gives the same files.

    Args:
        evaluation: what to report.
        out: the folder; it is made where it is missing.
        strips: put frames of the sequences into the page; they are most of its size.

    Returns:
        The files written.

    Raises:
        InputError: matplotlib is missing, or a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from None
    written = write_plots(evaluation, out)
    write_json(out / "curves.json", curves_content(evaluation))
    for name, text in (("sequences.csv", sequences_csv(evaluation)), ("report.html", page(evaluation, strips))):
        try:
            (out / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(out / name, error) from None
    return [*written, out / "curves.json", out / "sequences.csv", out / "report.html"]


def curves_content(evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``curves.json``: thresholds and curves of every tracker."""
    trackers = {
        name: {plot.name: plot.curve(tracker.curves).tolist() for plot in PLOTS}
        for name, tracker in evaluation.trackers.items()
    }
    return {
        "benchmark": evaluation.benchmark,
        "protocol": evaluation.protocol,
        "profile": evaluation.profile,
        "thresholds": {plot.name: plot.thresholds.round(6).tolist() for plot in PLOTS},
        "trackers": trackers,
    }


def sequences_csv(evaluation: Evaluation) -> str:
    """The table per sequence as CSV, a header and a row per sequence; what is not known is left empty."""
    text = io.StringIO()
    names = ("sequence", "attributes", "frames", "precision", "precision_std", "precision_min", "precision_max", "auc",
             "auc_std", "auc_min", "auc_max", "norm_precision", "fps", "iterations_per_update", "best_published",
             "best_published_precision", "best_published_auc")  # fmt: skip
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in sequence_rows(evaluation):
        writer.writerow([
            row.sequence, " ".join(row.attributes), row.frames, row.precision, *_columns(row.precision_spread), row.auc,
            *_columns(row.auc_spread), row.norm_precision, row.fps, row.iterations_per_update, row.best_published,
            row.best_precision, row.best_auc,
        ])  # fmt: skip
    return text.getvalue()


def page(evaluation: Evaluation, strips: bool = True) -> str:
    """The page as HTML."""
    ours = f"{OURS} on " if OURS in evaluation.trackers else ""
    title = f"{ours}{evaluation.benchmark}, {evaluation.protocol.upper()}"
    sections = _sections(evaluation, strips)
    links = [element("a", heading, href=f"#{name}") for name, heading, _ in sections]
    body = [
        element("header", element("h1", title), element("p", _subtitle(evaluation)), _headline(evaluation)),
        element("nav", *links, aria_label="Sections"),
        element(
            "main",
            *(element("section", element("h2", heading), *parts, id=name) for name, heading, parts in sections),
        ),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),  # or the browser asks a server for one
        element("style", Markup(_line_colors() + _source("page.css"))),
    ]
    script = element("script", Markup(_source("page.js")))
    return f"<!DOCTYPE html>\n{element('html', element('head', *head), element('body', *body, script), lang='en')}\n"


def _sections(evaluation: Evaluation, strips: bool) -> list[tuple[str, str, list[Markup]]]:
    """Id, heading and content of the sections that have something to show."""
    ours = evaluation.trackers.get(OURS)
    shown = [name for name in sorted(evaluation.tracks, key=str.casefold) if strips and ours and name in ours.sequences]
    sections: list[tuple[str, str, list[Markup]]] = []
    if evaluation.problems:
        sections.append(("problems", "Problems", [element("ul", *(element("li", p) for p in evaluation.problems))]))
    plots = element("div", *(plot_figure(plot, evaluation) for plot in PLOTS), class_="plots")
    sections.append(("curves", "Curves", [plots]))
    sections.append(("trackers", "Trackers", [tracker_table(evaluation)]))
    if ours:
        sections.append(("sequences", "Sequences", [_spread_note(ours), sequence_table(evaluation, shown)]))
    if tables := attribute_tables(evaluation):
        sections.append(("attributes", "Attributes", [*tables, attribute_names(evaluation)]))
    if speed := [table for table in (stage_table(evaluation), update_table(evaluation)) if table is not None]:
        sections.append(("speed", "Speed", [element("div", *speed, class_="beside")]))
    if ours and shown:
        parts = [strip(name, evaluation.tracks[name], ours.sequences[name]) for name in shown]
        sections.append(("frames", "Where it is worst", [_strip_legend(), *parts]))
    how = {"benchmark": evaluation.benchmark, "protocol": evaluation.protocol, "profile": evaluation.profile}
    sections.append(("settings", "Settings", [pairs("How it was run", {**how, **evaluation.settings})]))
    return sections


def _subtitle(evaluation: Evaluation) -> str:
    """Protocol, how much was run, and by whose rules it is scored."""
    parts = [_PROTOCOLS[evaluation.protocol]]
    if scores := our_scores(evaluation):
        parts += [_counted(len(scores), "sequence"), _counted(max(len(score.seeds) for score in scores), "seed")]
    return "; ".join([*parts, f"scored by the rules of the profile {evaluation.profile}."])


def _headline(evaluation: Evaluation) -> Markup | None:
    """Our scores in large print, each with its rank, and our speed."""
    ours = evaluation.trackers.get(OURS)
    if ours is None:
        return None
    tiles = []
    for plot in PLOTS:
        ranked = plot.ranked(evaluation.trackers.values())
        note = f"rank {ranked.index(ours) + 1} of {len(ranked)}" if len(ranked) > 1 else plot.score_label
        tiles.append(_tile("AUC" if plot.name == "success" else plot.title, f"{plot.value(ours):.3f}", note))
    if rate := fps(evaluation):
        tiles.append(_tile("Speed", f"{rate:.2f}", "frames per second"))
    return element("div", *tiles, class_="tiles")


def _tile(name: str, value: str, note: str) -> Markup:
    return element("p", element("span", name), element("strong", value), element("small", note))


def _spread_note(ours: TrackerScore) -> Markup:
    if any(len(score.seeds) > 1 for score in ours.sequences.values()):
        said = "Under precision and AUC: standard deviation over the seeds, then lowest and highest."
    else:
        said = "One seed, so no spread."
    return element("p", f"{said} A header sorts by its column, once more the other way round.")


def _strip_legend() -> Markup:
    said = "The first frame and three of the lowest overlap, some way apart; above them overlap over time, from 0 to 1."
    truth = element("span", "ground truth", class_="box-key truth")
    result = element("span", OURS, class_="box-key result")
    return element("p", said, " ", truth, " ", result, class_="strip-legend")


def _line_colors() -> str:
    """The colours of the plots as variables and classes of the style sheet."""
    variables = [";".join(f"--line-{k}:{color}" for k, color in enumerate(colors)) for colors in (LIGHT, DARK)]
    classes = "".join(f".line-{k}{{--line:var(--line-{k})}}" for k in range(len(LIGHT)))
    return f":root{{{variables[0]}}}@media screen and (prefers-color-scheme:dark){{:root{{{variables[1]}}}}}{classes}\n"


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _columns(spread: Spread | None) -> tuple[float, float, float] | tuple[None, None, None]:
    return (spread.deviation, spread.low, spread.high) if spread else (None, None, None)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
