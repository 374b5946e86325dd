"""What no kernel gets below on this machine, measured on the spot: launches, copies, gathers and matrix products."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import torch
from measure import Call, measure
from torch import Tensor


@dataclass(frozen=True)
class Work:
    """The least that an operation must do: bytes through memory, bytes gathered from a cached map, operations."""

    bytes: float = 0.0
    gathered: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Floors:
    """Rates of the device.

    Attributes:
        empty_us: of a kernel that does nothing, microseconds.
        copy: of a copy much larger than the cache, bytes read plus bytes written per second.
        gather: rows of 1 KiB read in random order from 2 MiB, which stay in the L2 cache; bytes per second.
        matmul: large products by dtype, "fp16" and "fp32" (without TF32); operations per second.
    """

    empty_us: float
    copy: float
    gather: float
    matmul: dict[str, float]

    def of(self, work: Work, dtype: str) -> tuple[float, str]:
        """The floor of this work in microseconds, and which of the rates sets it."""
        matmul = self.matmul.get(dtype, self.matmul["fp16"])
        floors = {
            "empty kernel": self.empty_us,
            "copy": 1e6 * work.bytes / self.copy,
            "gather": 1e6 * work.gathered / self.gather,
            "matmul": 1e6 * work.flops / matmul,
        }
        name = max(floors, key=lambda key: floors[key])
        return floors[name], name


def measure_floors(device: torch.device, quick: bool) -> Floors:
    """All rates, in about a second; ``quick`` takes small sizes, whose figures mean nothing."""
    copied, side, rows = (1 << 20, 128, 1 << 10) if quick else (1 << 30, 8192, 1 << 20)

    def seconds(*calls: Call) -> float:
        return 1e-6 * measure(calls, device, samples=5 if quick else 15).device.median

    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * copied / seconds(partial(target.copy_, source))
    del source, target

    matmul = {}
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        matmul[name] = 2 * side**3 / seconds(partial(torch.matmul, left, right))
    del left, right

    table = torch.randn(2048, 512, device=device).half()
    index = torch.randint(len(table), (rows,), dtype=torch.int32, device=device)
    gather = rows * table.shape[1] * table.element_size() / seconds(_gather_call(table, index))
    return Floors(1e6 * seconds(_empty_call(device)), copy, gather, matmul)


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on: device, driver, versions, date."""
    import triton

    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = properties.name
        found["multiprocessors"] = properties.multi_processor_count
        found["l2_cache_bytes"] = properties.L2_cache_size
        found["cuda"] = torch.version.cuda or torch.version.hip
        if smi := shutil.which("nvidia-smi"):
            command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            found["driver"] = done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
    return found


def _empty_call(device: torch.device) -> Call:
    if device.type != "cuda":
        return lambda: None
    from floor_kernels import empty

    return empty


def _gather_call(table: Tensor, index: Tensor) -> Call:
    """Reads the indexed rows; what it writes is little beside."""
    if table.device.type != "cuda":
        return lambda: table[index.long()].sum()
    from floor_kernels import gather

    return partial(gather, table, index)
