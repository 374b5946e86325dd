"""The report's files, and its page as a reader's browser shows it."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from contrast import contrast, luminance
from example_evaluation import evaluation, tracker
from headless_chromium import Chromium, find_chromium

from fdn_triton.errors import InputError
from fdn_triton.evaluation.report.page import page, write_report
from fdn_triton.evaluation.summary import OURS, Evaluation

VOID = {"col", "img", "link", "meta"}
FILES = {f"{name}.{kind}" for name in ("success", "precision", "norm_precision") for kind in ("png", "svg")}
FILES |= {"report.html", "sequences.csv", "curves.json"}


class Outline(HTMLParser):
    """What a page is made of; it complains of elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} on {tag}"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                (self.links if (value or "").startswith("#") else self.addresses).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluation(tmp_path_factory.mktemp("frames"))


def test_the_files(example: Evaluation, tmp_path: Path) -> None:
    out = tmp_path / "new/folder"
    written = write_report(example, out)
    assert {path.name for path in written} == FILES == {path.name for path in out.iterdir()}
    assert {path.parent for path in written} == {out}

    content = json.loads((out / "curves.json").read_text())
    assert [len(content["thresholds"][name]) for name in ("success", "precision", "norm_precision")] == [21, 51, 51]
    assert content["profile"] == "otb" and list(content["trackers"]) == list(example.trackers)
    for name, score in example.trackers.items():
        for kind, curve in content["trackers"][name].items():
            np.testing.assert_array_equal(curve, getattr(score.curves, kind))

    with (out / "sequences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence"] for row in rows] == ["Alpha", "Beta", "gamma"]
    for row in rows:
        score = example.trackers[OURS].sequences[row["sequence"]]
        seeds = [auc for _, auc in score.seeds.values()]
        assert float(row["auc"]) == score.curves.auc and float(row["fps"]) == score.fps
        assert [float(row["auc_min"]), float(row["auc_max"])] == [min(seeds), max(seeds)]
        assert float(row["auc_std"]) == pytest.approx(np.std(seeds, ddof=1))
        assert row["best_published"] == "Good" and None not in row.values()
    assert rows[0]["attributes"] == "IV OCC" and rows[2]["attributes"] == ""


def test_the_same_evaluation_gives_the_same_page(example: Evaluation) -> None:
    assert page(example) == page(example)


def test_a_folder_that_cannot_be_made(example: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*: Not a directory"):
        write_report(example, tmp_path / "file/out")


def test_the_page_needs_nothing_but_itself(example: Evaluation) -> None:
    text = page(example)
    outline = Outline(text)
    assert all(address.startswith("data:") for address in outline.addresses)
    assert sum(address.startswith("data:image/jpeg") for address in outline.addresses) == 4 * 3
    assert not re.search(r"https?://|@import|url\(|\.woff", text)
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links} <= set(outline.ids)
    for said in (*example.problems, "preset", "paper", "rank 2 of 4", "3 sequences; 2 seeds", "profile otb"):
        assert said in outline.text


