"""Draws the demo clip: a felt owl flies through a toy village, followed by a panning camera.

``python -m fdn_triton.demo.generate [--out DIR]``

The layers of ``scenery`` and the owl are composed at twice the frame's size, shifted by fractions of a pixel,
and reduced by area averaging. Positions are continuous frame coordinates: the centre of pixel ``i`` lies at
``i + 0.5``, so a box ``x, y, w, h`` has its edges at ``x`` and ``x + w``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fdn_triton.demo import clip_path, scenery

Box = tuple[float, float, float, float]
Image = NDArray[np.uint8]

WIDTH, HEIGHT, FRAMES, SEED = 320, 240, 80, 7
DISTANCE_SPEED = 0.4  # of the layer behind the village, relative to the village
EXPOSURE, EXPOSURE_SAMPLES = (
    0.5,
    3,
)  # share of the frame time that the shutter is open; images averaged for it
LENS_BLUR = 0.6  # standard deviation, frame pixels
NOISE_SIGMA = 1.4  # grey levels, the same for the three colours
SHADOW_GAIN, SHADOW_FRAMES = 0.55, (53, 69)  # a cloud passes: gain in the middle; first and last frame
OCCLUSION_FRAME = 37  # when the owl is behind the middle of the birch

JPEG_OPTIONS = [  # full colour resolution at a low quality: small saturated details survive in few bytes
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    *(cv2.IMWRITE_JPEG_LUMA_QUALITY, 68, cv2.IMWRITE_JPEG_CHROMA_QUALITY, 56),
    *(cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
]

# frame | owl's centre x, y | scale | angle in degrees | camera's left and top edge in the world
KEYFRAMES: NDArray[np.float64] = np.array(
    [
        (0, 78, 152, 0.95, 0, 8, 34),
        (9, 92, 124, 0.88, -7, 20, 30),
        (17, 142, 92, 0.78, 9, 36, 24),
        (25, 132, 84, 0.75, -4, 58, 18),
        (32, 136, 112, 0.84, 5, 78, 20),
        (42, 200, 138, 1.00, 12, 104, 28),
        (49, 248, 126, 1.10, 2, 124, 34),
        (56, 216, 104, 1.18, -12, 148, 32),
        (63, 150, 112, 1.24, -8, 178, 28),
        (71, 118, 138, 1.32, 6, 210, 34),
        (79, 152, 130, 1.35, -3, 236, 40),
    ]
)


@dataclass(frozen=True)
class Pose:
    """Where the owl is in the frame and where the camera is in the world, frame pixels and degrees."""

    x: float
    y: float
    scale: float
    angle: float
    camera_x: float
    camera_y: float

    def sprite_matrix(self) -> NDArray[np.float64]:
        """[2, 3], owl coordinates (frame pixels at scale 1, origin at its centre) -> frame coordinates."""
        c, s = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        return np.array([(self.scale * c, -self.scale * s, self.x), (self.scale * s, self.scale * c, self.y)])


def _folded(frame: float) -> float:
    """The frame of the path, 0 to its last, for any frame of a clip that runs it forwards and backwards."""
    last = float(KEYFRAMES[-1, 0])
    return last - abs(last - frame % (2 * last))


def pose_at(frame: float) -> Pose:
    """Cubic Hermite interpolation of the key frames; after the last one the path runs backwards."""
    frame = _folded(frame)
    times, values = KEYFRAMES[:, 0], KEYFRAMES[:, 1:]
    slopes = np.gradient(values, times, axis=0)
    k = min(int(np.searchsorted(times, frame, side="right")) - 1, len(times) - 2)
    span = times[k + 1] - times[k]
    t = (frame - times[k]) / span
    blend = (1 + 2 * t) * (1 - t) ** 2, t**2 * (3 - 2 * t)
    tangent = t * (1 - t) ** 2 * span, t**2 * (t - 1) * span
    value = blend[0] * values[k] + blend[1] * values[k + 1] + tangent[0] * slopes[k] + tangent[1] * slopes[k + 1]
    return Pose(*value.tolist())


def light_at(frame: float) -> float:
    """Gain of the light: 1 outside the cloud's shadow."""
    first, last = SHADOW_FRAMES
    share = min(max((_folded(frame) - first) / (last - first), 0), 1)
    return 1 - (1 - SHADOW_GAIN) * math.sin(math.pi * share) ** 2


def box_at(frame: float) -> Box:
    """Axis-aligned bounds of the owl's whole outline, hidden parts too: ``x, y, w, h``, 0-based."""
    matrix = pose_at(frame).sprite_matrix()
    outline = np.concatenate(scenery.owl_outline()) @ matrix[:, :2].T + matrix[:, 2]
    (x1, y1), (x2, y2) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    return x1, y1, x2 - x1, y2 - y1


