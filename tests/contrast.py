"""How well colours stand out from each other, by the Web Content Accessibility Guidelines."""

from __future__ import annotations

import re

import numpy as np


def linear_rgb(color: str) -> np.ndarray:
    """``#rrggbb`` or ``rgb(r, g, b)`` of sRGB -> [3] linear, 0 to 1."""
    if color.startswith("#"):
        values = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    else:
        values = [int(value) for value in re.findall(r"\d+", color)[:3]]
    shares = np.array(values) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    """Relative luminance, 0 to 1."""
    return float(linear_rgb(color) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """From 1, the same, to 21, black and white; 4.5 is asked of text, 3 of lines."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