def test_the_size_of_the_page(tmp_path: Path) -> None:
    """Noise is the worst that a JPEG can meet: 13 sequences with a picture each as large as they get."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "noise.png"), noise)
    small = evaluation(tmp_path / "frames")
    track = small.tracks["Alpha"]
    noisy = dataclasses.replace(track, image_paths=[tmp_path / "noise.png"] * len(track.image_paths))
    score = small.trackers[OURS].sequences["Alpha"]
    names = [f"S{k}" for k in range(13)]
    ours = dataclasses.replace(small.trackers[OURS], sequences=dict.fromkeys(names, score))
    full = dataclasses.replace(small, trackers={OURS: ours}, tracks=dict.fromkeys(names, noisy))
    assert 3e6 < len(page(full)) < 10e6  # footage has a quarter of it
    assert len(page(full, strips=False)) < 1e5


HOSTILE = "<script>window.hacked = true</script><img src=x onerror='hacked = 1'>\"'&<b>"


def hostile(example: Evaluation) -> Evaluation:
    """Every text that comes from outside tries to be markup."""
    ours, other = example.trackers[OURS], example.trackers["Good"]

    def renamed(score: dict) -> dict:
        return {HOSTILE + name: one for name, one in score.items()}

    return dataclasses.replace(
        example,
        benchmark=HOSTILE,
        profile=HOSTILE,
        trackers={
            OURS: dataclasses.replace(ours, sequences=renamed(ours.sequences)),
            HOSTILE: dataclasses.replace(other, name=HOSTILE, sequences=renamed(other.sequences)),
        },
        attributes={HOSTILE + "Alpha": [HOSTILE]},
        tracks=renamed(example.tracks),
        problems=[HOSTILE],
        settings={HOSTILE: HOSTILE},
    )


def test_no_text_becomes_markup(example: Evaluation, tmp_path: Path) -> None:
    outline = Outline(page(hostile(example)))
    assert outline.tags.count("script") == 1 and "img" not in outline.tags and outline.tags.count("b") < 10
    assert outline.text.count(HOSTILE) > 20
    write_report(hostile(example), tmp_path)
    with (tmp_path / "sequences.csv").open(newline="") as file:
        assert {row["best_published"] for row in csv.DictReader(file)} == {HOSTILE}


def variants(example: Evaluation) -> dict[str, Evaluation]:
    ours = example.trackers[OURS]
    published = {name: score for name, score in example.trackers.items() if name != OURS}
    one = {name: score for name, score in ours.sequences.items() if name == "gamma"}
    scored_only = {
        name: dataclasses.replace(score, fps=None, stages_ms=None, updates={"short": 0, "long": 0, "iterations": 0})
        for name, score in ours.sequences.items()
    }
    return {
        "ours alone": dataclasses.replace(example, trackers={OURS: tracker(OURS, 12.0)}, problems=[]),
        "published alone": dataclasses.replace(example, trackers=published, tracks={}),
        "one sequence": dataclasses.replace(
            example, trackers={OURS: dataclasses.replace(ours, sequences=one)}, attributes={}
        ),
        "no times": dataclasses.replace(example, trackers={OURS: dataclasses.replace(ours, sequences=scored_only)}),
        "TRE": dataclasses.replace(example, protocol="tre", tracks={}),
        "SRE": dataclasses.replace(example, protocol="sre", tracks={}),
    }


def test_sections_that_have_nothing_to_show_are_left_out(example: Evaluation) -> None:
    def sections(name: str) -> list[str]:
        outline = Outline(page(variants(example)[name]))
        assert {link[1:] for link in outline.links} <= set(outline.ids)
        every = ("problems", "curves", "trackers", "sequences", "attributes", "speed", "frames", "settings")
        return [section for section in every if section not in outline.ids]

    assert sections("ours alone") == ["problems"]
    assert sections("published alone") == ["sequences", "speed", "frames"]
    assert sections("one sequence") == ["attributes"]
    assert sections("no times") == []
    assert sections("TRE") == sections("SRE") == ["frames"]
    assert "from 20 starts" in page(variants(example)["TRE"])
    assert "12 first boxes" in page(variants(example)["SRE"])


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    chromium = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def written(example: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(example), encoding="utf-8")
    return path


@pytest.fixture
def shown(browser: Chromium, written: Path) -> Chromium:
    browser.emulate(1280, 900)
    browser.open(written)
    return browser


def test_the_check_sees_errors_and_requests(browser: Chromium, written: Path, tmp_path: Path) -> None:
    extra = "<img src='missing.png'><script>console.log('said'); undefined_function()</script>"
    (tmp_path / "bad.html").write_text(written.read_text() + extra)
    browser.open(tmp_path / "bad.html")
    assert len(browser.messages) == 3 and any("undefined_function" in said for said in browser.messages)
    assert any(address.endswith("missing.png") for address in browser.requests)


def test_it_loads_without_errors_and_asks_for_nothing(shown: Chromium, written: Path) -> None:
    assert shown.messages == []
    assert [address for address in shown.requests if not address.startswith("data:")] == [written.as_uri()]


def test_hostile_text_and_other_shapes_load_as_well(browser: Chromium, example: Evaluation, tmp_path: Path) -> None:
    for evaluated in (hostile(example), *variants(example).values()):
        (tmp_path / "page.html").write_text(page(evaluated), encoding="utf-8")
        browser.open(tmp_path / "page.html")
        assert browser.messages == [] and browser.evaluate("typeof hacked") == "undefined"


def test_plots_and_pictures_are_there(shown: Chromium) -> None:
    plots = shown.evaluate(
        "[...document.querySelectorAll('svg.plot')].map(plot => [...plot.querySelectorAll('polyline')].map(line => {"
        "const box = line.getBoundingClientRect(); return [box.width, box.height, getComputedStyle(line).stroke]}))"
    )
    assert len(plots) == 3
    for lines in plots:
        assert len(lines) == 4 == len({color for _, _, color in lines})
        assert min(width for width, _, _ in lines) > 100 and min(height for _, height, _ in lines) > 10
    sizes = shown.evaluate(
        "Promise.all([...document.querySelectorAll('.strip image')].map(image => {const picture = new Image();"
        "picture.src = image.href.baseVal; return picture.decode().then(() => picture.width)}))"
    )
    assert sizes == [64] * 12
    assert shown.evaluate("document.querySelectorAll('.strip rect.result:not(.edge)').length") == 12


def rows(browser: Chromium, column: int) -> list[str]:
    return browser.evaluate(
        "[...document.querySelector('#sequences tbody').rows]"
        f".map(row => row.cells[{column}].firstChild.textContent.split('±')[0])"
    )


def order(browser: Chromium) -> list[str | None]:
    return browser.evaluate(
        "[...document.querySelectorAll('#sequences thead th')].map(header => header.getAttribute('aria-sort'))"
    )


def header(column: int) -> str:
    return f"#sequences thead th:nth-child({column + 1}) button"


def test_a_click_sorts(shown: Chromium) -> None:
    assert rows(shown, 0) == ["Alpha", "Beta", "gamma"] and order(shown)[0] == "ascending"
    shown.click(header(4))  # frames per second, higher for each
    assert rows(shown, 0) == ["gamma", "Beta", "Alpha"]
    assert order(shown)[4] == "descending" and order(shown).count(None) == len(order(shown)) - 1
    shown.click(header(4))
    assert rows(shown, 0) == ["Alpha", "Beta", "gamma"] and order(shown)[4] == "ascending"
    shown.click(header(0))
    shown.click(header(0))
    assert rows(shown, 0) == ["gamma", "Beta", "Alpha"] and order(shown)[0] == "descending"
    for column in range(len(order(shown))):
        shown.click(header(column))
    assert shown.messages == []


def test_the_keyboard_sorts(shown: Chromium) -> None:
    shown.evaluate(f"document.querySelector({header(4)!r}).focus()")
    shown.press("Enter", 13, "\r")
    assert rows(shown, 0) == ["gamma", "Beta", "Alpha"]
    assert shown.evaluate(f"document.activeElement === document.querySelector({header(4)!r})")


def test_numbers_are_no_text_and_what_is_unknown_comes_last(
    browser: Chromium, example: Evaluation, tmp_path: Path
) -> None:
    ours = example.trackers[OURS]
    rates = {"Alpha": 9.5, "Beta": None, "gamma": 10.25}
    scores = {name: dataclasses.replace(score, fps=rates[name]) for name, score in ours.sequences.items()}
    changed = dataclasses.replace(example, trackers={OURS: dataclasses.replace(ours, sequences=scores)})
    (tmp_path / "page.html").write_text(page(changed), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    browser.click(header(4))
    assert rows(browser, 4) == ["10.25", "9.50", "–"]
    browser.click(header(4))
    assert rows(browser, 4) == ["9.50", "10.25", "–"]


def test_a_tracker_stands_out_in_every_plot(shown: Chromium) -> None:
    faded = "[...document.querySelectorAll('svg.plot .faded')].map(line => line.dataset.tracker)"
    assert shown.evaluate(faded) == []
    shown.click("#precision .legend li:nth-child(2)")
    assert len(shown.evaluate(faded)) == 9 and len(set(shown.evaluate(faded))) == 3
    shown.click("#precision .legend li:nth-child(2)")
    shown.click("h1")
    assert shown.evaluate(faded) == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_is_as_wide_as_the_screen(shown: Chromium, width: int) -> None:
    shown.emulate(width, 800)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    outside = shown.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, p, .plot, .legend li, .strip svg, .pairs')]"
        ".filter(part => part.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert outside == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_either_scheme(shown: Chromium, scheme: str) -> None:
    shown.emulate(1280, 900, scheme)
    pairs = shown.evaluate("""[...document.querySelectorAll('body *')].filter(part =>
        [...part.childNodes].some(node => node.nodeType === 3 && node.data.trim()) && part.getClientRects().length
        && !part.closest('script, title')).map(part => {
            let behind = part;
            const background = () => getComputedStyle(behind).backgroundColor;
            while (background() === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
            const style = getComputedStyle(part);
            return [part instanceof SVGElement ? style.fill : style.color, background()];
        })""")
    assert len(pairs) > 200
    assert min((contrast(text, behind), text, behind) for text, behind in pairs)[0] > 4.5
    assert all((luminance(behind) > 0.5) == (scheme == "light") for _, behind in pairs)


def test_on_paper_it_is_light_and_whole(shown: Chromium) -> None:
    shown.emulate(700, 900, "dark", "print")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert shown.evaluate("document.documentElement.scrollWidth") <= 700
