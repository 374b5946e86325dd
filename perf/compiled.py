"""What the compiler makes of every Triton kernel, without a GPU: ``python perf/compiled.py``.

The operations are called as the tracker calls them, with tensors that hold no data, under a Triton driver that compiles
for the target and launches nothing: what is compiled is what a GPU of that kind would run. Registers, stack and shared
memory are read from the finished code with the tools in Triton's package. Needs torch and Triton on Linux; for gfx942
Triton 3.5, or ROCm's linker.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import triton
from cases import TRITON_MODULES
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.jit import JITFunction

from fdn_triton import kernels
from fdn_triton.kernels import ring_rows, target_boxes

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_MATRIX_INSTRUCTION = re.compile(r"wgmma\.mma_async|tcgen05\.mma|\bmma\.sync|v_mfma|v_smfmac")
# Either an asynchronous copy of some bytes, or a load of a vector of numbers of some bits.
_PTX_LOAD = re.compile(r"cp\.async\.c[ag]\.\S+ \[[^\]]+\], \[[^\]]+\], (\w+)|ld\.global\S*?(?:\.v(\d))?\.[bfus](\d+)\s")
_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


@dataclass(frozen=True)
class Compiled:
    """One kernel for one target.

    Attributes:
        kernel: its name in the source.
        dtype: of the features.
        variant: what it was called for.
        registers: per thread.
        spills: on NVIDIA instructions that read or write a thread's memory, on AMD registers moved there.
        local_bytes: a thread's stack and local memory.
        shared_bytes: of a program.
        widest_load: bytes that one instruction loads from global memory, at most.
        matrix: the tensor cores' instruction, or "".
    """

    kernel: str
    dtype: str
    variant: str
    target: str
    registers: int
    spills: int
    local_bytes: int
    shared_bytes: int
    instructions: int
    widest_load: int
    matrix: str


class CompileOnly(DriverBase):
    """Stands in for a GPU's driver: tells Triton the target, and that there is one device with one stream."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return str(self.target)  # Triton keeps what it has compiled by device: a target is one

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError


