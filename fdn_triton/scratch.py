"""Memory for what lies between two steps on a CPU, where fresh pages can cost more than the step that fills them.

It is kept: per thread and name, the largest that was asked for, up to a limit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

_MOST_BYTES = 32 << 20  # that are kept of a name; far beyond what stays in a cache, memory may as well be fresh

_kept = threading.local()


def scratch(name: str, shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory of undefined values, until the next call with this name in this thread.

    Args:
        name: of the use.
        shape: wanted.
        like: has the dtype and device; for other devices than the CPU, and while torch traces or compiles, the memory
            is fresh.
    """
    count = math.prod(shape)
    kept_for_later = like.device.type == "cpu" and count * like.element_size() <= _MOST_BYTES
    if not kept_for_later or type(like) is not Tensor or torch.compiler.is_compiling():
        return torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    key = f"{name} {like.dtype}"
    kept: Tensor | None = getattr(_kept, key, None)
    if kept is None or len(kept) < count:
        with torch.inference_mode(False):  # else no later call could change it outside of that mode
            kept = torch.empty(count, dtype=like.dtype, device="cpu")
        setattr(_kept, key, kept)
    return kept[:count].view(tuple(shape))
