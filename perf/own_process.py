"""Work in a process of its own: a crash on a GPU spoils all that its process does there afterwards."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any


def in_own_process(work: Callable[..., Iterator[Any]], argument: Any, seconds: float) -> Iterator[Any]:
    """What ``work(argument)`` yields, from a process of its own: a crash ends only that, and so does the time limit.

    Raises:
        RuntimeError: it ended before its end, or the time was over; the message says which.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(sender, work, argument))
    process.start()
    sender.close()
    deadline = time.monotonic() + seconds
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            kind, value = receiver.recv()
            if kind == "end":
                process.join(10)
                return
            if kind == "error":
                raise RuntimeError(value)
            yield value
        raise RuntimeError(f"stopped after {seconds:.0f} s")
    except EOFError:
        process.join(5)
        raise RuntimeError(f"its process died, exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()


def _send_all(sender: Connection, work: Callable[..., Iterator[Any]], argument: Any) -> None:
    try:
        for value in work(argument):
            sender.send(("value", value))
        sender.send(("end", None))
    except Exception as error:
        sender.send(("error", in_short(error)))


def in_short(error: Exception) -> str:
    """The first line of an error, for a table."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
