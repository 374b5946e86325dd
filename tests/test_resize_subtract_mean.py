"""From an image to the network's input: the function, its reference, and the Triton kernel, interpreted or on a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable

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
def test_sides_beyond_the_kernels_integers_go_another_way() -> None:
    image = random_image(1, 16385)
    out = on_triton(image, (1, 20)).double()
    torch.testing.assert_close(out, resize_subtract_mean_ref(image, (1, 20), MEAN), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("image_hw", "size"), [*SIZES, ((64, 48), (64, 48)), ((2160, 90), (562, 23)), ((5, 3), (1, 1))]
)
def test_on_a_cpu_parts_are_those_of_the_whole(image_hw: tuple[int, int], size: tuple[int, int]) -> None:
    image = random_image(*image_hw)
    expected = resize_subtract_mean_ref(image, size, MEAN)
    height, width = size
    middle = slice(height // 3, height // 3 + 1), slice(width // 2, min(width // 2 + 7, width))
    for rows, columns in ((slice(0, height), slice(0, width)), middle):
        part = resize_subtract_mean(image, size, MEAN, part=(rows, columns))
        assert part.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(part.double(), expected[:, :, rows, columns], rtol=0, atol=5e-5)


def test_on_a_cpu_only_the_surroundings_of_a_part_are_read() -> None:
    """Changes of the image two pixels beyond the part's own, in its size, leave it as it is."""
    image = random_image(200, 300)
    part = slice(32, 64), slice(48, 80)
    elsewhere = torch.zeros_like(image)
    window = (slice(2 * 32 - 2, 2 * 64 + 2), slice(2 * 48 - 2, 2 * 80 + 2))
    elsewhere[window] = image[window]
    expected = resize_subtract_mean(image, (100, 150), MEAN, part=part)
    assert torch.equal(resize_subtract_mean(elsewhere, (100, 150), MEAN, part=part), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_cpu_a_part_is_written_where_it_is_wanted(dtype: torch.dtype) -> None:
    """Into a map with a border, channels-last, and into one with the channels outside."""
    image, part = random_image(40, 30), (slice(8, 40), slice(16, 45))
    expected = resize_subtract_mean(image, (60, 45), MEAN, dtype, part)
    for frame in (torch.zeros(1, 64, 49, 3, dtype=dtype).permute(0, 3, 1, 2), torch.zeros(1, 3, 64, 49, dtype=dtype)):
        place = frame[:, :, 10:42, 18:47]
        assert resize_subtract_mean(image, (60, 45), MEAN, dtype, part, out=place) is place
        assert torch.equal(place, expected)
        frame[:, :, 10:42, 18:47] = 0
        assert not frame.any()


def test_on_a_cpu_images_of_any_strides_and_any_number_of_threads(threads: Callable[[int], None]) -> None:
    wide = random_image(80, 60)
    results = []
    for image in (wide[::2, ::2], wide[::2, ::2].contiguous(), wide.flip(2)[::2, ::2].flip(2)):
        for n in (1, 2):
            threads(n)
            results.append(resize_subtract_mean(image, (50, 50), MEAN))
    assert all(torch.equal(result, results[0]) for result in results[1:])


def test_without_numba_pytorchs_interpolation_gives_the_same(no_numba: Callable[[], None]) -> None:
    image, part = random_image(40, 30), (slice(8, 40), slice(16, 45))
    expected = resize_subtract_mean(image, (60, 45), MEAN, part=part)
    no_numba()
    # PyTorch keeps positions in fp32.
    torch.testing.assert_close(resize_subtract_mean(image, (60, 45), MEAN, part=part), expected, rtol=0, atol=1e-3)


def test_torchs_default_type_changes_nothing() -> None:
    image = random_image(40, 30)
    expected = resize_subtract_mean(image, (60, 45), MEAN)
    torch.set_default_dtype(torch.float64)
    try:
        resized = resize_subtract_mean(image, (60, 45), MEAN)
    finally:
        torch.set_default_dtype(torch.float32)
    assert resized.dtype == torch.float32 and torch.equal(resized, expected)


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


def test_parts_and_places_that_are_refused() -> None:
    image = random_image(5, 6)
    whole = slice(0, 2)
    for part in ((slice(0, 3), whole), (slice(0, 0), whole), (slice(-1, 1), whole), (slice(None), whole)):
        with pytest.raises(ValueError, match="part must be rows and columns within 2x2"):
            resize_subtract_mean(image, (2, 2), MEAN, part=part)
    with pytest.raises(ValueError, match=r"out must be \(1, 3, 2, 2\) of torch.float32 on cpu"):
        resize_subtract_mean(image, (2, 2), MEAN, out=torch.zeros(1, 3, 2, 3))


@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("way", ["pytorch", "triton"])
def test_channels_behind_the_third_are_zeros(monkeypatch: pytest.MonkeyPatch, way: str, channels: int) -> None:
    image = random_image(9, 13)
    expected = resize_subtract_mean(image, (12, 30), MEAN)
    if way == "triton":
        monkeypatch.setattr(public_module, "runs_on_triton", lambda x: True)
    device = "cuda" if way == "triton" and torch.cuda.is_available() else "cpu"
    out = resize_subtract_mean(image.to(device), (12, 30), MEAN.to(device), channels=channels).cpu()
    assert out.shape == (1, channels, 12, 30) and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out[:, :3], expected, rtol=0, atol=1e-3)  # PyTorch has its positions in fp32
    assert not out[:, 3:].any()
    part = (slice(2, 7), slice(5, 20))
    of_part = resize_subtract_mean(image.to(device), (12, 30), MEAN.to(device), part=part, channels=channels).cpu()
    torch.testing.assert_close(of_part, out[:, :, 2:7, 5:20], rtol=0, atol=3e-5)


def test_fewer_than_three_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels must be 3 or more, got 2"):
        resize_subtract_mean(random_image(4, 4), (4, 4), MEAN, channels=2)
