"""Images that cannot be read are problems of their frames; paths that hold no frames are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from frame_files import encoded, image_of, only_frame, plain, textured, write_images

from fdn_triton.errors import InputError
from fdn_triton.sequence import open_sequence


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_truncated_images_are_problems(tmp_path: Path, extension: str, kept: float) -> None:
    data = encoded(extension, textured())
    path = tmp_path / f"a{extension}"
    path.write_bytes(data[: int(len(data) * kept)])
    frame = only_frame(path)
    assert frame.image is None
    assert frame.problem == f"{path} is truncated"


def test_a_truncated_progressive_jpeg_and_one_filled_with_zeros(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", textured(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert data.count(b"\xff\xda") > 1
    (tmp_path / "a.jpg").write_bytes(data)
    assert only_frame(tmp_path / "a.jpg").problem is None
    (tmp_path / "a.jpg").write_bytes(data[: data.rfind(b"\xff\xda") + 30])
    assert only_frame(tmp_path / "a.jpg").problem == f"{tmp_path / 'a.jpg'} is truncated"
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    assert only_frame(tmp_path / "a.jpg").problem == f"{tmp_path / 'a.jpg'} is truncated"


def test_the_thumbnail_in_a_jpeg_does_not_hide_that_the_image_is_truncated(tmp_path: Path) -> None:
    thumbnail = encoded(".jpg", plain(9))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = encoded(".jpg", textured())
    with_thumbnail = data[:2] + segment + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(with_thumbnail)
    np.testing.assert_array_equal(image_of(path), cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1])
    path.write_bytes(with_thumbnail[: len(segment) + 100])  # before the scan
    assert only_frame(path).problem == f"{path} is truncated"
    path.write_bytes(with_thumbnail[:-100])
    assert only_frame(path).problem == f"{path} is truncated"


def test_data_behind_the_end_of_an_image_does_no_harm(tmp_path: Path) -> None:
    for extension in (".jpg", ".png"):
        path = tmp_path / f"a{extension}"
        path.write_bytes(encoded(extension, plain(77)) + b"\xff\xda appended video \xff\xd8" + bytes(50))
        assert abs(int(image_of(path)[4, 4, 0]) - 77) <= 3


def test_one_bad_frame_does_not_end_the_sequence(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "3.png", "4.png", "5.png"])
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes(b"these are words, not pixels")
    sequence = open_sequence(tmp_path)
    (tmp_path / "4.png").unlink()
    frames = list(sequence.frames())
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5]
    assert [frame.image is None for frame in frames] == [False, True, True, True, False]
    assert [frame.problem for frame in frames] == [
        None,
        f"{tmp_path / '2.png'} is empty",
        f"{tmp_path / '3.png'} is damaged, not an image, or of an unsupported pixel type",
        f"{tmp_path / '4.png'} cannot be read: No such file or directory",
        None,
    ]


def test_a_link_that_leads_nowhere_keeps_its_place(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "3.png"])
    try:
        (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    except OSError:
        pytest.skip("no symbolic links here")
    for path in (tmp_path, tmp_path / "*.png"):
        problems = [frame.problem for frame in open_sequence(path).frames()]
        assert problems == [None, f"{tmp_path / '2.png'} cannot be read: No such file or directory", None]


def test_a_frame_without_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, ["1.png"])

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert only_frame(tmp_path / "1.png").problem == f"{tmp_path / '1.png'} cannot be read: Permission denied"


def test_paths_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    (tmp_path / "notes.txt").write_text("FFmpeg would draw this as a film of a terminal\n" * 300)
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    for path, message in [
        ("", "the path of the sequence is empty: give"),
        (tmp_path / "none", r"none does not exist: give a folder"),
        (tmp_path / "none.jpg", r"none\.jpg does not exist: give"),
        (tmp_path / "empty", r"no images \(\.jpg, .*\) in .*empty: give"),
        (tmp_path / "texts", r"no images .* in .*texts: give"),
        (tmp_path / "notes.txt" / "img", r"cannot be read: Not a directory: check"),
        (f"{tmp_path}/empty/*.jpg", r"\*\.jpg matches nothing: check the pattern"),
        (f"{tmp_path}/texts/*", r"matches no image, only 1 other paths: check"),
        (tmp_path / "notes.txt", r"notes\.txt is not a video that OpenCV can open, nor an image.*give"),
        (tmp_path / "zero.mp4", r"zero\.mp4 is not a video"),
        (tmp_path / "broken.mp4", r"broken\.mp4 is not a video"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            open_sequence(path)
        assert "\n" not in str(caught.value)


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError) as caught:
        open_sequence(tmp_path)
    assert str(caught.value) == (f"{tmp_path} cannot be read: Permission denied: check the path and its permissions")
