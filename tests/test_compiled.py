"""Every Triton kernel, compiled without a GPU: it compiles, spills nothing, fits, and multiplies on tensor cores."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DTYPES = ("fp32", "fp16", "bf16")
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}  # the makers' figures, bytes

triton = pytest.importorskip("triton")
# Triton 3.4 does not bring the linker for AMD.
AMD = ("gfx942",) if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 5) else ()
TARGETS = ("sm_80", "sm_90", "sm_100", *AMD)


def python(*arguments: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python that compiles: an interpreted kernel cannot be compiled, so the variable of this process stays here."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'perf'}", "TRITON_CACHE_DIR": str(cache), **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What ``perf/compiled.py`` says of every kernel; two at a time."""
    cache = tmp_path_factory.mktemp("cache")
    found = []
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(
            lambda targets: python(str(ROOT / "perf/compiled.py"), "--json", "--target", *targets, cache=cache),
            (TARGETS[::2], TARGETS[1::2]),
        ):
            assert done.returncode == 0, done.stderr[-3000:]
            found += json.loads(done.stdout)
    return found


def kernels_in_source() -> dict[str, bool]:
    """The kernels that ``kernels/gpu`` launches, and whether they multiply matrices."""
    found = {}
    for path in (ROOT / "kernels/gpu").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                found[node.name.lstrip("_")] = "tl.dot(" in ast.unparse(node)
    return found


def test_nothing_is_left_out(rows: list[dict[str, Any]]) -> None:
    there = {(row["kernel"], row["dtype"], row["target"]) for row in rows}
    wanted = {(name, dtype, target) for name in kernels_in_source() for dtype in DTYPES for target in TARGETS}
    assert len(wanted) > 12 and there == wanted


def test_nothing_spills(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert 0 < row["registers"] <= 255 or row["target"] == "gfx942", row
        assert row["instructions"] > 10, row
        if row["target"] != "gfx942":
            assert (row["spills"], row["local_bytes"]) == (0, 0), row


def test_shared_memory_fits(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["shared_bytes"] <= SHARED_LIMIT[row["target"]], row


def test_matrix_products_are_on_tensor_cores(rows: list[dict[str, Any]]) -> None:
    """In fp16 and bf16 all of them, in fp32 only where TF32 is allowed; no other kernel multiplies matrices."""
    multiplies = kernels_in_source()
    instruction = {
        "sm_80": ("mma.sync",),
        "sm_90": ("wgmma.mma_async", "mma.sync"),
        "sm_100": ("tcgen05.mma", "mma.sync"),
        "gfx942": ("v_mfma",),
    }
    for row in rows:
        if not multiplies[row["kernel"]]:
            assert row["matrix"] == "", row
        elif row["dtype"] != "fp32":
            assert row["matrix"] in instruction[row["target"]], row
    assert {row["matrix"] for row in rows if row["target"] == "sm_90"} >= {"wgmma.mma_async"}


def test_loads_are_wide(rows: list[dict[str, Any]]) -> None:
    """16 bytes at a time from a channels-last map, on NVIDIA."""
    wide = [row for row in rows if row["variant"] in ("candidates", "behind conv1") and row["target"] != "gfx942"]
    assert wide and all(row["widest_load"] >= 16 for row in wide)


SPILLING = """
import json, sys
from dataclasses import asdict
import torch, triton, triton.language as tl
from compiled import facts, launches_compile

@triton.jit
def _kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(n):
        total += tl.load(x_ptr + i * BLOCK + offs)
    tl.store(y_ptr + offs, total)

x = torch.empty(8192, device="meta")
for target in ("sm_80", "sm_90"):
    for registers in ({}, {"maxnreg": 32}):
        with launches_compile(target, lambda name: True) as found:
            _kernel[(1,)](x, x, 7, BLOCK=8192, num_warps=4, **registers)
        print(json.dumps(asdict(facts(*found[0], "fp32", "", target))))
"""


def test_spills_are_seen(tmp_path: Path) -> None:
    """A kernel with 64 sums a thread, as it is and with only 32 registers; so the tests above can fail."""
    (tmp_path / "spilling.py").write_text(SPILLING)
    done = python(str(tmp_path / "spilling.py"), cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["target"] for row in found] == ["sm_80", "sm_80", "sm_90", "sm_90"]
    for fits, spills in (found[:2], found[2:]):
        assert fits["registers"] > 64 and fits["spills"] == fits["local_bytes"] == 0 and fits["widest_load"] == 16
        assert spills["registers"] == 32 and spills["spills"] > 32 and spills["local_bytes"] > 32 * 4


def test_one_kernel_and_target(tmp_path: Path) -> None:
    flags = ["--target", "sm_90", "--kernel", "bwd_scatter"]
    done = python(str(ROOT / "perf/compiled.py"), *flags, cache=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    head, _, *table = done.stdout.splitlines()
    assert head.split(" | ")[:5] == ["| kernel", "dtype", "variant", "target", "registers"]
    assert len(table) >= len(DTYPES)
    assert all("max_roi_align_bwd_scatter_kernel" in line and "sm_90" in line for line in table)


def test_interpreted_kernels_are_refused(tmp_path: Path) -> None:
    done = python(str(ROOT / "perf/compiled.py"), cache=tmp_path, TRITON_INTERPRET="1")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: interpreted kernels cannot be compiled") and done.stderr.count("\n") == 1
