"""For each sequence a strip of frames with ground truth and result: the first, and where the result is worst."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...frame_source import image_frames
from ..metrics import overlaps
from ..summary import SequenceScore, Track
from .markup import Markup, element, join
from .page_plots import overlap_figure

_WORST = 3
_LONG_SIDE = 480
_QUALITY = 75


def strip(name: str, track: Track, score: SequenceScore) -> Markup:
    """The section of one sequence: its numbers, overlap over time, and the chosen frames in the order of time."""
    overlap = frame_overlaps(track)
    chosen = chosen_frames(overlap)
    summary = f"precision {score.curves.precision_20:.3f}, AUC {score.curves.auc:.3f}, {len(track.boxes_xywh)} frames"
    heading = element("h3", name, " ", element("small", summary))
    if not chosen:
        return element("article", heading, element("p", "No frame has ground truth."), id=anchor(name), class_="strip")
    frames = [element("li", _frame(track, overlap, index)) for index in chosen]
    return element(
        "article", heading, overlap_figure(overlap, chosen), element("ol", *frames), id=anchor(name), class_="strip"
    )


def anchor(name: str) -> str:
    """The id of a sequence's strip; without blanks, which an id must not have."""
    return "strip-" + "-".join(name.split())


def frame_overlaps(track: Track) -> NDArray[np.float64]:
    """[N] overlaps of result and ground truth, NaN in frames without ground truth."""
    overlap = np.full(len(track.boxes_xywh), np.nan)
    n = min(len(track.boxes_xywh), len(track.truth_xywh))
    valid = np.flatnonzero(np.isfinite(track.truth_xywh[:n]).all(axis=1))
    overlap[valid] = overlaps(track.boxes_xywh[valid], track.truth_xywh[valid])
    return overlap


def chosen_frames(overlap: NDArray[np.float64]) -> list[int]:
    """Indices, ascending, of the first frame with ground truth and of the worst ones after it.

    The worst are at least an eighth of the sequence apart, or one long failure would fill the strip; of equals
    the earliest is taken, where it began.

    Args:
        overlap: [N], NaN where there is no ground truth.
    """
    known = np.flatnonzero(np.isfinite(overlap))
    if not len(known):
        return []
    chosen = [int(known[0])]
    left = overlap.copy()
    left[: known[0] + 1] = np.nan
    apart = max(1, len(overlap) // 8)
    while len(chosen) <= _WORST and np.isfinite(left).any():
        worst = int(np.nanargmin(left))
        chosen.append(worst)
        left[max(0, worst - apart + 1) : worst + apart] = np.nan
    return sorted(chosen)


def _frame(track: Track, overlap: NDArray[np.float64], index: int) -> Markup:
    """One picture; the boxes are drawn by the page, as sharp as the screen."""
    said = f"Frame {index + 1}, overlap {overlap[index]:.2f}"
    caption = element("figcaption", said)
    path = track.image_paths[index] if index < len(track.image_paths) else None
    picture = None if path is None else _picture(path)
    if picture is None:
        note = element("p", f"{path.name if path else 'The picture'} cannot be read.", class_="missing")
        return element("figure", note, caption)
    data, width, height = picture
    boxes = [
        _box(boxes_xywh[index], kind)
        for kind, boxes_xywh in (("truth", track.truth_xywh), ("result", track.boxes_xywh))
        if np.isfinite(boxes_xywh[index]).all()
    ]
    image = element("image", href=data, width=width, height=height)
    picture_with_boxes = element(
        "svg", image, *boxes, viewBox=f"0 0 {width} {height}", role="img", aria_label=f"{said}: picture with boxes"
    )
    return element("figure", picture_with_boxes, caption)


def _box(box_xywh: NDArray[np.float64], kind: str) -> Markup:
    """Colour over a dark edge, so that the box shows on any picture."""
    x, y, w, h = (f"{value:.1f}" for value in box_xywh)
    return join(*(element("rect", x=x, y=y, width=w, height=h, class_=name) for name in (f"{kind} edge", kind)))


def _picture(path: Path) -> tuple[str, int, int] | None:
    """A small JPEG as a data URI, and width and height of the file's picture; None where it cannot be read."""
    (frame,) = image_frames([path])
    if frame.image is None:
        return None
    height, width = frame.image.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert ok, "OpenCV encodes every uint8 RGB image"
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}", width, height
