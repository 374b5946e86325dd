"""Tables whose columns the page's script sorts by what a cell is worth, not by how it is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .markup import Markup, element


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: of its header.
        text: it holds text, sorted from A to Z at first; else numbers, from the highest.
        hint: shown when a pointer rests on the header.
    """

    title: str
    text: bool = False
    hint: str | None = None


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        content: text or markup.
        value: what it is sorted by; None comes last in either order.
        class_, style: of the element.
    """

    content: str
    value: float | str | None
    class_: str | None = None
    style: str | None = None


@dataclass(frozen=True)
class Row:
    """A row, the first of whose cells is its header; ``class_`` of the element."""

    cells: list[Cell]
    class_: str | None = None


def number(value: float | None, digits: int = 3, signed: bool = False, below: Iterable[str] = ()) -> Cell:
    """A cell with a number, a dash for None and NaN; ``below`` are lines of small print under it."""
    if value is None or not math.isfinite(value):
        return Cell("–", None)
    text = f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")
    lines = [element("small", line) for line in below]
    return Cell(element("span", text, *lines) if lines else text, value)


def sortable_table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Row],
    sorted_by: int | None = None,
    foot: Sequence[str] | None = None,
) -> Markup:
    """A table in a box of its own, which scrolls sideways where the screen is narrow.

    Args:
        caption: what the table shows.
        columns: from left to right.
        rows: in the order in which they are shown before anyone sorts them.
        sorted_by: the column that this order is of.
        foot: text per column of a last row that stays where it is.
    """
    head = []
    for k, column in enumerate(columns):
        order = ("ascending" if column.text else "descending") if k == sorted_by else None
        button = element("button", column.title, type="button", title=column.hint)
        head.append(element("th", button, scope="col", aria_sort=order, class_=_classes(column)))
    parts = [
        element("caption", element("span", caption)),  # which stays in sight where the box scrolls
        element("thead", element("tr", *head)),
        element("tbody", *(element("tr", *_cells(columns, row.cells), class_=row.class_) for row in rows)),
    ]
    if foot is not None:
        cells = [Cell(text, None) for text in foot]
        parts.append(element("tfoot", element("tr", *_cells(columns, cells))))
    table = element("table", *parts, class_="sortable")
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cells(columns: Sequence[Column], cells: Sequence[Cell]) -> list[Markup]:
    elements: list[Markup] = []
    for column, cell in zip(columns, cells, strict=True):
        name, scope = ("td", None) if elements else ("th", "row")
        classes = _classes(column, cell.class_)
        elements.append(
            element(name, cell.content, scope=scope, class_=classes, style=cell.style, data_value=cell.value)
        )
    return elements


def _classes(column: Column, class_: str | None = None) -> str | None:
    return " ".join(name for name in (None if column.text else "number", class_) if name) or None
