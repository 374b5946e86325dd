"""The numbers of the report and the tables that show them."""

from __future__ import annotations

import dataclasses
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_evaluation import FRAMES, STAGES, evaluation, tracker

from fdn_triton.evaluation.report.numbers import fps, sequence_rows, stages_ms, updates
from fdn_triton.evaluation.report.sortable_table import Column, Row, number, sortable_table
from fdn_triton.evaluation.report.tables import (
    attribute_names,
    attribute_tables,
    sequence_table,
    stage_table,
    tracker_table,
    update_table,
)
from fdn_triton.evaluation.summary import OURS, Evaluation


class Table(HTMLParser):
    """Rows of a table as text, and what they are sorted by."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.values: list[list[str | None]] = []
        self.classes: list[str | None] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
            self.values.append([])
            self.classes.append(dict(attrs).get("class"))
        if tag in ("th", "td"):
            self.rows[-1].append("")
            self.values[-1].append(dict(attrs).get("data-value"))

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data

    def column(self, title: str) -> list[str]:
        k = self.rows[0].index(title)
        return [row[k] for row in self.rows[1:]]


@pytest.fixture
def example(tmp_path: Path) -> Evaluation:
    return evaluation(tmp_path)


def only_ours(example: Evaluation) -> Evaluation:
    """One seed, nothing timed, no published tracker."""
    ours = tracker(OURS, 12.0)
    bare = {
        name: dataclasses.replace(score, fps=None, stages_ms=None, updates=None)
        for name, score in ours.sequences.items()
    }
    return dataclasses.replace(example, trackers={OURS: dataclasses.replace(ours, sequences=bare)})


def without_ours(example: Evaluation) -> Evaluation:
    published = {name: score for name, score in example.trackers.items() if name != OURS}
    return dataclasses.replace(example, trackers=published, tracks={})


def test_trackers_by_auc(example: Evaluation) -> None:
    table = Table(tracker_table(example))
    assert table.column("Tracker") == ["Good", OURS, "Middle", "Bad & <Ugly>"]
    for row, values, class_ in zip(table.rows[1:], table.values[1:], table.classes[1:], strict=True):
        score = example.trackers[row[0]]
        numbers = [score.curves.auc, score.curves.precision_20, score.curves.norm_precision_score]
        assert row[1:] == [*(f"{value:.3f}" for value in numbers), "3"]
        assert [float(value) for value in values[1:4]] == numbers  # sorted by all digits, not by those shown
        assert (class_ == "ours") == (row[0] == OURS)


def test_a_row_per_sequence(example: Evaluation) -> None:
    rows = sequence_rows(example)
    assert [row.sequence for row in rows] == ["Alpha", "Beta", "gamma"]
    for row in rows:
        score = example.trackers[OURS].sequences[row.sequence]
        precision, auc = zip(*score.seeds.values(), strict=True)
        assert len(auc) == 2 and auc[0] > auc[1]
        assert (row.precision, row.auc, row.fps) == (score.curves.precision_20, score.curves.auc, score.fps)
        assert row.auc_spread is not None and row.precision_spread is not None
        assert (row.auc_spread.low, row.auc_spread.high) == (auc[1], auc[0])
        assert row.auc_spread.deviation == pytest.approx(abs(auc[0] - auc[1]) / 2**0.5)
        assert row.precision_spread.deviation == statistics.stdev(precision)
        best = example.trackers["Good"].sequences[row.sequence].curves
        assert (row.best_published, row.best_auc, row.best_precision) == ("Good", best.auc, best.precision_20)
        assert row.frames == 2 * FRAMES[row.sequence]  # of both seeds
    assert [row.iterations_per_update for row in rows] == [20 / 2, 30 / 3, 40 / 4]
    assert [row.attributes for row in rows] == [("IV", "OCC"), ("OCC",), ()]

    table = Table(sequence_table(example, ["Beta"]))
    assert table.column("AUC less its") == [f"{row.auc - row.best_auc:+.3f}".replace("-", "−") for row in rows]
    assert table.column("Frames/s") == ["5.00", "10.00", "15.00"]
    first = rows[0]
    spread = first.auc_spread
    assert table.column("AUC")[0] == f"{first.auc:.3f}±{spread.deviation:.3f}{spread.low:.3f}–{spread.high:.3f}"
    assert sequence_table(example, ["Beta"]).count("href") == 1


def test_a_row_without_anything_to_compare(example: Evaluation) -> None:
    alone = only_ours(example)
    for row in sequence_rows(alone):
        assert (row.auc_spread, row.precision_spread, row.fps, row.best_published) == (None,) * 4
    table = Table(sequence_table(alone, []))
    for title in ("Frames/s", "Iterations per update", "Best published", "its AUC", "AUC less its"):
        assert table.column(title) == ["–"] * 3
        k = table.rows[0].index(title)
        assert [values[k] for values in table.values[1:]] == [None] * 3  # sorted last, not as 0
    assert sequence_rows(without_ours(example)) == []


def test_speed_and_updates_over_all_frames(example: Evaluation) -> None:
    frames = {name: 2 * n for name, n in FRAMES.items()}
    seconds = frames["Alpha"] / 5 + frames["Beta"] / 10 + frames["gamma"] / 15
    assert fps(example) == pytest.approx(sum(frames.values()) / seconds)
    assert stages_ms(example) == pytest.approx(STAGES)
    slower = example.trackers[OURS].sequences
    slower["Alpha"] = dataclasses.replace(slower["Alpha"], stages_ms={stage: 3 * ms for stage, ms in STAGES.items()})
    share = frames["Alpha"] / sum(frames.values())
    assert stages_ms(example)["update"] == pytest.approx(40 * (1 + 2 * share))
    assert updates(example) == {"short": 3, "long": 6, "iterations": 90}

    del slower["Alpha"]
    table = Table(stage_table(example) or "")
    assert table.column("Share") == ["1%", "40%", "10%", "9%", "40%", "100%"]
    assert table.column("ms per frame") == ["1.0", "40.0", "10.0", "9.0", "40.0", "100.0"]
    assert table.column("Frames/s alone") == ["1000.0", "25.0", "100.0", "111.1", "25.0", "10.0"]
    counted = Table(update_table(example) or "")
    assert [row[1] for row in counted.rows] == ["3", "4", "70", "10.0"]

    for bare in (only_ours(example), without_ours(example)):
        assert (fps(bare), updates(bare), stage_table(bare), update_table(bare)) == (None,) * 4
        assert stages_ms(bare) == {}


def test_attributes(example: Evaluation) -> None:
    middle = example.trackers["Middle"]
    partial = {name: score for name, score in middle.sequences.items() if name != "Alpha"}
    example.trackers["Middle"] = dataclasses.replace(middle, sequences=partial)
    auc, precision = (Table(table) for table in attribute_tables(example))
    assert auc.rows[0] == ["Tracker", "All", "IV", "OCC"] and auc.rows[-1] == ["Sequences", "3", "1", "2"]
    for table, name in ((auc, "auc"), (precision, "precision_20")):
        for row in table.rows[1:-1]:
            value = {s: getattr(score.curves, name) for s, score in example.trackers[row[0]].sequences.items()}
            having = [value.values(), [value[s] for s in ("Alpha",) if s in value]]
            having.append([value[s] for s in ("Alpha", "Beta") if s in value])
            assert row[1:] == [f"{statistics.fmean(group):.3f}" if group else "–" for group in having]
    assert "IV</dt><dd>illumination variation" in attribute_names(example)
    best = [row.split("</tr>")[0] for row in attribute_tables(example)[0].split("<tr") if "Good" in row]
    assert best[0].count("shaded best") == 3


def test_attributes_unknown_or_none(example: Evaluation) -> None:
    assert attribute_tables(dataclasses.replace(example, attributes={"Delta": ["IV"]})) == []
    new = dataclasses.replace(example, attributes={"Alpha": ["XYZ", "LR"]})
    assert Table(attribute_tables(new)[0]).rows[0] == ["Tracker", "All", "LR", "XYZ"]
    assert "<dt>XYZ</dt><dd>XYZ</dd>" in attribute_names(new)
    assert len(attribute_tables(without_ours(example))) == 2


def test_numbers_in_cells() -> None:
    assert (number(0.12345).content, number(0.12345).value) == ("0.123", 0.12345)
    assert number(-0.5, signed=True).content == "−0.500" and number(0.5, signed=True).content == "+0.500"
    assert number(0.0).value == 0.0
    for nothing in (None, float("nan"), float("inf")):
        assert (number(nothing).content, number(nothing).value) == ("–", None)


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        sortable_table("t", [Column("a"), Column("b")], [Row([number(1.0)])])
