"""Rectangles of cells, for bookkeeping about which part of a map has been computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


def equal_parts(count: int, most: int) -> list[range]:
    """0 to ``count`` in as few parts of at most ``most`` as can be, all but the last of the same length."""
    if count <= 0:
        return []
    step = -(-count // -(-count // most))
    return [range(first, min(first + step, count)) for first in range(0, count, step)]


@dataclass(frozen=True)
class Rectangle:
    """Cells [top, bottom) x [left, right) of a map."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        return self.top >= self.bottom or self.left >= self.right

    def union(self, other: Rectangle) -> Rectangle:
        """The smallest rectangle that holds both."""
        if self.empty or other.empty:
            return other if self.empty else self
        return Rectangle(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def clipped(self, height: int, width: int) -> Rectangle:
        """The part that lies on a map of this size."""
        return Rectangle(max(self.top, 0), min(self.bottom, height), max(self.left, 0), min(self.right, width))

    def input_of(self, kernel: int, stride: int, padding: int) -> Rectangle:
        """The input cells, padding among them, from which a convolution or pooling makes these output cells."""
        return Rectangle(
            self.top * stride - padding,
            (self.bottom - 1) * stride - padding + kernel,
            self.left * stride - padding,
            (self.right - 1) * stride - padding + kernel,
        )

    def around(self, inner: Rectangle) -> Iterator[Rectangle]:
        """What this rectangle has and the one inside it has not, in at most four parts."""
        if inner.empty:
            yield self
            return
        parts = (
            Rectangle(self.top, inner.top, self.left, self.right),
            Rectangle(inner.bottom, self.bottom, self.left, self.right),
            Rectangle(inner.top, inner.bottom, self.left, inner.left),
            Rectangle(inner.top, inner.bottom, inner.right, self.right),
        )
        yield from (part for part in parts if not part.empty)

    def bands(self, rows: int) -> Iterator[Rectangle]:
        """This rectangle cut into bands of about the same number of rows, at most so many."""
        for part in equal_parts(self.bottom - self.top, rows):
            yield Rectangle(self.top + part.start, self.top + part.stop, self.left, self.right)


NOTHING = Rectangle(0, 0, 0, 0)
