"""A small generated clip with ground truth: something to track without a download.

``clip/`` is a sequence in OTB layout (``img/0001.jpg ...``, ``groundtruth_rect.txt``). ``generate.py`` drew
it, ``scenery.py`` paints the parts.
"""

from __future__ import annotations

from pathlib import Path


def clip_path() -> Path:
    """The folder of the embedded clip."""
    return Path(__file__).parent / "clip"
