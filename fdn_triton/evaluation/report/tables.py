"""The tables of the page: trackers, sequences, attributes, time per stage, updates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np

from ..attributes import ATTRIBUTES
from ..profiles import Curves
from ..summary import OURS, Evaluation, TrackerScore
from .markup import Markup, element
from .numbers import Spread, iterations_per_update, sequence_rows, stages_ms, updates
from .page_plots import swatch
from .plots import PLOTS, line_styles
from .sortable_table import Cell, Column, Row, number, sortable_table
from .strips import anchor

_STAGES = {
    "read": "waiting for the frame",
    "features": "convolutions over the frame",
    "score": "scoring candidates, adjusting the box",
    "collect": "samples to learn from",
    "update": "learning",
}


def tracker_table(evaluation: Evaluation) -> Markup:
    """Means of the trackers by AUC, with the lines of the plots."""
    styles = line_styles(evaluation.trackers)
    columns = [
        Column("Tracker", text=True),
        Column("AUC", hint="area under the success curve"),
        Column("Precision", hint="share of frames whose centre error is at most 20 pixels"),
        Column("Norm. precision", hint=PLOTS[2].score_label),
        Column("Sequences"),
    ]
    rows = []
    for tracker in PLOTS[0].ranked(evaluation.trackers.values()):
        name = element("span", swatch(styles[tracker.name], tracker.name == OURS), tracker.name, class_="key")
        scores = [number(plot.value(tracker)) for plot in PLOTS]
        cells = [Cell(name, tracker.name), *scores, number(len(tracker.sequences), digits=0)]
        rows.append(Row(cells, _ours(tracker.name)))
    return sortable_table("Means over the sequences, by AUC", columns, rows, sorted_by=1)


def sequence_table(evaluation: Evaluation, with_strip: Collection[str]) -> Markup:
    """Our result on each sequence beside the best published one; a sequence with a strip leads to it."""
    columns = [
        Column("Sequence", text=True),
        Column("Precision"),
        Column("AUC"),
        Column("Norm. precision"),
        Column("Frames/s"),
        Column("Iterations per update"),
        Column("Best published", text=True, hint="the published tracker with the highest AUC"),
        Column("its precision"),
        Column("its AUC"),
        Column("AUC less its", hint="our AUC less that of the best published tracker"),
        Column("Frames", hint="scored, of all runs"),
        Column("Attributes", text=True),
    ]
    rows = []
    for row in sequence_rows(evaluation):
        link = element("a", row.sequence, href=f"#{anchor(row.sequence)}")
        attributes = " ".join(row.attributes)
        cells = [
            Cell(link if row.sequence in with_strip else row.sequence, row.sequence),
            number(row.precision, below=_said(row.precision_spread)),
            number(row.auc, below=_said(row.auc_spread)),
            number(row.norm_precision),
            number(row.fps, digits=2),
            number(row.iterations_per_update, digits=1),
            Cell(row.best_published or "–", row.best_published),
            number(row.best_precision),
            number(row.best_auc),
            number(None if row.best_auc is None else row.auc - row.best_auc, signed=True),
            number(row.frames, digits=0),
            Cell(element("small", attributes), attributes, "attributes"),
        ]
        rows.append(Row(cells))
    return sortable_table("Sequences, by name", columns, rows, sorted_by=0)


def attribute_tables(evaluation: Evaluation) -> list[Markup]:
    """AUC and precision of every tracker over the sequences of each attribute; none where no sequence has one."""
    every = _sequences(evaluation)
    groups = {"All": every, **_sequences_of(evaluation)}
    if len(groups) == 1:
        return []
    columns = [Column("Tracker", text=True)]
    columns += [Column(name, hint=f"{ATTRIBUTES.get(name, name)}: {_counted(len(groups[name]))}") for name in groups]
    foot = ["Sequences", *(str(len(names)) for names in groups.values())]
    measures: dict[str, Callable[[Curves], float]] = {
        "AUC": lambda curves: curves.auc,
        "Precision": lambda curves: curves.precision_20,
    }
    tables = []
    for title, measure in measures.items():
        means = {
            tracker.name: [_mean_over(tracker, names, measure) for names in groups.values()]
            for tracker in evaluation.trackers.values()
        }
        best = np.nanmax(list(means.values()), axis=0, initial=0.0)
        rows = []
        for name in sorted(means, key=lambda name: np.nan_to_num(means[name][0], nan=-1.0), reverse=True):
            cells = [_shaded(mean, bool(mean == top)) for mean, top in zip(means[name], best, strict=True)]
            rows.append(Row([Cell(name, name), *cells], _ours(name)))
        tables.append(sortable_table(f"{title} by attribute", columns, rows, sorted_by=1, foot=foot))
    return tables


def attribute_names(evaluation: Evaluation) -> Markup:
    """What the abbreviations of these sequences' attributes stand for."""
    names = [
        element("div", element("dt", attribute), element("dd", ATTRIBUTES.get(attribute, attribute)))
        for attribute in _sequences_of(evaluation)
    ]
    return element("dl", *names, class_="names")


