"""Markup from elements: nothing that was text can become an element or an attribute."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from fdn_triton.evaluation.report.markup import Markup, element, join


def test_an_element() -> None:
    made = element("td", "1 < 2 & 3", element("b", "x"), None, class_="number", data_value=0, hidden=True, title=None)
    assert made == '<td class="number" data-value="0" hidden>1 &lt; 2 &amp; 3<b>x</b></td>'
    assert element("svg", viewBox="0 0 1 1", aria_hidden="true") == '<svg viewBox="0 0 1 1" aria-hidden="true"></svg>'
    assert element("meta", name="a", content='"') == '<meta name="a" content="&quot;">'
    assert element("th", aria_sort=False) == "<th></th>"
    assert join("<", Markup("<br>"), "", None, ">") == "&lt;<br>&gt;"


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")))
def test_text_comes_back_as_text(text: str) -> None:
    reader = Reader()
    reader.feed(element("p", text, title=text))
    reader.close()
    assert reader.tags == [("p", {"title": text})] and reader.text == text