def _placed(layer: Image, matrix: NDArray[np.float64], stored_scale: float, border: int) -> Image:
    """The layer in a frame of ``LAYER_SCALE`` times the size; ``matrix`` is in frame coordinates."""
    ratio = scenery.LAYER_SCALE / stored_scale
    linear = matrix[:, :2] * ratio
    offset = matrix[:, 2] * scenery.LAYER_SCALE + linear @ (0.5, 0.5) - 0.5  # pixel centres lie at + 0.5
    size = WIDTH * scenery.LAYER_SCALE, HEIGHT * scenery.LAYER_SCALE
    affine = np.column_stack((linear, offset))
    return cv2.warpAffine(layer, affine, size, flags=cv2.INTER_LINEAR, borderMode=border).astype(np.uint8)


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([(1, 0, x), (0, 1, y)], dtype=np.float64)


class Scene:
    """The painted layers of one seed, and the camera that takes pictures of them."""

    def __init__(self, seed: int = SEED) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.distance = scenery.paint_distance(rng)
        self.village = scenery.paint_village(rng)
        self.birch = scenery.paint_birch(rng)
        self.owl = scenery.paint_owl(rng)
        hidden = pose_at(OCCLUSION_FRAME)
        self.birch_x = hidden.camera_x + hidden.x - scenery.POST_WIDTH  # of the sheet's left edge in the world

    def render(self, frame: int, *, owl: bool = True, birch: bool = True) -> Image:
        """Frame ``frame`` as RGB [240, 320, 3]; ``owl`` and ``birch`` leave them out for comparison."""
        exposure = EXPOSURE * (np.arange(EXPOSURE_SAMPLES) / (EXPOSURE_SAMPLES - 1) - 0.5)
        light = np.mean([self._composed(pose_at(frame + delay), owl, birch) for delay in exposure], axis=0)
        light = cv2.GaussianBlur(light, (0, 0), LENS_BLUR * scenery.LAYER_SCALE)
        rgb = cv2.resize(light, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) * light_at(frame)
        noise = np.random.default_rng((self.seed, frame)).normal(0, NOISE_SIGMA, (HEIGHT, WIDTH, 1))
        return np.rint(rgb + noise).clip(0, 255).astype(np.uint8)

    def _composed(self, pose: Pose, owl: bool, birch: bool) -> NDArray[np.float32]:
        scale, edge, clear = scenery.LAYER_SCALE, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT
        far = _shift(-DISTANCE_SPEED * pose.camera_x, -pose.camera_y)
        picture = _placed(self.distance, far, scale, edge)[..., :3].astype(np.float32)
        layers = [_placed(self.village, _shift(-pose.camera_x, -pose.camera_y), scale, edge)]
        if owl:
            matrix = pose.sprite_matrix()
            matrix[:, 2] -= matrix[:, :2] @ (scenery.SPRITE_SIZE[0] / 2, scenery.SPRITE_SIZE[1] / 2)
            layers.append(_placed(self.owl, matrix, scenery.SPRITE_SCALE, clear))
        if birch:
            layers.append(_placed(self.birch, _shift(self.birch_x - pose.camera_x, -pose.camera_y), scale, clear))
        for layer in layers:
            picture *= 1 - layer[..., 3:].astype(np.float32) / 255
            picture += layer[..., :3]
        return picture


def render_clip(frames: int = FRAMES, seed: int = SEED) -> Iterator[tuple[Image, Box]]:
    """The clip: RGB images [240, 320, 3] with the owl's box ``x, y, w, h``, 0-based.

    The path does not depend on ``seed`` or on ``frames`` (fewer are its beginning, more run it backwards),
    the scene and the noise depend on ``seed``. The same arguments give the same pixels.
    """
    scene = Scene(seed)
    for frame in range(frames):
        yield scene.render(frame), box_at(frame)


def write_clip(folder: Path, frames: int = FRAMES, seed: int = SEED) -> None:
    """Writes ``img/0001.jpg ...`` and ``groundtruth_rect.txt`` (1-based, one decimal) into ``folder``."""
    (folder / "img").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (rgb, (x, y, w, h)) in enumerate(render_clip(frames, seed), start=1):
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, JPEG_OPTIONS)[1]
        (folder / "img" / f"{number:04d}.jpg").write_bytes(jpeg.tobytes())
        rows.append(f"{x + 1:.1f},{y + 1:.1f},{w:.1f},{h:.1f}\n")
    (folder / "groundtruth_rect.txt").write_text("".join(rows), encoding="ascii")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the clip into the folder of ``--out``."""
    parser = argparse.ArgumentParser(prog="python -m fdn_triton.demo.generate", description="Draw the demo clip.")
    out_help = "folder to write (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=clip_path(), metavar="DIR", help=out_help)
    out = parser.parse_args(argv).out
    write_clip(out)
    print(f"{FRAMES} frames written to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
