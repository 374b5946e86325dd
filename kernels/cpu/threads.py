"""As many threads as PyTorch uses: the same ones, where Numba finds the OpenMP library that PyTorch has loaded."""

from __future__ import annotations

import threading
from typing import Any

import numba
import torch

# Where there is no OpenMP, Numba has threads of its own, and ends the process if two others start them at once.
_one_at_a_time = threading.Lock()


def run_in_parts(part: Any, all_parts: Any, *arguments: Any) -> None:
    """``part(0, 1, *arguments)`` on one thread, else ``all_parts(n, *arguments)``, which runs part(i, n, ...) on n."""
    threads = min(wanted := torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if threads == 1:
        part(0, 1, *arguments)
        return
    with _one_at_a_time:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            all_parts(threads, *arguments)
        finally:
            numba.set_num_threads(before)
            if torch.get_num_threads() != wanted:  # the first time, Numba sets OpenMP's number to that of all cores
                torch.set_num_threads(wanted)
