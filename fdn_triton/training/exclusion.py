"""Keeps test videos out of the training set: by their names, and by what is in their frames.

Trackers that are tested on OTB must not be trained on it (paper 4.1), and it hides under other names: VOT2015's
``car1`` is OTB's BlurCar1. So frames are compared too, as small pictures, with the videos in given folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..evaluation.attributes import OTB_ATTRIBUTES
from ..frame_source import image_frames
from .domains import VideoDomain, read_domains

Benchmark = Literal["otb", "vot"]

# VOT2013 to VOT2016, https://www.votchallenge.net
_VOT = """
    bag ball ball1 ball2 basketball bicycle birds1 birds2 blanket bmx bolt bolt1 bolt2 book butterfly car car1 car2
    crossing cup david dinosaur diving drunk face fernando fish1 fish2 fish3 fish4 girl glove godfather graduate
    gymnastics gymnastics1 gymnastics2 gymnastics3 gymnastics4 hand hand1 hand2 handball1 handball2 helicopter iceskater
    iceskater1 iceskater2 jogging juice jump leaves marching matrix motocross motocross1 motocross2 nature octopus
    pedestrian1 pedestrian2 polarbear rabbit racing road shaking sheep singer singer1 singer2 singer3 skating soccer1
    soccer2 soldier sphere sunshade surfing tiger torus traffic trellis tunnel wiper woman
"""
_OTB_IN_VOT = """
    Basketball BlurCar1 Bolt Bolt2 CarDark CarScale Couple David Diving Girl2 Human3 Human5 Human6 Jogging Matrix
    MotorRolling Shaking Singer1 Singer2 Skating1 Skating2 Soccer Tiger1 Tiger2 Trellis Woman
"""
_NAMES: dict[str, frozenset[str]] = {
    "otb": frozenset(name.casefold() for name in (*OTB_ATTRIBUTES, "Jogging", "Skating2")),  # of two targets each
    "vot": frozenset(f"{_VOT} {_OTB_IN_VOT}".casefold().split()),
}
_SIDE = 16  # of the small pictures
# Correlation. Measured: frames of other videos have up to 0.90, the same one in a third of the size and bad quality at
# least 0.992.
_SAME = 0.97
_COMPARED = 20  # frames of a training video; all of an excluded one


def refuse_test_videos(
    domains: Sequence[VideoDomain],
    benchmark: Benchmark,
    folders: Iterable[Path] = (),
    report: Callable[[], object] = lambda: None,
) -> list[str]:
    """Make sure that no domain is a video of the benchmark.

    Args:
        domains: to train on.
        benchmark: whose names are refused: OTB-100's, or those of VOT2013 to 2016 and OTB's for the same videos.
        folders: of videos whose content is refused, whatever they are called.
        report: called after each video of the folders.

    Returns:
        A line for everything in the folders that could not be compared, with the reason.

    Raises:
        InputError: one is; all are named, with what they are.
    """
    names = _NAMES[benchmark]
    found = {domain.name: f"named like {benchmark.upper()}'s" for domain in domains if _spellings(domain.name) & names}
    tested: list[VideoDomain] = []
    not_compared: list[str] = []
    for folder in folders:
        videos, left_out = read_domains([folder])
        tested += videos
        not_compared += left_out
    own = [(domain.name, _pictures(_spread(domain.images, _COMPARED))) for domain in domains] if tested else []
    for video in tested:
        pictures = _pictures(video.images)
        for name, others in own:
            if len(pictures) and len(others) and float((others @ pictures.T).max()) > _SAME:
                found[name] = f"shows what {video.name} does"
        report()
    if found:
        raise InputError(
            f"the training set has {len(found)} videos to be tested on: "
            + ", ".join(f"{name} ({why})" for name, why in found.items())
            + ": take them out, or rename another video of the same name"
        )
    return not_compared


def _spellings(name: str) -> set[str]:
    """The name without a benchmark's before it, and those of the video whose k-th target (``.k``) it is."""
    # TLD has David and Jumping too; a name of VOT-LT's may be the same video or another one
    name = re.sub(r"^(otb|vot|tld)([-_]?lt)?[0-9]*[-_. ]", "", name.casefold())
    return {re.sub(r"\.[0-9]+$", "", name), re.sub(r"[._]([0-9]+)$", r"-\1", name)}


def _spread(images: Sequence[Path], count: int) -> list[Path]:
    count = min(count, len(images))
    return [images[i * len(images) // count] for i in range(count)]


def _pictures(images: Sequence[Path]) -> NDArray[np.float32]:
    """[n, 256]: the readable frames as small grey pictures with zero mean and unit length; flat ones are left out."""
    rows = []
    for frame in image_frames(list(images)):
        if frame.image is not None:
            grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
            small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
            small -= small.mean()
            if (length := float(np.linalg.norm(small))) > _SIDE:  # a grey level a pixel
                rows.append(small / length)
    return np.array(rows, dtype=np.float32).reshape(-1, _SIDE * _SIDE)
