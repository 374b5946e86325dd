"""From an image to the network's input: the function, its reference, and the Triton kernel, interpreted or on a GPU."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdn_triton.kernels import resize_subtract_mean, resize_subtract_mean_ref

public_module = sys.modules["fdn_triton.kernels.resize_subtract_mean"]
MEAN = torch.tensor([120.0, 110.0, 100.0])
SIZES = [
    ((7, 9), (23, 31)),  # both axes grow
    ((36, 64), (10, 17)),  # both shrink
    ((37, 5), (9, 30)),  # one of each
    ((12, 90), (12, 13)),  # one as it is
    ((1, 1), (3, 4)),
    ((9, 13), (1, 1)),
    ((1, 200), (1, 20)),
]


def random_image(height: int, width: int) -> Tensor:
    return torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def to_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public function takes tensors on a CPU to the kernel too: there it is interpreted."""
    monkeypatch.setattr(public_module, "runs_on_triton", lambda x: True)


def on_triton(image: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return resize_subtract_mean(image.to(device), size, MEAN.to(device), dtype).cpu()


@pytest.mark.parametrize(("image_hw", "size"), SIZES)
def test_the_reference_is_pytorchs_interpolation(image_hw: tuple[int, int], size: tuple[int, int]) -> None:
    image = random_image(*image_hw)
    planes = image.permute(2, 0, 1)[None].double()
    expected = F.interpolate(planes, size, mode="bilinear", antialias=True) - MEAN.double()[:, None, None]
    torch.testing.assert_close(resize_subtract_mean_ref(image, size, MEAN), expected, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("to_triton")
@pytest.mark.parametrize(("image_hw", "size"), SIZES)
def test_the_kernel_equals_the_reference(image_hw: tuple[int, int], size: tuple[int, int]) -> None:
    """Values up to 255 are sums of a few positive terms in fp32."""
    image = random_image(*image_hw)
    out = on_triton(image, size)
    assert out.dtype == torch.float32 and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), resize_subtract_mean_ref(image, size, MEAN), rtol=0, atol=3e-5)


@pytest.mark.usefixtures("to_triton")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_rounded_once(dtype: torch.dtype) -> None:
    image = random_image(20, 30)
    out = on_triton(image, (13, 41), dtype)
    # Triton's interpreter cuts bf16 off.
    ulp = {torch.float16: 2**-11, torch.bfloat16: 2**-8 if torch.cuda.is_available() else 2**-7}[dtype]
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), resize_subtract_mean_ref(image, (13, 41), MEAN), rtol=ulp, atol=3e-5)


@pytest.mark.usefixtures("to_triton")
def test_positions_are_exact_far_from_the_origin() -> None:
    """Positions in fp32 are off by 1e-4 pixels in column 1500, by 0.03 grey levels at a step from 0 to 255."""
    image = torch.zeros(1, 1500, 3, dtype=torch.uint8)
    image[:, 1::2] = 255
    out = on_triton(image, (1, 1499)).double()
    torch.testing.assert_close(out, resize_subtract_mean_ref(image, (1, 1499), MEAN), rtol=0, atol=3e-5)


@pytest.mark.usefixtures("to_triton")
def test_any_strides_are_read() -> None:
    image = random_image(15, 22)
    wide = torch.zeros(3, 30, 44, dtype=torch.uint8)
    view = wide[:, ::2, 1::2].permute(1, 2, 0)
    view.copy_(image)
    assert torch.equal(on_triton(view, (9, 30)), on_triton(image, (9, 30)))


@pytest.mark.usefixtures("to_triton")
def test_sides_beyond_the_kernels_integers_go_through_pytorch() -> None:
    image = random_image(1, 16385)
    out = on_triton(image, (1, 20)).double()
    torch.testing.assert_close(out, resize_subtract_mean_ref(image, (1, 20), MEAN), rtol=0, atol=1.5)


def test_dtype_of_the_plain_function() -> None:
    image = random_image(5, 6)
    half = resize_subtract_mean(image, (9, 11), MEAN, torch.float16)
    assert torch.equal(half, resize_subtract_mean(image, (9, 11), MEAN).half())
    assert half.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("function", [resize_subtract_mean, resize_subtract_mean_ref])
def test_what_is_refused(function: type[Tensor]) -> None:
    image = random_image(5, 6)
    for arguments, message in (
        ((image.float(), (2, 2), MEAN), "image must be uint8"),
        ((image[..., :2], (2, 2), MEAN), "image must be uint8"),
        ((image[:0], (2, 2), MEAN), "not empty"),
        ((image, (2, 0), MEAN), "size must be two positive integers"),
        ((image, (2, 2), MEAN.double()), "mean must be fp32"),
        ((image, (2, 2), MEAN.to("meta")), "the mean on meta"),
        ((image, (2, 2), MEAN, torch.int32), "a floating type"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*arguments)
