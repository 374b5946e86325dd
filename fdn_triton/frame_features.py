"""The features of one frame, computed only where they are needed and never twice.

Candidates need the features around the target, negatives those of a wider surrounding, the first frame all of them.
:class:`FrameFeatures` keeps one map per stage of the trunk for the whole frame and, for each, the rectangle of it that
holds values. Growing to a larger rectangle computes the cells between the two, from the cells of the stage before,
with the frame's borders padded as in :meth:`Backbone.forward`; the results are those of the whole frame. RoI layers
read the last map in whole-frame coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .backbone import Backbone
from .config import STRIDE


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


NOTHING = Rectangle(0, 0, 0, 0)
