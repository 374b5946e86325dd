"""Frames on their way to a GPU: on one, and with copies that happen as late as they may."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from deferred_copies import deferred_copies
from torch import Tensor

from fdn_triton.frame_source import DecodeAhead, Frame
from fdn_triton.frame_upload import FrameUpload
from fdn_triton.run import decode_threads, upload_ahead

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def images(count: int) -> list[Tensor]:
    """Of sizes that grow and shrink."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((4, 5), (7, 9), (3, 2))
    return [torch.randint(256, (*sizes[i % 3], 3), dtype=torch.uint8, generator=generator) for i in range(count)]


def check_that_frames_arrive(device: torch.device) -> None:
    """All begun before the first is used, more than there are buffers, and each overwritten once it is begun."""
    sent = images(8)
    expected = [image.clone() for image in sent]
    upload = FrameUpload(device, buffers=3)
    uploaded = []
    for image in sent:
        uploaded.append(upload(image))
        image.fill_(0)
    for one, image in zip(uploaded, expected, strict=True):
        assert torch.equal(one.get().cpu(), image)


def test_frames_arrive_however_late_they_are_copied() -> None:
    with deferred_copies() as recorded:
        check_that_frames_arrive(CPU)
    assert len(recorded) == 8, "their memory belongs to the stream of the copies"


def test_the_host_waits_only_where_all_buffers_are_under_way() -> None:
    with deferred_copies():
        upload = FrameUpload(CPU, buffers=3)
        for image in images(3):
            upload(image)
        assert upload._stream.done == 0
        upload(images(1)[0])
        assert upload._stream.done == 1


@needs_gpu
def test_frames_arrive_on_a_gpu() -> None:
    check_that_frames_arrive(torch.device("cuda"))


def test_frames_are_uploaded_in_the_decoding_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, the unreadable ones as they are; the host's images stay for whoever shows them."""
    decoded = [Frame(i, image.numpy()) for i, image in enumerate(images(6), 1)]
    decoded.insert(2, Frame(7, None, "is damaged"))
    monkeypatch.setattr(torch, "empty_like", lambda like, device: torch.zeros(like.shape, dtype=like.dtype))
    with deferred_copies(), DecodeAhead(upload_ahead(decoded, torch.device("meta")), depth=2) as frames:
        found = list(frames)
        assert [frame.number for frame in found] == [1, 2, 7, 3, 4, 5, 6]
        for frame in found:
            assert (frame.image is None) == (frame.uploaded is None)
            if frame.image is not None and frame.uploaded is not None:
                np.testing.assert_array_equal(frame.uploaded.get().numpy(), frame.image)


def test_a_cpu_gets_the_frames_themselves() -> None:
    decoded = [Frame(1, np.zeros((2, 2, 3), np.uint8)), Frame(2, None, "is damaged")]
    found = list(upload_ahead(decoded, CPU))
    assert all(one is other for one, other in zip(found, decoded, strict=True))
    assert decode_threads(CPU) == 1 and decode_threads(torch.device("cuda")) >= 1
