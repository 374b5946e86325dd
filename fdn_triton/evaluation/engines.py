"""Where the runs of an evaluation take place: in this process, in several processes, or on a Ray cluster.

Workers are given one job at a time. One that dies is replaced, and its job, which leaves nothing on disk until it is
finished, is done again; a job that has lost three workers is recorded as failed.

A run's result does not depend on where it runs; but on a CPU its last digits, and with them a long track, depend on
the number of threads: all of this process, the share of each of several processes, one on Ray.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import torch

from ..device import choose_device
from ..errors import InputError
from .worker import Job, Outcome, Settings, Worker

EngineName = Literal["local", "ray"]
_ATTEMPTS = 3


@dataclass(frozen=True)
class Where:
    """Where runs take place, and how many at a time."""

    workers: int = 1
    """Runs at a time."""
    engine: EngineName = "local"
    """On this machine, or on a Ray cluster whose machines see --root, --out and --weights."""
    address: str = "auto"
    """Of the Ray cluster; auto is the one this machine belongs to, local starts one on it."""
    gpus_per_worker: float = 0.0
    """GPUs, or a fraction of one, that Ray gives each worker."""

    def check(self) -> None:
        """Raises InputError for numbers that cannot be."""
        if self.workers < 1:
            raise InputError(f"--workers is {self.workers}: it must be at least 1")
        if self.gpus_per_worker < 0 or (self.gpus_per_worker and self.engine != "ray"):
            raise InputError(
                f"--gpus-per-worker is {self.gpus_per_worker:g}: it is a share for --engine ray, 0 or above"
            )


@dataclass(frozen=True)
class WorkerDied:
    """The worker is gone; ``how`` goes on after "died"."""

    how: str


class Pool(Protocol):
    """Where workers live. A handle is the pool's own."""

    def start(self, number: int) -> Any:
        """A new worker; ``number`` is free of those that run."""

    def give(self, handle: Any, job: Job) -> None:
        """Let an idle worker begin the job."""

    def next_event(self, busy: Sequence[Any]) -> tuple[Any, int | Outcome | WorkerDied]:
        """Wait for what :meth:`Worker.run` yields next in any of the busy workers, or a death among them."""

    def stop(self, handle: Any) -> None:
        """End a worker, whatever it does."""


