"""``evaluate otb`` beside others: compared with published results, and boxes written for other toolkits."""

from __future__ import annotations

from pathlib import Path

import evaluate_command
import numpy as np
import pytest
from evaluate_command import ROOT, Call, publish, rows, summary, truth_of

folder, evaluations, call = evaluate_command.folder, evaluate_command.evaluations, evaluate_command.call  # fixtures
DATA = ROOT.parent / "shared" / "data"


def test_the_table_of_published_trackers(call: Call) -> None:
    if not (DATA / "otb_results").is_dir():
        pytest.skip("needs the published results in ../shared/data")
    table = {}
    for line in (DATA / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1].startswith("0."):
            table[cells[0].partition(" (")[0]] = (cells[1], cells[2])
    assert len(table) == 12
    said = call("--score-only", "--compare", DATA / "otb_results", root=DATA / "otb")
    assert said.code == 3
    assert said.lines("warning") == ["there are no results of these sequences in out/results"]
    found = {line.split()[0]: tuple(line.split()[1:3]) for line in said.out.splitlines()[1:]}
    assert {name: found[name] for name in table} == table
    assert len(summary()["trackers"]["MDNet"]["sequences"]) == 13


def test_trackers_are_averaged_over_what_they_and_we_have(call: Call) -> None:
    publish("Two", "owl", truth_of("owl"))
    publish("Two", "Bird2", truth_of("Bird2") + 500)
    publish("Two", "Elsewhere", truth_of("owl"))
    publish("None", "Elsewhere", truth_of("owl"))
    said = call("--compare", "published")
    assert said.code == 0
    notes = [
        "None has results of none of the sequences",
        "Two: the mean is over 2 of 3 sequences, without Jogging-1",
    ]
    assert said.lines("note") == notes and summary()["problems"] == notes
    assert list(summary()["trackers"]) == ["FDN", "Two"]
    assert summary()["trackers"]["Two"]["precision"] == pytest.approx(0.6)  # a first frame is never wrong
    assert list(summary()["trackers"]["Two"]["sequences"]) == ["Bird2", "owl"]


def test_bad_published_results_cost_a_line_each(call: Call) -> None:
    publish("Short", "owl", truth_of("owl")[:3])
    publish("Short", "Bird2", truth_of("Bird2"))
    publish("Odd", "owl", truth_of("owl")).write_text("1,2,3\n")
    publish("Odd", "Bird2", truth_of("Bird2")).write_text("")
    said = call("--compare", "published", "--sequences", "owl", "Bird2")
    assert said.code == 3
    warnings = said.lines("warning")
    assert len(warnings) == 3
    assert "Short/owl.txt has 3 rows, owl 4 frames" in warnings[-1]
    assert sum("Odd/" in line for line in warnings) == 2
    assert list(summary()["trackers"]) == ["FDN", "Short"]
    assert list(summary()["trackers"]["Short"]["sequences"]) == ["Bird2"]
    assert set(warnings) < set(summary()["problems"])


def test_an_empty_folder_of_published_results_costs_a_line(call: Call) -> None:
    Path("published/Nobody").mkdir(parents=True)
    said = call("--compare", "published")
    assert said.code == 3
    (line,) = said.lines("warning")
    assert "there are no results in published" in line
    assert list(summary()["trackers"]) == ["FDN"]
    publish("Perfect", "owl", truth_of("owl"))
    said = call("--compare", "published")
    assert (said.code, said.lines("warning")) == (
        3,
        ["published/Nobody holds no results: they lie in it as SEQUENCE.txt"],
    )
    assert list(summary()["trackers"]) == ["FDN", "Perfect"]


@pytest.mark.parametrize(("toolkit", "name"), [("otb", "Jogging-1"), ("pysot", "Jogging-1"), ("got10k", "Jogging.1")])
def test_boxes_are_written_for_other_toolkits(call: Call, toolkit: str, name: str) -> None:
    said = call("--export", toolkit, "--seeds", 2, "--sequences", "Jogging-1")
    assert said.code == 0 and f"wrote out/{toolkit}/FDN" in said.out
    assert [path.name for path in Path(f"out/{toolkit}/FDN").iterdir()] == [f"{name}.txt"]
    np.testing.assert_array_equal(rows(f"out/{toolkit}/FDN/{name}.txt"), rows("out/results/seed0/ope/Jogging-1.txt"))


def test_a_cut_evaluation_compares_the_same_frames(call: Call) -> None:
    boxes = truth_of("owl")
    boxes[3] = 500, 500, 10, 10
    publish("Lost", "owl", boxes)
    assert call("--sequences", "owl", "--max-frames", 3, "--compare", "published").code == 0
    assert summary()["trackers"]["Lost"]["precision"] == 1.0
    assert call("--sequences", "owl", "--compare", "published").code == 0
    assert summary()["trackers"]["Lost"]["precision"] == 0.75
