"""What Numba's kernels leave alone, and when PyTorch's operations take their place."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from fdn_triton.kernels import lrn_max_pool, max_roi_align, resize_subtract_mean
from fdn_triton.kernels.cpu.roi_taps import clamped_taps
from fdn_triton.kernels.max_roi_align import Grid, samples_in_bins
from fdn_triton.kernels.roi_sampling import _axis_taps

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
BOXES = torch.tensor([[0.0, 1.0, 2.0, 9.0, 8.0], [0.0, 3.0, 0.0, 7.0, 9.0]])
IMAGE = torch.randint(256, (9, 11, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
OPERATIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: lrn_max_pool(x),
    lambda x: max_roi_align(x, BOXES, 2),
    lambda x: resize_subtract_mean(IMAGE, (7, 8), x[0, :3, 0, 0].contiguous()),
]
EACH = pytest.mark.parametrize("operation", OPERATIONS, ids=["lrn", "roi", "resize"])


def a_map() -> Tensor:
    return torch.randn(1, 8, 10, 12, generator=torch.Generator().manual_seed(0)) * 30


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@EACH
def test_traced_operations_compute_what_they_see(operation: Callable[[Tensor], Tensor]) -> None:
    """A trace that missed a kernel would hold the memory that it filled."""
    x, other = a_map(), a_map() * 0.5 + 1
    traces = [torch.jit.trace(operation, x)]
    if operation is not OPERATIONS[1]:  # looks at the boxes' values, which this tracer refuses
        traces.append(make_fx(operation)(x))
    for traced in traces:
        torch.testing.assert_close(traced(other), operation(other), rtol=1e-5, atol=1e-3)


def test_forward_mode_does_not_lose_its_tangents() -> None:
    """PyTorch cannot push them through embedding bags, and says so."""
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward AD"):
        max_roi_align(forward_ad.make_dual(a_map(), torch.ones(1, 8, 10, 12)), BOXES, 2)


@pytest.mark.parametrize("grid", ["midpoint", "interior"])
@pytest.mark.parametrize("aligned", [False, True])
def test_samples_lie_where_pytorch_puts_them(grid: Grid, aligned: bool) -> None:
    edges = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * 200
    edges[:8, 1] = torch.tensor([math.inf, -math.inf, math.nan, 0.0, 1e30, -1e30, 16.0, 160.0])
    edges[4:12, 0] = torch.tensor([math.inf, -math.inf, math.nan, 0.0, 1e30, -1e30, -16.0, 144.0])
    sampling = samples_in_bins((3, 3), 1 / 16, 2, aligned, grid, 0.0)
    for size in (1, 10):
        cells, weights = clamped_taps(*edges.unbind(1), size, 3, sampling.divisions[0], sampling)
        expected_cells, expected_weights = _axis_taps(*edges.unbind(1), size, 3, sampling.divisions[0], sampling)
        assert torch.equal(cells, expected_cells) and torch.equal(weights, expected_weights)


@EACH
def test_another_default_device_changes_nothing(operation: Callable[[Tensor], Tensor]) -> None:
    x = a_map()
    expected = operation(x)
    with torch.device("meta"):
        assert torch.equal(operation(x), expected)


@EACH
def test_several_threads_at_once(operation: Callable[[Tensor], Tensor], threads: Callable[[int], None]) -> None:
    threads(2)
    x = a_map()
    expected = operation(x)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(out, expected) for out in pool.map(lambda _: operation(x), range(40)))


def said(code: str, path: Path, **variables: str) -> str:
    """What a Python of its own prints that imports the folder's copy in ``path``."""
    env = {**os.environ, "PYTHONPATH": str(path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_numbers_of_threads_are_left_alone() -> None:
    """Numba's first use of OpenMP sets the number of its threads to that of all cores, PyTorch's with it."""
    code = (
        "import torch, numba; torch.set_num_threads(2); from fdn_triton.kernels import lrn_max_pool\n"
        "for _ in range(2): lrn_max_pool(torch.ones(1, 8, 9, 9))\n"
        "print(torch.get_num_threads(), numba.get_num_threads())"
    )
    assert said(code, KERNELS.parent, NUMBA_NUM_THREADS="4", OMP_NUM_THREADS="2") == "2 4"


def test_what_is_kept_on_disk_knows_all_sources(tmp_path: Path) -> None:
    """A change of a function that a kernel calls, in another file, reaches the kernel."""
    shutil.copytree(KERNELS, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import torch; from copied import lrn_max_pool; print(float(lrn_max_pool(torch.ones(1, 8, 9, 9)).max()))"
    assert float(said(code, tmp_path, OMP_NUM_THREADS="1")) > 0
    source = tmp_path / "copied/cpu/bits.py"
    text = source.read_text()
    assert "taken[i] = words[i]" in text
    source.write_text(text.replace("taken[i] = words[i]", "taken[i] = 0"))
    assert float(said(code, tmp_path, OMP_NUM_THREADS="1")) == 0
