"""HTML and SVG put together from elements, so that no text reaches a page unescaped."""

from __future__ import annotations

import html

_VOID = {"col", "img", "link", "meta"}


class Markup(str):
    """Text that is markup already: it is put into elements as it is."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """``<name attributes>children</name>``.

    Args:
        name: of the HTML or SVG element.
        children: text, which is escaped, and :class:`Markup`, which is not; None is left out.
        attributes: ``class_`` and ``for_`` lose their underscore at the end, those inside become hyphens; None and
            False are left out, True gives an attribute without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening) if name in _VOID else Markup(f"{opening}{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """Children one after another, escaped as in :func:`element`."""
    return Markup(
        "".join(child if isinstance(child, Markup) else html.escape(child, quote=False) for child in children if child)
    )
