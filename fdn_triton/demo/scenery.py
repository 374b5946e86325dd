"""Paints the demo clip's scene: the owl, the village, the distance behind it and the birch in front.

Everything is polygons in frame pixels on sheets of premultiplied RGBA. Positions are continuous: the centre
of pixel ``i`` lies at ``i + 0.5``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Points = NDArray[np.float64]
Image = NDArray[np.uint8]

SPRITE_SIZE, SPRITE_SCALE = (64, 72), 3  # frame pixels at scale 1; stored pixels per frame pixel
LAYER_SCALE = 2  # the same for the layers of the scene
WORLD_SIZE, GROUND_Y = (580, 290), 212  # of the village, frame pixels
DISTANCE_SIZE = (440, 290)
POST_WIDTH = 22  # of the birch's trunk, frame pixels

ORANGE, RUST, CREAM, TEAL = (222, 118, 44), (168, 74, 30), (248, 228, 190), (28, 122, 132)
MINT, RED, WHITE, INK, YELLOW = (120, 196, 190), (196, 40, 52), (250, 250, 246), (30, 26, 30), (246, 190, 52)
BARK, BROWN, PINK, SAND = (226, 220, 206), (122, 84, 54), (232, 150, 160), (214, 188, 146)
LEAVES, OLIVE, GRASS = (96, 150, 62), (140, 146, 52), (112, 160, 74)


def _ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0, power: float = 2) -> Points:
    """Outline of an ellipse, or of a squarer superellipse for ``power`` above 2."""
    t = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    x, y = np.cos(t), np.sin(t)
    x, y = rx * np.sign(x) * np.abs(x) ** (2 / power), ry * np.sign(y) * np.abs(y) ** (2 / power)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.stack((cx + c * x - s * y, cy + s * x + c * y), axis=1)


def _rect(x: float, y: float, w: float, h: float) -> Points:
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], dtype=np.float64)


def _toned(colour: Colour, gain: float) -> Colour:
    red, green, blue = (min(int(channel * gain), 255) for channel in colour)
    return red, green, blue


def _fractal_noise(rng: np.random.Generator, height: int, width: int, cells: Sequence[int]) -> NDArray[np.float32]:
    """Smooth noise in about -1..1: one octave per cell size in pixels, each weaker than the one before."""
    total = np.zeros((height, width), np.float32)
    for octave, cell in enumerate(cells):
        grid = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.7**octave
    return total / sum(0.7**octave for octave in range(len(cells)))


class _Canvas:
    """A transparent sheet that is painted in frame pixels and stored ``scale`` times as large."""

    def __init__(self, size: tuple[int, int], scale: int, origin: tuple[float, float] = (0, 0)) -> None:
        self.scale, self.origin = scale, np.array(origin, dtype=np.float64)
        self.rgba = np.zeros((size[1] * scale, size[0] * scale, 4), np.uint8)

    def fill(self, points: Points, colour: Colour) -> None:
        at = ((points + self.origin) * self.scale - 0.5) * 16
        cv2.fillPoly(self.rgba, [np.rint(at).astype(np.int32)], (*colour, 255), cv2.LINE_AA, 4)

    def shade(self, gain: NDArray[np.float32]) -> None:
        """Multiplies the paint, not its opacity."""
        rgb = self.rgba[..., :3] * gain[..., None]
        self.rgba[..., :3] = np.minimum(np.rint(rgb), self.rgba[..., 3:]).clip(0, 255).astype(np.uint8)

    def texture(self, rng: np.random.Generator, strength: float, cells: Sequence[int]) -> None:
        height, width = self.rgba.shape[:2]
        self.shade(1 + strength * _fractal_noise(rng, height, width, cells))


def _mirrored(points: Points) -> list[Points]:
    return [points, points * (-1, 1)]


def owl_outline() -> list[Points]:
    """The polygons whose union is the owl's silhouette, frame pixels at scale 1 around its centre."""
    tuft = np.array([(-21, -30), (-5, -23), (-19, -10)], dtype=np.float64)
    parts = [_ellipse(0, 1, 21, 26, power=2.5)]
    for part in (tuft, _ellipse(-20.5, 5, 5.5, 16, 14), _ellipse(-8, 27, 6, 3.2)):
        parts += _mirrored(part)
    return parts


