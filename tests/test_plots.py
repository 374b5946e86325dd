"""The plots as files, and as they are put into the page."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
from contrast import contrast, linear_rgb
from example_evaluation import evaluation

from fdn_triton.errors import InputError
from fdn_triton.evaluation.report import plots
from fdn_triton.evaluation.report.page_plots import overlap_figure, plot_figure
from fdn_triton.evaluation.report.plots import DARK, LIGHT, PLOTS, check_matplotlib, draw, line_styles, write_plots
from fdn_triton.evaluation.summary import OURS, Evaluation

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def example(tmp_path: Path) -> Evaluation:
    return evaluation(tmp_path / "frames")


def test_every_colour_stands_out_from_its_background() -> None:
    style = Path(plots.__file__).with_name("page.css").read_text()
    light, dark = re.findall(r"--card: (#\w+)", style)
    assert min(contrast(color, light) for color in LIGHT) > 3
    assert min(contrast(color, dark) for color in DARK) > 3
    assert len(LIGHT) == len(DARK) == len(set(LIGHT)) == len(set(DARK))


# Machado, Oliveira, Fernandes 2009, severity 1: how linear RGB looks without one kind of cone.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def oklab(linear: np.ndarray) -> np.ndarray:
    """Björn Ottosson's space, in which distances are about as large as they look."""
    cones = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
    axes = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]
    return np.array(axes) @ np.cbrt(np.array(cones) @ np.clip(linear, 0, 1))


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("colors", [LIGHT, DARK])
def test_colours_differ_for_readers_who_see_fewer(colors: tuple[str, ...], kind: str) -> None:
    seen = []
    for color in colors:
        seen.append(oklab(np.array(BLIND[kind]) @ linear_rgb(color)))
    distances = [np.linalg.norm(a - b) for k, a in enumerate(seen) for b in seen[:k]]
    assert min(distances) > 0.05  # pure red and green are 0.52 apart for others; two neighbouring tints about 0.02


def test_no_two_trackers_look_alike() -> None:
    styles = line_styles([OURS, *(f"T{k}" for k in range(20))])
    assert len(set(styles.values())) == 21
    assert styles[OURS] == (0, ()) and all(color > 0 for name, (color, _) in styles.items() if name != OURS)
    assert line_styles(["A"])["A"] == line_styles([OURS, "A"])["A"]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_the_number_in_the_legend_is_the_curve_s(plot: plots.Plot, example: Evaluation) -> None:
    for tracker in example.trackers.values():
        curve = plot.curve(tracker.curves)
        assert len(plot.thresholds) == len(curve)
        marked = curve.mean() if plot.marked is None else curve[np.isclose(plot.thresholds, plot.marked)].item()
        assert plot.value(tracker) == pytest.approx(marked)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_a_figure_has_a_curve_per_tracker_and_the_legend_by_score(plot: plots.Plot, example: Evaluation) -> None:
    (axes,) = draw(plot, example).axes
    ranked = sorted(example.trackers.values(), key=lambda tracker: -plot.value(tracker))
    assert [tracker.name for tracker in ranked][-1] == "Bad & <Ugly>"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"{tracker.name} [{plot.value(tracker):.3f}]" for tracker in ranked]
    for line, tracker in zip(axes.lines, ranked, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), plot.curve(tracker.curves))
        np.testing.assert_array_equal(line.get_xdata(), plot.thresholds)
        assert (line.get_linewidth() > 2) == (tracker.name == OURS)