def stage_table(evaluation: Evaluation) -> Markup | None:
    """Time per frame and stage; None where no time was taken."""
    stages = stages_ms(evaluation)
    total = sum(stages.values())
    if not total:
        return None
    columns = [Column("Stage", text=True), Column("ms per frame"), Column("Share"), Column("Frames/s alone")]
    rows = []
    for stage, ms in stages.items():
        named = element("span", stage, element("small", _STAGES.get(stage)))
        bar = element("span", element("i", style=f"width:{ms / total:.1%}"), class_="bar", aria_hidden="true")
        share = Cell(element("span", bar, element("b", f"{ms / total:.0%}")), ms / total, "share")
        rows.append(Row([Cell(named, stage), number(ms, 1), share, number(1000 / ms if ms else None, 1)]))
    foot = ["All", f"{total:.1f}", "100%", f"{1000 / total:.1f}"]
    return sortable_table("Time per frame and stage", columns, rows, foot=foot)


def update_table(evaluation: Evaluation) -> Markup | None:
    """Updates and iterations of all runs; None where they were not counted."""
    counts = updates(evaluation)
    if counts is None:
        return None
    rows = {
        "Short-term updates": number(counts["short"], 0),
        "Long-term updates": number(counts["long"], 0),
        "Iterations": number(counts["iterations"], 0),
        "Iterations per update": number(iterations_per_update(counts), 1),
    }
    return pairs("Updates after the first frame, all runs", {name: cell.content for name, cell in rows.items()})


def pairs(caption: str, rows: dict[str, str]) -> Markup:
    """A table of names and values."""
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in rows.items()]
    table = element("table", element("caption", element("span", caption)), element("tbody", *body), class_="pairs")
    return element("div", table, class_="scroll")


def _shaded(value: float, best: bool) -> Cell:
    """A score whose background says how high it is."""
    cell = number(value)
    if cell.value is None:
        return cell
    return Cell(cell.content, cell.value, "shaded best" if best else "shaded", f"--share:{value:.1%}")


def _said(spread: Spread | None) -> list[str]:
    return [f"±{spread.deviation:.3f}", f"{spread.low:.3f}–{spread.high:.3f}"] if spread else []


def _ours(name: str) -> str | None:
    return "ours" if name == OURS else None


def _counted(sequences: int) -> str:
    return "1 sequence" if sequences == 1 else f"{sequences} sequences"


def _sequences(evaluation: Evaluation) -> list[str]:
    """All sequences that some tracker has."""
    return sorted({name for tracker in evaluation.trackers.values() for name in tracker.sequences}, key=str.casefold)


def _sequences_of(evaluation: Evaluation) -> dict[str, list[str]]:
    """The sequences that have each attribute; attributes in their usual order, unknown ones behind."""
    names = _sequences(evaluation)
    found = {attribute for name in names for attribute in evaluation.attributes.get(name, ())}
    order = [*(attribute for attribute in ATTRIBUTES if attribute in found), *sorted(found - set(ATTRIBUTES))]
    return {
        attribute: [name for name in names if attribute in evaluation.attributes.get(name, ())] for attribute in order
    }


def _mean_over(tracker: TrackerScore, names: Iterable[str], measure: Callable[[Curves], float]) -> float:
    """Mean over those of the sequences that the tracker has, NaN where it has none."""
    values = [measure(tracker.sequences[name].curves) for name in names if name in tracker.sequences]
    return float(np.mean(values)) if values else float("nan")
