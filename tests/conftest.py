"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

# Of modules that tests import, pytest explains failed assertions only where it is told to.
pytest.register_assert_rewrite("evaluate_command", "frame_files", "moving_patch", "track_command", "weight_files")

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported: its kernels then run on CPU tensors

from fdn_triton.kernels import dispatch  # noqa: E402  after that


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """On maps and products this small, threads that wait for each other on a busy machine cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """From its call on, for one test, Numba cannot be imported."""

    def gone() -> None:
        monkeypatch.setitem(sys.modules, "numba", None)
        dispatch._has_numba.cache_clear()

    yield gone
    monkeypatch.undo()
    dispatch._has_numba.cache_clear()


@pytest.fixture(scope="session")
def triton_device() -> torch.device:
    """Where the Triton kernels run: on the GPU, or interpreted on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