def test_the_files(example: Evaluation, tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    written = write_plots(example, tmp_path)
    assert dict(matplotlib.rcParams) == before
    names = [f"{plot.name}{suffix}" for plot in PLOTS for suffix in (".png", ".svg")]
    assert [path.name for path in written] == names
    for png, svg in zip(written[::2], written[1::2], strict=True):
        picture = cv2.imread(str(png))
        ours = np.array([int(LIGHT[0][k : k + 2], 16) for k in (5, 3, 1)])
        assert picture.shape[1] == 1520 and (np.abs(picture - ours.astype(int)).max(axis=2) < 30).sum() > 1000
        text = [element.text or "" for element in ET.parse(svg).iter(f"{SVG}text")]
        assert any(line.startswith("Bad & <Ugly> [0.") for line in text)


def test_the_same_results_give_the_same_files(example: Evaluation, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written.append([path.read_bytes() for path in write_plots(example, tmp_path / name)])
    assert written[0] == written[1]


def test_names_are_no_formulas(tmp_path: Path) -> None:
    names = {"$\\frac{1$": 3.0, "a$b$c": 4.0}
    draw(PLOTS[0], evaluation(tmp_path, names)).savefig(tmp_path / "a.svg")
    page = plot_figure(PLOTS[0], evaluation(tmp_path / "2", names))
    assert "$\\frac{1$" in page


def test_without_matplotlib_one_line_says_so(
    example: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for attempt in (check_matplotlib, lambda: write_plots(example, tmp_path)):
        with pytest.raises(InputError, match=r"^the report needs matplotlib: pip install 'fdn-triton\[eval\]'$"):
            attempt()
    assert plot_figure(PLOTS[0], example)  # the page itself does not need it


def test_a_folder_that_is_none(example: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file.success\.png"):
        write_plots(example, tmp_path / "file")


def drawn(markup: str) -> ET.Element:
    return ET.fromstring(markup)


def polyline(element: ET.Element) -> np.ndarray:
    return np.array([[float(value) for value in point.split(",")] for point in element.get("points", "").split()])


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_the_plot_in_the_page(plot: plots.Plot, example: Evaluation) -> None:
    figure = drawn(plot_figure(plot, example))
    ranked = plot.ranked(example.trackers.values())
    legend = [[part.text for part in item if part.text] for item in figure.iter("li")]
    assert legend == [[tracker.name, f"{plot.value(tracker):.3f}"] for tracker in ranked]

    groups = list(figure.iter("g"))
    assert groups[-1].get("data-tracker") == OURS  # drawn last, on top
    lines = {group.get("data-tracker"): polyline(group.find("polyline")) for group in groups}
    grid = next(path for path in figure.iter("path") if path.get("class") == "grid").get("d")
    left, bottom, right = (float(v) for v in re.match(r"M([\d.]+) ([\d.]+)H([\d.]+)", grid).groups())
    top = float(re.search(r"V([\d.]+)$", grid).group(1))
    for tracker in ranked:
        x, y = lines[tracker.name].T
        np.testing.assert_allclose((x - left) / (right - left) * plot.upper, plot.thresholds, atol=0.001 * plot.upper)
        np.testing.assert_allclose((bottom - y) / (bottom - top), plot.curve(tracker.curves), atol=0.001)


def test_a_small_curve_of_overlap() -> None:
    overlap = np.full(5000, 0.5)
    overlap[1234] = 0.0  # 1 frame of 5,000 is not lost
    overlap[:3] = np.nan
    figure = drawn(overlap_figure(overlap, [3, 1234]))
    _, _, width, height = (float(value) for value in figure.get("viewBox").split())
    x, y = polyline(figure.find("polyline")).T
    assert len(x) == 300 and (np.diff(x) > 0).all()
    lowest = y.argmax()
    assert y[lowest] > 0.9 * height and x[lowest] / width == pytest.approx(1234 / 5000, abs=0.01)
    assert np.delete(y, lowest) == pytest.approx(height / 2)
    dots = re.findall(r"M([\d.]+) ([\d.]+)h0", figure.findall("path")[-1].get("d"))
    assert [float(dots[1][0]), float(dots[1][1])] == pytest.approx([x[lowest], y[lowest]])
    assert drawn(overlap_figure(np.ones(1), [0])).find("polyline") is not None
