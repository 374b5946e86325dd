"""Frames decoded in several threads, and ahead of who takes them."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from frame_files import write_images

from fdn_triton import frame_source
from fdn_triton.errors import InputError
from fdn_triton.frame_source import image_frames
from fdn_triton.sequence import DecodeAhead, Frame, open_sequence

# In threads


def test_threads_give_the_same_frames_in_order(tmp_path: Path) -> None:
    """Damaged and missing files among them: the reasons come in their places."""
    paths = [tmp_path / f"{i}.png" for i in range(1, 30)]
    write_images(tmp_path, [path.name for path in paths])
    paths[4].write_bytes(b"no image")
    paths[20].unlink()
    alone, together = list(image_frames(paths)), list(image_frames(paths, threads=4))
    assert [frame.number for frame in together] == list(range(1, 30))
    assert [frame.problem for frame in together] == [frame.problem for frame in alone]
    assert [i for i, frame in enumerate(together) if frame.problem] == [4, 20]
    for frame, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(frame.image, other.image)
    sequence = open_sequence(paths[0])
    assert [frame.number for frame in sequence.frames(threads=3)] == [1]


def test_threads_decode_at_the_same_time_but_not_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(1, 60)]
    together, started = threading.Barrier(3), []

    def read(number: int, path: Path) -> Frame:
        started.append(number)
        if number <= 3:
            together.wait(10)  # three at once, or this breaks
        return Frame(number, None, path.name)

    monkeypatch.setattr(frame_source, "_read_image", read)
    frames = image_frames(paths, threads=3)
    assert started == []
    for taken in range(1, 40):
        assert next(frames).number == taken
        assert len(started) <= taken + 6
    frames.close()  # type: ignore[attr-defined]
    time.sleep(0.05)
    before = len(started)
    time.sleep(0.05)
    assert len(started) == before < 59


def test_an_error_in_a_thread_comes_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(number: int, path: Path) -> Frame:
        if number == 3:
            raise MemoryError("no room")
        return Frame(number, None, path.name)

    monkeypatch.setattr(frame_source, "_read_image", read)
    frames = image_frames([tmp_path / "x.png"] * 9, threads=2)
    assert [next(frames).number, next(frames).number] == [1, 2]
    with pytest.raises(MemoryError, match="no room"):
        next(frames)


def test_no_thread_is_refused() -> None:
    with pytest.raises(InputError, match="threads is 0: it must be at least 1"):
        image_frames([], threads=0)


# Ahead


def ended(thread_of: DecodeAhead[int]) -> bool:
    return not thread_of._thread.is_alive()


def test_decode_ahead_keeps_the_order() -> None:
    with DecodeAhead(range(500), depth=3) as items:
        assert list(items) == list(range(500))
        assert list(items) == []
        assert ended(items)


def test_decode_ahead_gives_the_frames_of_a_sequence(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(1, 30)])
    with DecodeAhead(open_sequence(tmp_path).frames()) as frames:
        marks = [(frame.number, int(frame.image[0, 0, 0])) for frame in frames if frame.image is not None]
    assert marks == [(i, i) for i in range(1, 30)]


def test_decode_ahead_runs_ahead_but_not_without_bound() -> None:
    made = 0
    full = threading.Event()

    def source() -> Iterator[int]:
        nonlocal made
        for i in range(1000):
            made = i + 1
            if made == 4:
                full.set()
            yield i

    with DecodeAhead(source(), depth=3) as items:
        assert full.wait(10)  # 3 that wait and 1 in hand, before anybody asked
        for taken in range(1, 50):
            assert next(items) == taken - 1
            time.sleep(0.001)
            assert made <= taken + 4


def test_closing_early_ends_the_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    for depth in (1, 4):
        for taken in (0, 1, 9):
            closed.clear()
            generator = source()  # held here, so that it is not closed by being dropped
            items = DecodeAhead(generator, depth=depth)
            for _ in range(taken):
                next(items)
            time.sleep(0.005)  # lets the queue fill
            start = time.monotonic()
            items.close()
            assert time.monotonic() - start < 2
            assert ended(items) and closed.is_set()
            items.close()
            with pytest.raises(StopIteration):
                next(items)


def test_an_error_of_the_consumer_ends_the_thread() -> None:
    with pytest.raises(KeyError), DecodeAhead(iter(int, 1), depth=2) as items:
        next(items)
        raise KeyError
    assert ended(items)


def test_an_error_of_the_source_comes_behind_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk on fire")

    items = DecodeAhead(source(), depth=1)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="disk on fire"):
        next(items)
    assert ended(items)
    with pytest.raises(StopIteration):
        next(items)


def test_a_consumer_that_waits_is_freed_by_close() -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        release.wait(10)
        yield 1

    items = DecodeAhead(source())
    got: list[int] = []
    consumer = threading.Thread(target=lambda: got.extend(items), daemon=True)
    consumer.start()
    closer = threading.Thread(target=items.close, daemon=True)
    closer.start()
    time.sleep(0.01)
    release.set()
    consumer.join(10)
    closer.join(10)
    assert not consumer.is_alive() and not closer.is_alive() and got == []


def test_close_does_not_wait_for_ever_for_a_source_that_hangs() -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        release.wait(20)
        yield 1

    items = DecodeAhead(source())
    start = time.monotonic()
    items.close(timeout=0.05)
    assert time.monotonic() - start < 5
    release.set()
    items._thread.join(10)
    assert ended(items)


def test_a_forgotten_decode_ahead_ends_its_thread() -> None:
    items = DecodeAhead(iter(int, 1), depth=2)
    next(items)
    thread, gone = items._thread, weakref.ref(items)
    del items
    gc.collect()
    assert gone() is None
    thread.join(10)
    assert not thread.is_alive()


def test_a_depth_of_none_is_refused() -> None:
    with pytest.raises(InputError, match="depth is 0: it must be at least 1"):
        DecodeAhead(range(3), depth=0)