def paint_owl(rng: np.random.Generator) -> Image:
    """The target."""
    paint = _Canvas(SPRITE_SIZE, 3 * SPRITE_SCALE, (SPRITE_SIZE[0] / 2, SPRITE_SIZE[1] / 2))
    body, left_tuft, right_tuft, left_wing, right_wing, *feet = owl_outline()
    for foot in feet:
        paint.fill(foot, YELLOW)
    for tuft in (left_tuft, right_tuft):
        paint.fill(tuft, RUST)
    paint.fill(body, ORANGE)
    for wing in (left_wing, right_wing):
        paint.fill(wing, TEAL)
    for row in range(4):
        for feather in _mirrored(_ellipse(-20.8 + 0.9 * (row - 1), -4 + 5.5 * row, 3.2, 1.3, -18)):
            paint.fill(feather, MINT)
    paint.fill(_ellipse(0, 12, 13.5, 13, power=2.3), CREAM)
    for row in range(4):
        for column in range(-2, 3):
            px, py = 5 * column + 2.5 * (row % 2), 7.0 + 5 * row
            if (px / 12) ** 2 + ((py - 12) / 12) ** 2 < 0.95:
                paint.fill(_ellipse(px, py, 2.1, 1.7), RUST)
                paint.fill(_ellipse(px, py - 1.1, 2.2, 1.5), CREAM)
    scarf = np.array([(-20.5, -1), (0, 4), (20.5, -1), (20.5, 5), (0, 9.5), (-20.5, 5)], dtype=np.float64)
    paint.fill(scarf, RED)
    paint.fill(np.array([(8, 5), (14, 4), (17, 19), (10, 20)], dtype=np.float64), RED)
    for px, py in ((-17, 2.4), (-10, 4.2), (-3, 6), (4, 5.8), (12, 9), (13.3, 15), (17, 2.3)):
        paint.fill(_ellipse(px, py, 1.2, 1.2), WHITE)
    for dot_x in (-6, 0, 6):
        paint.fill(_ellipse(dot_x, -21 + abs(dot_x) / 6, 1.5, 2), YELLOW)
    for eye in (-8.6, 8.6):
        for radius, colour in ((9.3, CREAM), (7.4, TEAL), (5.9, WHITE), (3.9, INK)):
            inwards = math.copysign(0.6 * min(1, 9.3 - radius), -eye)
            paint.fill(_ellipse(eye + inwards, -10, radius, radius), colour)
        paint.fill(_ellipse(eye + 0.6, -11.6, 1.3, 1.3), WHITE)
    paint.fill(np.array([(-3.2, -7), (0, -9), (3.2, -7), (0, -0.5)], dtype=np.float64), YELLOW)
    height, width = paint.rgba.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    paint.shade((1.1 - 0.22 * (x + 0.35) ** 2 - 0.2 * (y + 0.4) ** 2).astype(np.float32))
    paint.texture(rng, 0.16, (18, 9))
    return cv2.resize(paint.rgba, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA).astype(np.uint8)


def paint_distance(rng: np.random.Generator) -> Image:
    """Sky, clouds and hills, behind the village."""
    width, height = DISTANCE_SIZE
    paint = _Canvas((width, height), LAYER_SCALE)
    for y in range(height):
        mix = min(y / 170, 1)
        paint.fill(_rect(0, y, width, 1.5), (int(120 + 116 * mix), int(176 + 48 * mix), int(222 - 8 * mix)))
    for cloud in range(20, width, 74):
        cx, cy = cloud + rng.uniform(-18, 18), rng.uniform(30, 90)
        puffs = [(cx + rng.normal(0, 15), cy + rng.normal(0, 4), rng.uniform(7, 14)) for _ in range(7)]
        for lift, colour in ((2.5, (206, 214, 226)), (0, WHITE)):
            for px, py, r in puffs:
                paint.fill(_ellipse(px, py + lift, 1.3 * r, r), colour)
    x = np.linspace(0, width, 160)
    for level, colour in ((118, (140, 168, 180)), (146, (122, 166, 132)), (172, (104, 154, 84))):
        waves = np.zeros_like(x)
        for _ in range(3):
            waves += rng.uniform(4, 9) * np.sin(x * rng.uniform(0.01, 0.05) + rng.uniform(0, 6))
        ridge = np.stack((x, level + waves), axis=1)
        paint.fill(np.concatenate((ridge, [(width, height), (0, height)])), colour)
        for px, py in ridge[rng.integers(2, 158, 40)]:
            tree = np.array([(px - 4, py + 9), (px + 4, py + 9), (px, py - rng.uniform(3, 8))])
            paint.fill(tree + (0, rng.uniform(-3, 30)), _toned(colour, 0.8))
    paint.texture(rng, 0.07, (48, 16, 8))
    return paint.rgba


