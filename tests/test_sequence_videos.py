"""Video files and cameras as sequences, and what is no video."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from frame_files import plain, write_images

from fdn_triton import frame_source
from fdn_triton.errors import InputError
from fdn_triton.sequence import open_camera, open_sequence


def write_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    for i in range(1, frames + 1):
        writer.write(np.ascontiguousarray(plain(4 * i, 48, 64)[..., ::-1]))
    writer.release()
    return path


def test_video(tmp_path: Path) -> None:
    sequence = open_sequence(write_video(tmp_path / "Straße 1.avi", 12))
    assert (sequence.name, sequence.length, sequence.fps) == ("Straße 1", 12, 25)
    assert (sequence.ground_truth, sequence.one_based) == (None, False)
    for _ in range(2):
        frames = list(sequence.frames())
        assert [frame.number for frame in frames] == list(range(1, 13))
        for frame in frames:
            assert frame.image is not None and frame.image.shape == (48, 64, 3)
            assert np.abs(frame.image.astype(int) - (4 * frame.number, 40, 200)).max() <= 6


def test_max_frames_of_a_video(tmp_path: Path) -> None:
    sequence = open_sequence(write_video(tmp_path / "a.avi", 12), max_frames=5)
    assert sequence.length == 5
    assert [frame.number for frame in sequence.frames()] == [1, 2, 3, 4, 5]
    assert open_sequence(tmp_path / "a.avi", max_frames=50).length == 12


def test_a_truncated_video_says_so_in_a_last_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    sequence = open_sequence(path)
    assert sequence.length == 40  # what the header states
    *good, last = sequence.frames()
    assert 5 < len(good) < 30
    assert all(frame.problem is None and frame.image is not None for frame in good)
    assert last.image is None and last.number == len(good) + 1
    assert last.problem == f"{path} ends early: {len(good)} of 40 frames could be read"
    # Cut before the damage there is nothing to report; behind it there is.
    assert [frame.problem for frame in open_sequence(path, max_frames=5).frames()] == [None] * 5
    assert [frame.problem for frame in open_sequence(path, max_frames=len(good)).frames()] == [None] * len(good)
    *_, last = open_sequence(path, max_frames=35).frames()
    assert last.problem is not None


@pytest.mark.parametrize(("stated", "reported"), [(12, False), (14, False), (15, True), (None, False)])
def test_a_count_that_is_slightly_off_is_no_problem(tmp_path: Path, stated: int | None, reported: bool) -> None:
    path = write_video(tmp_path / "a.avi", 12)
    frames = list(frame_source.video_frames(path, stated, None))
    assert len(frames) == 12 + reported
    assert (frames[-1].problem is not None) is reported


def test_a_video_that_vanished(tmp_path: Path) -> None:
    sequence = open_sequence(write_video(tmp_path / "a.avi", 12))
    (tmp_path / "a.avi").unlink()
    (frame,) = sequence.frames()
    assert frame.problem == f"{tmp_path / 'a.avi'} ends early: 0 of 12 frames could be read"


class FakeCamera:
    """Stands in for cv2.VideoCapture: camera 0 gives a colour, a grey and a BGRA frame and fails then."""

    opened = 0

    def __init__(self, index: int) -> None:
        self.index = index
        self.images = [plain(7)[..., ::-1].copy(), np.full((8, 12), 50, np.uint8)]
        self.images.append(np.dstack((plain(8)[..., ::-1], np.zeros((8, 12), np.uint8))))
        FakeCamera.opened += 1

    def isOpened(self) -> bool:
        return self.index == 0

    def get(self, prop: int) -> float:
        return 30.0 if prop == cv2.CAP_PROP_FPS else -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.images.pop(0)) if self.images else (False, None)

    def release(self) -> None:
        FakeCamera.opened -= 1


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    sequence = open_camera(0)
    assert FakeCamera.opened == 0  # not held in between
    assert (sequence.name, sequence.length, sequence.fps) == ("camera0", None, 30)
    *good, last = sequence.frames()
    assert [frame.image[0, 0].tolist() for frame in good if frame.image is not None] == [
        [7, 40, 200],
        [50, 50, 50],
        [8, 40, 200],
    ]
    assert (last.number, last.image, last.problem) == (4, None, "camera 0 gives no more frames")
    frames = sequence.frames()
    next(frames)
    assert FakeCamera.opened == 1
    frames.close()  # type: ignore[attr-defined]
    assert FakeCamera.opened == 0  # released when the consumer stops early


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        for index in (-1, 97):
            with pytest.raises(InputError, match=rf"camera {index} cannot be opened: connect it"):
                open_camera(index)
        assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_WARNING
    finally:
        cv2.utils.logging.setLogLevel(before)
    assert capfd.readouterr().err == ""  # one line for the user, not OpenCV's page


def test_an_archive_of_images_is_no_video(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    with zipfile.ZipFile(tmp_path / "clip.zip", "w") as archive:
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            archive.write(tmp_path / name, name)
    with pytest.raises(InputError, match=r"clip\.zip"):
        open_sequence(tmp_path / "clip.zip")
