"""How kernels are compiled: at the first call, without Python's lock, and kept on disk beside the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a kernel, with options of ``numba.njit``."""

    def decorate(function: Callable[..., Any]) -> Any:
        # Part of the file's name on disk: what a copy of this folder, in another package, finds there is not its own.
        function.__qualname__ = f"{function.__module__}.{function.__name__}"
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no folder can be written to
            return numba.njit(nogil=True, **options)(function)

    return decorate
