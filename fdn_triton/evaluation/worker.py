"""What all runs of an evaluation share, and the worker that does them, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import __version__
from ..config import TrackerConfig
from ..errors import InputError
from ..frame_features import FeatureProvider, FrameFeatures
from ..tracker import Tracker
from ..weights import NetworkWeights


@dataclass(frozen=True)
class Settings:
    """What all runs of an evaluation share; the seed of ``config`` is replaced by each run's.

    Attributes:
        device: as the tracker takes it.
        out: folder of the evaluation.
        features: what the tracker takes the features of boxes from.
        lockstep: runs that one worker advances together, frame by frame.
    """

    config: TrackerConfig
    preset: str
    weights: str
    device: str
    out: Path
    features: FeatureProvider = FrameFeatures
    lockstep: int = 1


def fingerprint(config: TrackerConfig, weights: NetworkWeights, device_type: str) -> dict[str, Any]:
    """What decides a run's result besides the run itself, flat and as JSON gives it back."""
    values = asdict(config)
    del values["seed"]  # the run's
    values |= values.pop("network")
    values |= {"weights": weights.sha256[:16], "device": device_type}
    return values | {"fdn_triton": __version__, "torch": torch.__version__}


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings of two :func:`fingerprint` that differ, in words."""
    names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    return ", ".join(f"{name} {found.get(name)} instead of {wanted.get(name)}" for name in names)


class Job(Protocol):
    """One run of the tracker, which leaves its result on disk whole or not at all."""

    @property
    def sequence(self) -> str:
        """Name of the sequence that it belongs to."""

    @property
    def frames(self) -> int:
        """How many it takes."""

    @property
    def seed(self) -> int:
        """Of every random draw."""

    def run(self, settings: Settings, tracker: Tracker) -> Iterator[int]:
        """Track, and write the files; yields the number of frames since the last time.

        In lockstep, it yields when the tracker has its next frame: then it is the others' turn.
        """

    def failed(self, error: Exception, out: Path) -> str:
        """Note on disk what it was that :meth:`run` raised, and say it on one line."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``error`` is why it failed, on one line, or None."""

    error: str | None


class Worker:
    """Does jobs one after the other, or some in lockstep; all of them with one network."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tracker: Tracker | None = None

    def run(self, job: Job) -> Generator[int | Outcome, None, None]:
        """Do it.

        Yields:
            What :meth:`Job.run` yields; last the outcome.
        """
        settings = self._settings
        try:
            if self._tracker is None:
                self._tracker = Tracker(
                    settings.config, weights=settings.weights, device=settings.device, features=settings.features
                )
            tracker = self._tracker.beside(job.seed)
            try:
                yield from job.run(settings, tracker)
            finally:
                tracker.clear()
            outcome = Outcome(None)
        except Exception as error:  # whatever it is, the other jobs go on
            outcome = Outcome(job.failed(error, settings.out))
        yield outcome

    def run_all(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, int | Outcome]]:
        """Do them, ``lockstep`` at a time: each in its turn, and where one ends, the next one begins.

        Yields:
            Jobs with what :meth:`run` yields.
        """
        waiting = iter(jobs)
        running = [(job, self.run(job)) for job in islice(waiting, self._settings.lockstep)]
        try:
            while running:
                for place in list(running):
                    job, events = place
                    event = next(events)
                    if isinstance(event, Outcome):
                        running.remove(place)
                        running += [(job, self.run(job)) for job in islice(waiting, 1)]
                    yield job, event
        finally:
            for _, events in running:
                events.close()


def reason_of(error: Exception) -> str:
    """On one line; what no one foresaw with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
