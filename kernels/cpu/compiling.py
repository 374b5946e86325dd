"""How kernels are compiled: at the first call, without Python's lock, and kept on disk.

Numba keeps them beside the source, or where that cannot be written to, in the user's cache folder; the environment
variable ``NUMBA_CACHE_DIR`` names another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# Numba looks for changes in the file of the function alone, but what it calls is compiled into it.
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
_DIGEST = hashlib.sha256(_SOURCES).hexdigest()[:12]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a kernel, with options of ``numba.njit``."""

    def decorate(function: Callable[..., Any]) -> Any:
        # Part of the file's name on disk. The module's: a copy of this folder, in another package, has its own.
        function.__qualname__ = f"{function.__module__}.{function.__name__}.{_DIGEST}"
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # no folder can be written to: each process compiles for itself
            return numba.njit(nogil=True, **options)(function)

    return decorate