def run_all(jobs: Sequence[Job], settings: Settings, where: Where) -> Generator[tuple[Job, int | Outcome], None, None]:
    """Do the jobs.

    Args:
        jobs: what is to be done.
        settings: of all of them.
        where: ``local`` runs one worker in this process (the only one that advances jobs in lockstep) and several in
            processes that share its threads and the machine's GPUs; for ``ray``, paths must lead to the same files on
            all machines.

    Yields:
        Jobs with the frames they have got on by (below 0 where a worker died and its job begins anew), and each with
        its outcome at the end.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    if not jobs:
        return
    if where.engine == "ray":
        pool = _RayPool(settings, where.address, where.gpus_per_worker)
        yield from _distribute(pool, jobs, settings, where.workers)
    elif where.workers > 1:
        yield from _distribute(_ProcessPool(settings, where.workers), jobs, settings, where.workers)
    else:
        yield from Worker(settings).run_all(jobs)


def settle_device(name: str, where: Where) -> str:
    """The device that ``auto`` means where the workers are: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: the device is not there, or not what Ray is asked for.
    """
    if where.engine == "local":
        return str(choose_device(name))
    device = "cuda" if where.gpus_per_worker > 0 else "cpu"
    if name not in ("auto", device):
        share = f"--gpus-per-worker {where.gpus_per_worker:g}"
        raise InputError(f"--device {name} and {share} do not agree: leave --device out")
    return device


def _distribute(
    pool: Pool, jobs: Sequence[Job], settings: Settings, workers: int
) -> Generator[tuple[Job, int | Outcome], None, None]:
    waiting, deaths, progress = deque(jobs), Counter[Job](), Counter[Job]()
    handles: dict[int, Any] = {}
    busy: dict[int, Job] = {}
    try:
        while waiting or busy:
            for number in range(workers):
                if number not in busy and waiting:
                    if number not in handles:
                        handles[number] = pool.start(number)
                    busy[number] = waiting.popleft()
                    pool.give(handles[number], busy[number])
                elif number not in busy and number in handles:
                    pool.stop(handles.pop(number))  # what it holds, another one may be waiting for
            handle, event = pool.next_event([handles[number] for number in busy])
            number = next(n for n in busy if handles[n] is handle)
            job = busy[number]
            if isinstance(event, int):
                progress[job] += event
            else:
                del busy[number]
            if isinstance(event, WorkerDied):
                pool.stop(handles.pop(number))
                deaths[job] += 1
                if deaths[job] < _ATTEMPTS:
                    waiting.appendleft(job)
                    yield job, -progress.pop(job, 0)
                    continue
                reason = InputError(f"its worker died {_ATTEMPTS} times, the last one {event.how}")
                event = Outcome(job.failed(reason, settings.out))
            yield job, event
    finally:
        for handle in handles.values():
            pool.stop(handle)


class _ProcessPool:
    """Processes of this machine, which share its threads and GPUs evenly."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._settings = settings
        self._threads = max(1, torch.get_num_threads() // workers)
        # Not a fork: a process that has started threads or touched CUDA cannot be copied.
        self._context = multiprocessing.get_context("spawn")

    def start(self, number: int) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        settings = self._settings
        if settings.device == "cuda":  # none is named: all of them in turn
            settings = replace(settings, device=f"cuda:{number % torch.cuda.device_count()}")
        process = self._context.Process(target=_serve, args=(theirs, settings, self._threads), daemon=True)
        with _interrupts_held_back():
            process.start()
        theirs.close()
        return process, ours

    def give(self, handle: tuple[Any, Connection], job: Job) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died idle: next_event says so
            handle[1].send(job)

    def next_event(self, busy: Sequence[tuple[Any, Connection]]) -> tuple[Any, int | Outcome | WorkerDied]:
        ready = wait([connection for _, connection in busy])[0]
        handle = next(handle for handle in busy if handle[1] is ready)
        try:
            return handle, handle[1].recv()
        except (EOFError, ConnectionResetError):
            process = handle[0]
            process.join()
            how = f"by signal {-process.exitcode}" if process.exitcode < 0 else f"with exit code {process.exitcode}"
            return handle, WorkerDied(how)

    def stop(self, handle: tuple[Any, Connection]) -> None:
        process, connection = handle
        connection.close()
        process.kill()
        process.join()


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches the whole group, but the parent stops its workers: a process started in here never hears of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, settings: Settings, threads: int) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    worker = _OwnProcessWorker(settings, threads)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        while True:
            for event in worker.run(connection.recv()):
                connection.send(event)


class _OwnProcessWorker(Worker):
    """A worker that has a process to itself, so that it may say how many threads that takes, and where it stands."""

    def __init__(self, settings: Settings, threads: int, folder: Path | None = None) -> None:
        if folder is not None:
            os.chdir(folder)
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        super().__init__(settings)


class _RayPool:
    """Actors of a Ray cluster with one CPU each."""

    def __init__(self, settings: Settings, address: str, gpus_per_worker: float) -> None:
        try:
            import ray
        except ImportError:
            raise InputError("--engine ray needs Ray: pip install 'fdn-triton[cluster]'") from None
        if not ray.is_initialized():
            try:
                _check_reachable(address)
                ray.init(address=address, log_to_driver=False)
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise InputError(f"there is no Ray cluster at {address!r}: {reason}") from None
        self._ray: Any = ray
        self._settings = settings
        self._actor = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(_OwnProcessWorker)
        self._events: dict[Any, Any] = {}

    def start(self, number: int) -> Any:
        return self._actor.remote(self._settings, 1, Path.cwd())  # paths may be relative

    def give(self, handle: Any, job: Job) -> None:
        self._events[handle] = handle.run.options(num_returns="streaming").remote(job)

    def next_event(self, busy: Sequence[Any]) -> tuple[Any, int | Outcome | WorkerDied]:
        generators = {self._events[handle]: handle for handle in busy}
        ready = self._ray.wait(list(generators), num_returns=1)[0][0]
        try:
            return generators[ready], self._ray.get(next(ready))
        except self._ray.exceptions.RayActorError:
            return generators[ready], WorkerDied("on the cluster")

    def stop(self, handle: Any) -> None:
        self._events.pop(handle, None)
        self._ray.kill(handle)


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody answers at ``host:port``; Ray itself tries for ten minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
