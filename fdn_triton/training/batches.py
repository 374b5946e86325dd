"""What the iterations of multi-domain training look at: windows of frames of one domain, and boxes in them (MDNet).

A batch depends on the seed and the iteration's number only, so that batches may be drawn in any process, ahead of the
device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError
from ..sampling import BoxSampler, apart, overlapping
from .augmentation import motion_blur
from .domains import Domain, VideoDomain, training_frames
from .loop import random_generator
from .windows import View, window

_POSITIVE_DRAWS, _NEGATIVE_DRAWS = 50, 200  # a frame
_BLUR_LENGTH = 0.4  # of the target's size, at most
_TRIES = 4  # frames that may turn out unreadable, for one that is wanted
_AHEAD = 2  # batches that each worker has ready: they lie in shared memory


@dataclass(frozen=True)
class BatchConfig:
    """Numbers of a batch.

    Attributes:
        seed: of all draws.
        frames: of a batch, in all processes together.
        positives, negatives: boxes of each frame.
        positive_iou, negative_iou: what they overlap the target by, at least and at most.
        window: pixels, side of the part of a frame that is looked at.
        target_sizes: pixels, least and largest mean of the target's width and height in the window before a turn.
        light: largest change of brightness and contrast.
        grey: share of batches without colours.
        turn: degrees, by which a frame is turned about its target at most, either way.
        blur: share of frames that are blurred as by motion.
    """

    seed: int
    frames: int
    positives: int
    negatives: int
    positive_iou: float
    negative_iou: float
    window: int
    target_sizes: tuple[float, float]
    light: float
    grey: float
    turn: float
    blur: float


@dataclass(frozen=True)
class Batch:
    """One iteration's, of one process.

    Attributes:
        domain: number of the domain.
        pixels: [F, side, side, 3] uint8, RGB.
        boxes_xywh: [F, K, 4] fp32, pixels of the windows: each frame's positives, then its negatives.
        light, contrast: factors of all frames.
        grey: without colours.
        unreadable: files of the domain that were no images.
    """

    domain: int
    pixels: Tensor
    boxes_xywh: Tensor
    light: float
    contrast: float
    grey: bool
    unreadable: frozenset[Path]


class Batches(Dataset["Batch | InputError"]):
    """The batches of a training, by number.

    Args:
        domains: K of them; each has its turn in every K batches, in another order each time.
        config: all numbers.
        share: of a batch's frames, those of this process.
    """

    def __init__(self, domains: Sequence[Domain], config: BatchConfig, share: slice) -> None:
        self._domains, self._config, self._share = domains, config, share

    def __getitem__(self, number: int) -> Batch | InputError:
        """A batch, or why there is none: an error that is raised in another process arrives with its traceback."""
        domain = self.domain(number)
        try:
            return self.drawn(number, domain, training_frames(self._domains[domain]))
        except InputError as error:
            return error

    def ahead(self, start: int, stop: int, workers: int) -> Iterator[Batch]:
        """Those from a number to another, drawn by so many processes; by this one, when asked for, with 0.

        Raises:
            InputError: when its turn comes, of a batch whose frames cannot be read.
        """
        numbers = range(start, stop)
        workers = min(workers, len(numbers))
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            worker_init_fn=_one_thread,
            # A fork would have OpenCV's and the device's state without their threads, and wait for them forever.
            multiprocessing_context="spawn" if workers else None,
            generator=torch.Generator(),  # else the loader takes a number from the global one
        )
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch

    def domain(self, number: int) -> int:
        """Which one the batch is of."""
        cycle, place = divmod(number, len(self._domains))
        generator = random_generator(torch.device("cpu"), self._config.seed, 1, cycle)
        return int(torch.randperm(len(self._domains), generator=generator)[place])

    def drawn(self, number: int, domain: int, frames: NDArray[np.int64]) -> Batch:
        """A batch of the domain's frames with these numbers.

        Raises:
            InputError: too many of them cannot be read.
        """
        config, source = self._config, self._domains[domain]
        rng = np.random.default_rng((config.seed, 2, number))
        light, contrast = 1 + rng.uniform(-config.light, config.light, 2)
        grey, mirrored = rng.uniform() < config.grey, bool(rng.uniform() < 0.5)
        seeds = rng.integers(0, 2**62, size=config.frames)
        pixels, boxes = [], []
        for seed in seeds[self._share]:
            image, box = self._view(source, frames, np.random.default_rng(seed), mirrored)
            pixels.append(torch.from_numpy(image))
            boxes.append(self.samples(torch.from_numpy(box), int(seed)))
        unreadable = frozenset(source.unreadable) if isinstance(source, VideoDomain) else frozenset()
        return Batch(
            domain, torch.stack(pixels), torch.stack(boxes), float(light), float(contrast), bool(grey), unreadable
        )

    def samples(self, box_xywh: Tensor, seed: int) -> Tensor:
        """Positives and negatives [K, 4] of a frame whose target has this box."""
        config = self._config
        sampler = BoxSampler((config.window, config.window), torch.Generator("cpu").manual_seed(seed))
        drawn = sampler.uniform(box_xywh, _POSITIVE_DRAWS, 0.1, 5)
        near = overlapping(drawn, box_xywh, config.positive_iou, config.positives)
        draws = max(_NEGATIVE_DRAWS, 2 * config.negatives)
        far = apart(sampler.uniform(box_xywh, draws, 2, 10), box_xywh, config.negative_iou, config.negatives)
        parts = ((near, config.positives), (far, config.negatives))
        return torch.cat([part[torch.arange(n) % len(part)] for part, n in parts])

    def _view(
        self, source: Domain, frames: NDArray[np.int64], rng: np.random.Generator, mirrored: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        for _ in range(_TRIES):
            frame = source.frame(int(rng.choice(frames)))
            if frame is not None:
                size = float(np.exp(rng.uniform(*np.log(self._config.target_sizes))))
                place = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)
                turn = np.radians(rng.uniform(-1, 1) * self._config.turn)
                pixels, box = window(*frame, View(self._config.window, size, place, mirrored, turn))
                if rng.uniform() < self._config.blur:
                    pixels = motion_blur(pixels, rng.uniform(0, _BLUR_LENGTH) * size, rng.uniform(0, np.pi))
                return pixels, box
        raise InputError(f"{source.name}: {_TRIES} frames in a row cannot be read: leave this sequence out")


def _one_thread(worker: int) -> None:
    """OpenCV's threads in a process that draws batches beside others; PyTorch has one there already."""
    cv2.setNumThreads(1)