@contextmanager
def launches_compile(target: str, wanted: Callable[[str], bool]) -> Iterator[list[tuple[str, Any]]]:
    """Inside, a launch of a wanted kernel compiles it and does no more, one of another does nothing.

    Yields a list that grows by (name, compiled kernel), each compiled kernel once.
    """
    found: list[tuple[str, Any]] = []
    launch = JITFunction.run

    def compile_it(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        name = kernel.__name__
        if not wanted(name):
            return None
        result = launch(kernel, *args, grid=grid, warmup=True, **options)
        if all(result is not known for _, known in found):
            found.append((name, result))
        return result

    triton.runtime.driver.set_active(CompileOnly(TARGETS[target]))
    JITFunction.run = compile_it
    try:
        yield found
    finally:
        JITFunction.run = launch


def facts(name: str, compiled: Any, dtype: str, variant: str, target: str) -> Compiled:
    """What the finished code says of itself."""
    read = _nvidia_facts if TARGETS[target].backend == "cuda" else _amd_facts
    shared = int(compiled.metadata.shared)
    return Compiled(name.lstrip("_"), dtype, variant, target, shared_bytes=shared, **read(compiled.asm))


def _nvidia_facts(asm: dict[str, Any]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        usage = {
            key: int(n) for key, n in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", _dump(file, "--dump-resource-usage"))
        }
        local_bytes = usage["STACK"] + usage["LOCAL"]
        # Disassembling takes as long as compiling, and without local memory there is nothing to count.
        spills = len(re.findall(r"\b(?:LDL|STL)\b", _dump(file, "-sass"))) if local_bytes else 0
    match = _MATRIX_INSTRUCTION.search(asm["ptx"])
    return {
        "registers": usage["REG"],
        "spills": spills,
        "local_bytes": local_bytes,
        "instructions": _code_bytes(asm["cubin"]) // 16,
        "widest_load": max((_ptx_load_bytes(*load) for load in _PTX_LOAD.findall(asm["ptx"])), default=0),
        "matrix": match[0] if match else "",
    }


def _dump(file: Any, what: str) -> str:
    command = [str(_TOOLS / "cuobjdump"), what, file.name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _code_bytes(elf: bytes) -> int:
    """Size of the executable sections of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count = struct.unpack_from("<HH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * entry_size) for i in range(count)]
    executable = 4  # flag
    return sum(size for _, _, flags, _, _, size in sections if flags & executable)


def _ptx_load_bytes(copied: str, vector: str, bits: str) -> int:
    return int(copied, base=0) if copied else int(vector or 1) * int(bits) // 8


def _amd_facts(asm: dict[str, Any]) -> dict[str, Any]:
    text = asm["amdgcn"]

    def number(name: str) -> int:
        return int(re.search(rf"^\s+(?:- )?\.{name}:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]

    code = re.findall(r"^\t([sv]_\w+|ds_\w+|(?:buffer|global|flat|scratch)_\w+)", text, re.MULTILINE)
    loads = [re.search(r"_load_(\w+)", name) for name in code if name.startswith(("buffer", "global", "flat"))]
    widths = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "sshort": 2, "short": 2}
    match = _MATRIX_INSTRUCTION.search(text)
    return {
        "registers": number("vgpr_count"),
        "spills": number("vgpr_spill_count") + number("sgpr_spill_count"),
        "local_bytes": number("private_segment_fixed_size"),
        "instructions": len(code),
        "widest_load": max((widths.get(load[1].split("_")[0], 1) for load in loads if load), default=0),
        "matrix": match[0] if match else "",
    }


def tracker_calls(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], object]]]:
    """The operations as the tracker calls them, forward and backward, on tensors without data; and what each is for."""

    def empty(*shape: int, like: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=like, device="meta")

    def channels_last(*shape: int) -> Tensor:
        return empty(*shape).to(memory_format=torch.channels_last)

    def backward(operation: Callable[..., Tensor], features: Tensor, *args: Any, **options: Any) -> Callable[[], None]:
        def both() -> None:
            out = operation(features.detach().requires_grad_(), *args, **options)
            out.backward(torch.empty_like(out))

        return both

    boxes = empty(256, 5, like=torch.float32)
    features = channels_last(1, 512, 38, 50)
    align = kernels.max_roi_align
    yield "candidates", lambda: align(features, boxes, 3, 1 / 16)
    yield "candidates in fp32", lambda: align(features, boxes, 3, 1 / 16, dtype=torch.float32)
    yield "candidates, 1x1 samples", lambda: align(features, boxes, 3, 1 / 16, 1, dtype=torch.float32)
    yield "NCHW map", lambda: align(features.contiguous(), boxes, 3, 1 / 16)
    yield "100 channels", lambda: align(channels_last(1, 100, 38, 50), boxes, 3, 1 / 16)
    yield "training", backward(align, features, boxes, 3, 1 / 16, deterministic=False)
    yield "deterministic", backward(align, features, boxes, 3, 1 / 16, deterministic=True)
    yield "RoIAlignMax", lambda: kernels.roi_align_max(features, boxes, 3, 1 / 8)
    yield "RoIAlignAdaMax", lambda: kernels.roi_align_ada_max(features, boxes, 3, 1 / 8)
    yield "behind conv1", partial(kernels.lrn_max_pool, channels_last(1, 96, 281, 500))
    frame, mean = empty(360, 640, 3, like=torch.uint8), empty(3, like=torch.float32)
    yield "frame", partial(kernels.resize_subtract_mean, frame, (562, 1000), mean, dtype)
    yield "frame of 4", partial(kernels.resize_subtract_mean, frame, (562, 1000), mean, dtype, channels=4)
    targets, drawn, counts = empty(8, 4), empty(8, 400, 4), empty(8, like=torch.int64)
    limits = target_boxes.Limits((1000, 562), 10.0)
    around, spreads = target_boxes.boxes_around, empty(8, 1, 1)
    yield "boxes", lambda: around(targets, empty(8, 256, 3), 0.6, 1.0, 1.05, limits)
    yield "candidates' boxes", lambda: around(targets, empty(8, 256, 3), spreads, 1.0, 1.05, limits)
    rounding = limits._replace(round_to=(1.5, 1.5))
    yield "boxes of whole pixels", lambda: around(targets, empty(8, 256, 3), spreads, 1.0, 1.05, rounding)
    yield "positives", lambda: target_boxes.first_overlapping(drawn, targets, 0.7, 50, above=True)
    yield "samples", lambda: target_boxes.first_overlapping(drawn, targets, 0.3, 200, above=False)
    pool, rows = empty(10_000, 4608), empty(8, 200, 4608)
    yield "memory", lambda: ring_rows.append_to_rings(pool, rows, counts, counts, counts, 4150)
    for heads in (1, 16, 64):
        weights = [empty(heads, *shape) for shape in ((512, 4608), (512, 512), (2, 512))]
        biases = [empty(heads, rows) for rows in (512, 512, 2)]
        yield f"T = {heads}", partial(kernels.score_heads, empty(heads, 256, 4608), weights, biases)
        if heads == 1 and dtype == torch.float32:
            mined = partial(kernels.score_heads, empty(heads, 1024, 4608), weights, biases, allow_tf32=True)
            yield "mining in TF32", mined


def compile_all(targets: list[str], wanted: Callable[[str], bool]) -> Iterator[Compiled]:
    """Every wanted kernel for every dtype and target, each as soon as it is known."""
    for module in TRITON_MODULES:
        _send_to_triton(import_module(f"{kernels.__name__}.{module}"))
    for target in targets:
        with launches_compile(target, wanted) as found:
            for dtype_name, dtype in DTYPES.items():
                for variant, call in tracker_calls(dtype):
                    before = len(found)
                    call()
                    for name, compiled in found[before:]:
                        yield facts(name, compiled, dtype_name, variant, target)


def _send_to_triton(module: Any) -> None:
    """Tensors without data take the way of a GPU's."""
    module.runs_on_triton = lambda tensor: True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all")
    parser.add_argument("--kernel", default="", help="only kernels with this in their name")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of the table")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        sys.exit("error: interpreted kernels cannot be compiled: run without TRITON_INTERPRET in the environment")
    rows = compile_all(options.target, lambda name: options.kernel in name)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print("|", " | ".join(field.name.replace("_", " ") for field in fields(Compiled)), "|")
    print("|", " | ".join("---" for _ in fields(Compiled)), "|")
    for row in rows:
        print("|", " | ".join(str(value) for value in asdict(row).values()), "|", flush=True)


if __name__ == "__main__":
    main()
