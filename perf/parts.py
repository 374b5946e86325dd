"""What a benchmark is made of: an operation at one shape and dtype, and the providers that compute it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from cases import CONV1_MAP, CONV2_MAP, IMAGES
from floors import Work
from measure import Call
from torch import Tensor

Inputs = tuple[Tensor, ...]
# Of norms. fp32 keeps TF32 out, which is off by 3e-4.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 2e-2}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OURS = "fdn_triton"


@dataclass(frozen=True)
class Provider:
    """One way to compute an operation.

    Attributes:
        prepare: from one set of inputs, outside of the measurement, to the call that is measured.
        compiled: by torch.compile, which takes its time.
        tolerance: relative error allowed, where not the dtype's.
        capture: measured by graph replay.
    """

    prepare: Callable[..., Call]
    compiled: bool = False
    tolerance: float | None = None
    capture: bool = True


@dataclass(frozen=True)
class Part:
    """One operation at one shape and dtype.

    Attributes:
        make: one set of inputs from a generator, on that device.
        reference: the right result for such inputs, in float64.
        work: the least work for such inputs.
        providers: ours first.
    """

    op: str
    shape: str
    dtype: str
    make: Callable[[torch.Generator, torch.device], Inputs]
    reference: Callable[..., Tensor]
    work: Callable[..., Work]
    providers: dict[str, Provider] = field(repr=False)


@dataclass(frozen=True)
class Sizes:
    """The shapes of a run."""

    feature_map: tuple[int, int, int, int] = (1, 512, 38, 50)  # of an 800x608 frame
    rois: tuple[int, ...] = (256, 1024)
    images: tuple[tuple[int, int, int, int], ...] = IMAGES
    maps: tuple[tuple[int, int, int, int], ...] = (CONV1_MAP, CONV2_MAP)
    candidates: int = 256
    targets: tuple[int, ...] = (1, 16, 64)
    widths: tuple[int, int, int] = (4608, 512, 512)
    dtypes: tuple[str, ...] = ("fp16", "fp32")
    learners: tuple[int, ...] = (1, 16)  # targets fine-tuned at once
    mined: int = 1024  # negatives that an iteration chooses from


QUICK = Sizes(
    (1, 8, 38, 50), (5,), ((12, 20, 20, 30),), ((1, 8, 9, 11),), 5, (1, 3), (40, 16, 16), ("fp32",), (1, 3), 20
)


def call(operation: Callable[..., Tensor]) -> Callable[..., Call]:
    return lambda *inputs: partial(operation, *inputs)


def compiled(operation: Callable[..., Tensor]) -> Callable[..., Call]:
    return lambda *inputs: partial(torch.compile(operation, dynamic=False), *inputs)


def nchw(prepare: Callable[..., Call]) -> Callable[..., Call]:
    """The inputs as plain [N, C, H, W], which PyTorch's and torchvision's layers like better than channels-last."""
    return lambda *inputs: prepare(*(tensor.contiguous() for tensor in inputs))


def backward(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Call]:
    """From the inputs and the output's gradient to the backward alone."""

    def prepare(features: Tensor, boxes: Tensor, gradient: Tensor) -> Call:
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            out = operation(leaf, boxes)
        return lambda: torch.autograd.grad(out, leaf, gradient, retain_graph=True)[0]

    return prepare