def _paint_house(paint: _Canvas, rng: np.random.Generator, x: float, wall: Colour, roof: Colour) -> None:
    w, h = rng.uniform(54, 70), rng.uniform(48, 82)
    top = GROUND_Y + 4 - h
    paint.fill(_rect(x, top, w, h), wall)
    for row in range(int(h // 5)):
        for brick in range(6):
            if rng.random() < 0.45:
                brick_xywh = x + (brick + 0.5 * (row % 2)) * w / 6.6, top + 5 * row, w / 7.5, 4
                paint.fill(_rect(*brick_xywh), _toned(wall, rng.uniform(0.82, 1.05)))
    paint.fill(_rect(x + 0.72 * w, top - 34, 9, 26), RUST)
    paint.fill(np.array([(x - 7, top + 2), (x + w + 7, top + 2), (x + w - 13, top - 26), (x + 13, top - 26)]), roof)
    for row in range(4):
        inset = 20 * (row + 0.5) / 4
        for tile in np.arange(x - 6 + inset, x + w + 4 - inset, 6):
            paint.fill(_ellipse(tile + 3 * (row % 2), top - 3 - 6.2 * row, 2.6, 2), _toned(roof, 0.8))
    for wx in (x + 8, x + w - 22):
        paint.fill(_rect(wx - 1.5, top + 8.5, 17, 19), WHITE)
        for px, py in ((0, 0), (7.5, 0), (0, 8.5), (7.5, 8.5)):
            paint.fill(_rect(wx + px, top + 10 + py, 6.5, 7.5), (88, 128, 156) if rng.random() < 0.7 else YELLOW)
    paint.fill(_ellipse(x + w / 2, GROUND_Y - 12, 8, 19, power=4), BROWN)
    paint.fill(_ellipse(x + w / 2 + 4, GROUND_Y - 10, 1.2, 1.2), YELLOW)


def _paint_tree(paint: _Canvas, rng: np.random.Generator, x: float, leaves: Colour, size: float) -> None:
    paint.fill(_rect(x - 3.5, GROUND_Y - 46, 7, 50), BROWN)
    for _ in range(120):
        angle, r, tone = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random()), rng.uniform(0.72, 1.15)
        px, py = x + size * r * math.cos(angle), GROUND_Y - 40 - size + 1.15 * size * r * math.sin(angle)
        tone -= 0.15 * r * math.sin(angle)
        paint.fill(_ellipse(px, py, 5.5, 3.5, rng.uniform(0, 180)), _toned(leaves, tone))


def _paint_balloon(paint: _Canvas, x: float, y: float, size: float, colours: tuple[Colour, Colour]) -> None:
    """A hot-air balloon in the owl's colours, the distractor."""
    ropes = np.array([(-0.6, 0.7), (0.6, 0.7), (0, 1.9)]) * size + (x, y)
    paint.fill(ropes, CREAM)
    for stripe, share in enumerate((1, 0.72, 0.4, 0.12)):
        paint.fill(_ellipse(x, y, share * size, 1.12 * size), colours[stripe % 2])
    paint.fill(_rect(x - 0.22 * size, y + 1.5 * size, 0.44 * size, 0.36 * size), BROWN)


def paint_village(rng: np.random.Generator) -> Image:
    """Ground, houses, trees, fence and flowers: the layer the camera pans over."""
    width, height = WORLD_SIZE
    paint = _Canvas(WORLD_SIZE, LAYER_SCALE)
    _paint_balloon(paint, 70, 74, 17, (TEAL, ORANGE))
    _paint_balloon(paint, 326, 74, 15, (ORANGE, CREAM))
    _paint_balloon(paint, 458, 68, 19, (ORANGE, TEAL))
    walls, roofs = (
        (CREAM, PINK, MINT, (232, 176, 104), (190, 206, 226)),
        (RED, TEAL, RUST, (92, 84, 120), ORANGE),
    )
    for index, plot in enumerate(range(-22, width, 104)):
        leaves = LEAVES if index % 2 else OLIVE
        _paint_tree(paint, rng, plot + rng.uniform(84, 92), leaves, rng.uniform(19, 27))
        _paint_house(paint, rng, plot + rng.uniform(0, 10), walls[index % 5], roofs[index * 2 % 5])
    paint.fill(_rect(0, GROUND_Y, width, height), GRASS)
    x = np.linspace(0, width, 120)
    edge = GROUND_Y + 34 + 5 * np.sin(x / 41)
    path = np.concatenate((np.stack((x, edge), axis=1), np.stack((x, edge + 19), axis=1)[::-1]))
    paint.fill(path, SAND)
    for px, py in rng.uniform((0, GROUND_Y), (width, height), (800, 2)):
        on_path = 0 < py - GROUND_Y - 34 - 5 * math.sin(px / 41) < 19
        if on_path:
            paint.fill(_ellipse(px, py, 3, 2), _toned(SAND, rng.uniform(0.8, 1.08)))
        else:
            blade = np.array([(px - 2, py), (px + 2, py), (px + rng.uniform(-4, 4), py - 8)])
            paint.fill(blade, _toned(GRASS, rng.uniform(0.75, 1.15)))
    for fx in np.arange(2, width, 9.5):
        paint.fill(_rect(fx, GROUND_Y + 12, 9.5, 2), (232, 226, 214))
        picket = np.array([(0, 20), (0, 5), (2.5, 2), (5, 5), (5, 20)]) + (fx, GROUND_Y)
        paint.fill(picket, _toned(WHITE, rng.uniform(0.88, 1)))
    for px, py in rng.uniform((0, GROUND_Y + 22), (width, height), (56, 2)):
        colour = (RED, YELLOW, WHITE, ORANGE, PINK)[int(rng.integers(5))]
        for turn in range(5):
            angle = turn * 2 * math.pi / 5
            paint.fill(_ellipse(px + 2.4 * math.cos(angle), py + 2.4 * math.sin(angle), 1.8, 1.8), colour)
        paint.fill(_ellipse(px, py, 1.5, 1.5), YELLOW if colour != YELLOW else RUST)
    paint.texture(rng, 0.17, (40, 14, 7))
    return paint.rgba


def paint_birch(rng: np.random.Generator) -> Image:
    """The trunk in front of the owl's path, as tall as the world; its middle is the middle of the sheet."""
    paint = _Canvas((2 * POST_WIDTH, WORLD_SIZE[1]), LAYER_SCALE)
    y = np.linspace(-4, WORLD_SIZE[1] + 4, 60)
    wobble = 0.8 * np.sin(y / 17)
    left, right = (np.stack((POST_WIDTH * side + wobble, y), axis=1) for side in (0.5, 1.5))
    paint.fill(np.concatenate((left, right[::-1])), BARK)
    for py in np.arange(2, WORLD_SIZE[1], 6.5):
        rx, ry, tilt = rng.uniform(2, 6), rng.uniform(0.7, 1.6), rng.uniform(-12, 12)
        px = rng.uniform(0.5 * POST_WIDTH + rx, 1.5 * POST_WIDTH - rx)
        mark = _ellipse(px, py + rng.uniform(-2, 2), rx, ry, tilt)
        paint.fill(mark, _toned((84, 76, 70), rng.uniform(0.6, 1.4)))
    across = np.linspace(-2, 2, paint.rgba.shape[1], dtype=np.float32)
    paint.shade(np.broadcast_to(1.02 - 0.3 * (across + 0.3) ** 2, paint.rgba.shape[:2]))
    paint.texture(rng, 0.15, (20, 6, 3))
    return paint.rgba
