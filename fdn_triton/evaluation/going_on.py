"""Doing what is not on disk yet: what an evaluation's command lines share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeVar

from tqdm import tqdm

from ..errors import InputError
from ..weights import UNTRAINED, UNTRAINED_WARNING
from .engines import Where, run_all
from .worker import Job, Settings

_Job = TypeVar("_Job", bound=Job)


class Problems:
    """Lines for the user, each printed at once and only once, and kept for the report."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}  # in order
        self._warned: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def lines(self) -> list[str]:
        """All of them, in order."""
        return list(self._lines)

    def add(self, *lines: str) -> None:
        """Print those that are new."""
        for line in lines:
            if line not in self._lines:
                tqdm.write(f"warning: {line}", file=sys.stderr)
            self._lines[line] = None

    def warn(self, line: str) -> None:
        """Print a line once that is no problem: nothing is missing for it."""
        if line not in self._warned:
            tqdm.write(f"warning: {line}", file=sys.stderr)
        self._warned.add(line)


def run_missing(
    jobs: Sequence[_Job], is_done: Callable[[_Job], bool], settings: Settings, where: Where, problems: Problems
) -> set[str]:
    """Do the jobs that are not done, under a bar that shows frames, sequences and the time left.

    Args:
        jobs: all that belong to the evaluation.
        is_done: whether a job's result is on disk; InputError where it is there and of no use.
        settings: of all of them.
        where: they run.
        problems: gets a line for each that fails.

    Returns:
        The sequences of which a job failed.
    """
    left, failed, to_do = Counter(job.sequence for job in jobs), set(), []
    for job in jobs:
        try:
            done = is_done(job)
        except InputError as error:
            print(f"note: {error}: run again", file=sys.stderr)
            done = False
        if done:
            left[job.sequence] -= 1
        else:
            to_do.append(job)
    if to_do and settings.weights == UNTRAINED:
        problems.warn(UNTRAINED_WARNING)
    frames = sum(job.frames for job in jobs)
    before = frames - sum(job.frames for job in to_do)
    events = run_all(to_do, settings, where)
    with closing(events), tqdm(total=frames, initial=before, unit="frame", disable=None) as bar:
        for running, event in events:
            if isinstance(event, int):
                bar.update(event)
                continue
            left[running.sequence] -= 1
            bar.set_postfix_str(f"{sum(count == 0 for count in left.values())} of {len(left)} sequences")
            if event.error is not None:
                failed.add(running.sequence)
                problems.add(event.error)
    return failed
