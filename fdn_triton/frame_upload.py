"""Frames on their way to a CUDA device: copied from pinned memory, on a stream of their own, while the device works.

A copy from a frame as it was decoded, in pageable memory, would wait for all that the device has been given before.
Here the host only moves the frame to a pinned buffer; the copy to the device overlaps with the work on earlier frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class UploadedImage(NamedTuple):
    """An image that is on the device or on its way.

    Attributes:
        image: uint8 [H, W, 3] on the device; not to be read before :meth:`get`.
        copied: reached once the copy is done.
    """

    image: Tensor
    copied: torch.cuda.Event

    def get(self) -> Tensor:
        """The image, for work on the current stream, which waits for the copy; the host does not."""
        stream = torch.cuda.current_stream(self.image.device)
        stream.wait_event(self.copied)
        self.image.record_stream(stream)  # its memory, of the copies' stream, is not given away before this one is done
        return self.image


class FrameUpload:
    """Copies images of any size to a device; for one thread at a time.

    Args:
        device: a CUDA device.
        buffers: pinned buffers that take turns: with all of them under way, the host waits for the oldest copy.
    """

    def __init__(self, device: torch.device, buffers: int = 3) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers = [_pinned(0)] * buffers
        self._copied: list[torch.cuda.Event | None] = [None] * buffers
        self._next = 0

    def __call__(self, image: Tensor) -> UploadedImage:
        """Begin to copy an image, uint8 [H, W, 3] in the host's memory, which may be changed afterwards."""
        turn, self._next = self._next, (self._next + 1) % len(self._buffers)
        before = self._copied[turn]
        if before is not None:
            before.synchronize()
        if len(self._buffers[turn]) < image.numel():
            self._buffers[turn] = _pinned(image.numel())
        staged = self._buffers[turn][: image.numel()].view(image.shape)
        staged.copy_(image)
        with torch.cuda.stream(self._stream):
            uploaded = torch.empty_like(staged, device=self._device)
            uploaded.copy_(staged, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(self._stream)
        self._copied[turn] = copied
        return UploadedImage(uploaded, copied)


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
