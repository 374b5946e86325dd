"""Memory kept between steps: per thread and name, never outside of its limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fdn_triton import scratch as module
from fdn_triton.scratch import scratch
from fdn_triton.winograd import WinogradConvolution

LIKE = torch.empty(0)


@pytest.fixture
def fresh_thread():
    """A thread that has kept nothing yet."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda call: pool.submit(call).result()


def test_a_name_keeps_its_largest(fresh_thread) -> None:
    def addresses() -> list[int]:
        shapes = ((4, 5), (2, 3), (20,), (3, 7), (20,))
        return [scratch("a", shape, LIKE).data_ptr() for shape in shapes]

    first, second, third, larger, last = fresh_thread(addresses)
    assert first == second == third and larger == last


def test_names_types_and_threads_do_not_share(fresh_thread) -> None:
    mine = [scratch("a", (8,), LIKE), scratch("b", (8,), LIKE), scratch("a", (8,), LIKE.double())]
    mine.append(fresh_thread(lambda: scratch("a", (8,), LIKE)))
    assert len({part.data_ptr() for part in mine}) == 4
    assert [part.dtype for part in mine] == [torch.float32, torch.float32, torch.float64, torch.float32]


def test_what_is_too_large_is_not_kept(fresh_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 400)

    def lengths() -> tuple[int, int]:
        scratch("a", (101,), LIKE)
        before = len(module._kept.__dict__)
        scratch("a", (100,), LIKE)
        return before, len(module._kept.__dict__)

    assert fresh_thread(lengths) == (0, 1)


def test_another_device_gets_memory_of_its_own() -> None:
    assert scratch("a", (2, 3), torch.empty(0, device="meta")).device.type == "meta"


def test_inference_mode_and_fake_tensors_leave_nothing_behind(fresh_thread) -> None:
    convolution = WinogradConvolution(torch.nn.Conv2d(64, 64, 3).requires_grad_(False))
    x = torch.randn(1, 64, 30, 30)

    def call() -> None:
        with torch.inference_mode():
            inside = convolution(x)
        with FakeTensorMode() as mode:
            assert scratch("winograd tiles", (8,), mode.from_tensor(x)).shape == (8,)
        assert torch.equal(convolution(x), inside)
        torch.testing.assert_close(convolution(torch.cat((x, x), dim=2))[:, :, :28], inside, rtol=0, atol=1e-5)

    fresh_thread(call)
