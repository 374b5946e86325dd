"""Frame sources and decoding ahead, on real files of every kind that is accepted or refused."""

from __future__ import annotations

import gc
import threading
import time
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fdn_triton import frame_source
from fdn_triton.errors import InputError
from fdn_triton.frame_source import image_frames
from fdn_triton.sequence import (
    IMAGE_EXTENSIONS,
    OTB_FRAME_RANGES,
    DecodeAhead,
    Frame,
    Sequence,
    open_camera,
    open_sequence,
)

OTB = Path(__file__).resolve().parents[1] / "../shared/data/otb"


def plain(value: int, height: int = 8, width: int = 12) -> np.ndarray:
    """One colour that tells R from B and frames from each other."""
    return np.full((height, width, 3), (value, 40, 200), np.uint8)


def textured(height: int = 120, width: int = 160) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(extension: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(extension, rgb[..., ::-1])[1].tobytes()


def write_images(folder: Path, names: list[str]) -> None:
    """The i-th name, from 1, gets :func:`plain` of i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names, 1):
        (folder / name).write_bytes(encoded(".png", plain(i)))


def values(sequence: Sequence) -> list[int]:
    """The frames' marks, with the numbering checked."""
    frames = list(sequence.frames())
    assert [frame.number for frame in frames] == list(range(1, len(frames) + 1))
    marks = []
    for frame in frames:
        assert frame.problem is None and frame.image is not None
        assert (frame.image[0, 0, 1], frame.image[0, 0, 2]) == (40, 200)
        marks.append(int(frame.image[0, 0, 0]))
    return marks


def only_frame(path: Path) -> Frame:
    sequence = open_sequence(path)
    assert sequence.length == 1
    (frame,) = sequence.frames()
    return frame


def image_of(path: Path) -> np.ndarray:
    frame = only_frame(path)
    assert frame.problem is None and frame.image is not None
    assert frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous
    return frame.image


# Benchmark folders


def test_otb_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Bird2"
    write_images(folder / "img", ["0001.png", "0002.png", "0003.png"])
    (folder / "groundtruth_rect.txt").write_text("2,3,4,5\n3\t3\t4\t5\n4 3 4 5\n")
    sequence = open_sequence(folder)
    assert (sequence.name, sequence.length, sequence.one_based) == ("Bird2", 3, True)
    assert (sequence.notes, sequence.fps) == ((), None)
    assert sequence.ground_truth is not None
    np.testing.assert_array_equal(sequence.ground_truth, [[[1, 2, 4, 5], [2, 2, 4, 5], [3, 2, 4, 5]]])
    assert values(sequence) == [1, 2, 3]
    assert values(sequence) == [1, 2, 3]  # anew on each call


def test_several_otb_files_are_several_targets_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "Jogging"
    write_images(folder / "img", ["1.png", "2.png"])
    for target in (1, 2, 10):
        (folder / f"groundtruth_rect.{target}.txt").write_text(f"{target},1,5,5\n" * (1 if target == 2 else 2))
    sequence = open_sequence(folder)
    assert sequence.ground_truth is not None
    np.testing.assert_array_equal(sequence.ground_truth[:, :, 0], [[0, 0], [1, np.nan], [9, 9]])
    assert sequence.notes == (
        "groundtruth_rect.2.txt has fewer rows (1) than frames (2): scored over the rows there are",
    )


@pytest.mark.parametrize(
    ("stems", "expected"),
    [
        ([f"{i:04d}" for i in range(1, 236)], list(range(1, 216))),
        ([f"{i:04d}" for i in range(235)], list(range(2, 217))),  # by number: 0000 is left out
        ([f"frame{i:04d}" for i in range(235)], list(range(1, 216))),  # by position
    ],
    ids=["numbers from 1", "numbers from 0", "names"],
)
def test_the_annotated_range_of_otb_is_applied(tmp_path: Path, stems: list[str], expected: list[int]) -> None:
    folder = tmp_path / "diving"  # whatever its case
    write_images(folder / "img", [f"{stem}.png" for stem in stems])
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n" * 215)
    sequence = open_sequence(folder)
    assert sequence.length == 215
    assert values(sequence) == expected
    assert sequence.notes == ("frames 1-215 of 235 images used: the part of diving that OTB annotates",)


def test_the_range_of_david_starts_late(tmp_path: Path) -> None:
    folder = tmp_path / "David"
    (folder / "img").mkdir(parents=True)
    for i in range(1, 771):
        (folder / "img" / f"{i:04d}.png").touch()
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n" * 471)
    sequence = open_sequence(folder)
    problems = [frame.problem for frame in sequence.frames()]
    assert sequence.length == len(problems) == 471
    assert problems[0] == f"{folder / 'img' / '0300.png'} is empty"
    assert problems[-1] == f"{folder / 'img' / '0770.png'} is empty"


def test_the_range_is_not_applied_to_a_folder_that_was_cut_before(tmp_path: Path) -> None:
    folder = tmp_path / "Diving"
    write_images(folder / "img", [f"{i:04d}.png" for i in range(1, 6)])
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n" * 5)
    assert (open_sequence(folder).length, open_sequence(folder).notes) == (5, ())
    # More images than rows, yet not the numbers of the range: all images, and a word about the rows.
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n" * 3)
    sequence = open_sequence(folder)
    assert values(sequence) == [1, 2, 3, 4, 5]
    assert sequence.notes == (
        "groundtruth_rect.txt has fewer rows (3) than frames (5): scored over the rows there are",
    )


def test_a_folder_that_holds_just_the_range_gets_no_note(tmp_path: Path) -> None:
    folder = tmp_path / "Football1"
    write_images(folder / "img", [f"{i:04d}.png" for i in range(1, 75)])
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n" * 74)
    assert (open_sequence(folder).length, open_sequence(folder).notes) == (74, ())


def test_the_range_belongs_to_the_otb_layout(tmp_path: Path) -> None:
    folder = tmp_path / "Football1"
    write_images(folder / "img", [f"{i}.png" for i in range(1, 77)])
    (folder / "groundtruth.txt").write_text("1,1,5,5\n" * 74)
    assert open_sequence(folder).length == 76


def test_the_table_of_ranges() -> None:
    lengths = {name: last - first + 1 for name, (first, last) in OTB_FRAME_RANGES.items()}
    assert lengths == {
        "david": 471, "diving": 215, "football1": 74, "freeman3": 460, "freeman4": 283, "tiger1": 349,
    }  # fmt: skip


@pytest.mark.parametrize("place", ["color", "img", "."])
def test_vot_folder(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "bag"
    write_images(folder / place, ["00000001.png", "00000002.png", "00000003.png"])
    (folder / "groundtruth.txt").write_text("10,20,30,15,34.5,40,12,44\n5,6,7,8\n0\n")
    sequence = open_sequence(str(folder))
    assert (sequence.name, sequence.length, sequence.one_based) == ("bag", 3, False)
    assert sequence.notes == ()
    assert sequence.ground_truth is not None
    np.testing.assert_array_equal(sequence.ground_truth, [[[10, 15, 24.5, 29], [5, 6, 7, 8], [np.nan] * 4]])
    assert values(sequence) == [1, 2, 3]


def test_more_rows_than_frames_is_a_note(tmp_path: Path) -> None:
    write_images(tmp_path / "s" / "img", ["1.png"])
    (tmp_path / "s" / "groundtruth_rect.txt").write_text("1,1,5,5\n2,2,5,5\n")
    sequence = open_sequence(tmp_path / "s")
    assert sequence.ground_truth is not None
    np.testing.assert_array_equal(sequence.ground_truth, [[[0, 0, 5, 5], [1, 1, 5, 5]]])
    assert sequence.notes == ("groundtruth_rect.txt has more rows (2) than frames (1): the last rows are not used",)


def test_ground_truth_errors_come_out_of_open_sequence(tmp_path: Path) -> None:
    write_images(tmp_path / "s" / "img", ["1.png"])
    (tmp_path / "s" / "groundtruth_rect.txt").write_text("")
    with pytest.raises(InputError, match=r"groundtruth_rect\.txt is empty"):
        open_sequence(tmp_path / "s")
    (tmp_path / "s" / "groundtruth_rect.txt").write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(InputError, match=r"groundtruth_rect\.txt, line 2: 3 numbers"):
        open_sequence(tmp_path / "s")


def test_max_frames_cuts_frames_and_ground_truth(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write_images(folder / "img", [f"{i}.png" for i in range(1, 6)])
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n2,1,5,5\n3,1,5,5\n")
    sequence = open_sequence(folder, max_frames=2)
    assert (sequence.length, sequence.notes) == (2, ())  # the rows suffice for what is tracked
    assert values(sequence) == [1, 2]
    assert sequence.ground_truth is not None
    np.testing.assert_array_equal(sequence.ground_truth, [[[0, 0, 5, 5], [1, 0, 5, 5]]])
    assert open_sequence(folder, max_frames=99).length == 5
    with pytest.raises(InputError, match=r"max_frames is 0: it must be at least 1"):
        open_sequence(folder, max_frames=0)


@pytest.mark.skipif(not OTB.is_dir(), reason="real footage is not here: ../shared/data/otb")
def test_real_otb_sequences() -> None:
    folders = sorted(path for path in OTB.iterdir() if path.is_dir())
    assert len(folders) == 13
    for folder in folders:
        sequence = open_sequence(folder)
        assert sequence.notes == () and sequence.one_based and sequence.name == folder.name
        assert sequence.ground_truth is not None
        assert sequence.ground_truth.shape == (1, sequence.length, 4)
        frame = next(sequence.frames())
        assert frame.image is not None
        x, y, w, h = sequence.ground_truth[0, 0]
        assert 0 <= x < x + w <= frame.image.shape[1]
        assert 0 <= y < y + h <= frame.image.shape[0]


# Folders, patterns and single images


def test_images_in_natural_order_and_other_files_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    write_images(folder, ["img1.png", "IMG2.PNG", "img10.png", "img010b.png", "img100.png"])
    (folder / "img3.txt").write_text("not an image")
    (folder / "._img1.png").write_bytes(b"what macOS leaves on foreign disks")
    (folder / "img4.png").mkdir()
    sequence = open_sequence(folder)
    assert (sequence.name, sequence.length, sequence.ground_truth) == ("clip", 5, None)
    assert sequence.one_based is False
    assert values(sequence) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("place", ["img", "color"])
def test_image_subfolders_have_their_parents_name(tmp_path: Path, place: str) -> None:
    write_images(tmp_path / "clip" / place, ["1.png", "2.png"])
    for path in (tmp_path / "clip", tmp_path / "clip" / place, f"{tmp_path}/clip/{place}/*.png"):
        sequence = open_sequence(path)
        assert (sequence.name, sequence.ground_truth) == ("clip", None)
        assert values(sequence) == [1, 2]


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "clip", ["1.png"])
    monkeypatch.chdir(tmp_path / "clip")
    assert open_sequence(".").name == open_sequence("*.png").name == open_sequence("./?.png").name == "clip"


def test_unicode_names_with_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "Straße №5 走行"
    write_images(folder / "img", ["кадр 1.png", "кадр 2.png"])
    (folder / "groundtruth_rect.txt").write_text("1,1,5,5\n2,1,5,5\n")
    sequence = open_sequence(folder)
    assert sequence.name == "Straße №5 走行"
    assert values(sequence) == [1, 2]
    assert image_of(folder / "img" / "кадр 2.png")[0, 0, 0] == 2


def test_glob_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    write_images(folder, ["left2.png", "left10.png", "right1.png"])
    (folder / "left.txt").write_text("x")
    sequence = open_sequence(f"{folder}/left*")
    assert (sequence.name, sequence.length) == ("walk", 2)
    assert values(sequence) == [1, 2]
    assert values(open_sequence(folder / "*[0-9].png", max_frames=2)) == [1, 2]
    assert values(open_sequence(f"{tmp_path}/**/right?.png")) == [3]


def test_a_folder_with_a_bracket_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    write_images(tmp_path / "take[1]", ["1.png"])
    assert values(open_sequence(tmp_path / "take[1]")) == [1]


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_image_format(tmp_path: Path, extension: str) -> None:
    gray = textured().mean(axis=2).astype(np.uint8)
    bilevel = np.where(gray > 127, 255, 0).astype(np.uint8)
    picture, tolerance = {"pgm": (gray, 0), "pbm": (bilevel, 0), "jpg": (textured(), 12)}.get(
        extension, (textured(), 12 if extension in ("jpeg", "webp", "jp2") else 0)
    )
    path = tmp_path / f"a.{extension.upper()}"
    bgr = picture if picture.ndim == 2 else picture[..., ::-1]
    path.write_bytes(cv2.imencode(f".{extension}", bgr)[1].tobytes())
    image = image_of(path)
    expected = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_depths_and_channels_become_8_bit_rgb(tmp_path: Path) -> None:
    rgb = textured()
    gray = rgb[..., 0]
    rgba = np.dstack((rgb[..., ::-1], np.full(rgb.shape[:2], 90, np.uint8)))
    pictures = {
        "gray": (gray, np.repeat(gray[..., None], 3, axis=2)),
        "deep": (rgb[..., ::-1].astype(np.uint16) * 256 + 77, rgb),
        "deep_gray": (gray.astype(np.uint16) * 256 + 77, np.repeat(gray[..., None], 3, axis=2)),
        "rgba": (rgba, rgb),
    }
    for name, (stored, expected) in pictures.items():
        (tmp_path / f"{name}.png").write_bytes(cv2.imencode(".png", stored)[1].tobytes())
        np.testing.assert_array_equal(image_of(tmp_path / f"{name}.png"), expected, err_msg=name)


def test_palette_image(tmp_path: Path) -> None:
    # A BMP by hand, 2x1 pixels of 8 bits with a palette of two colours, since OpenCV does not write palettes.
    palette = bytes([10, 20, 30, 0, 200, 100, 50, 0])  # blue, green, red, unused
    header = b"BM" + np.array([66, 0, 62, 40, 2, 1], "<i4").tobytes() + np.array([1, 8], "<i2").tobytes()
    header += np.array([0, 4, 0, 0, 2, 0], "<i4").tobytes()
    (tmp_path / "p.bmp").write_bytes(header + palette + bytes([1, 0, 0, 0]))
    np.testing.assert_array_equal(image_of(tmp_path / "p.bmp"), [[[50, 100, 200], [30, 20, 10]]])


def test_a_very_large_image(tmp_path: Path) -> None:
    large = np.zeros((4320, 7680, 3), np.uint8)
    large[-1, -1] = (1, 2, 3)
    (tmp_path / "8k.png").write_bytes(cv2.imencode(".png", large[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
    image = image_of(tmp_path / "8k.png")
    assert image.shape == large.shape
    assert image[-1, -1].tolist() == [1, 2, 3] and not image[0].any()


# Files that cannot be read


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


# Videos and cameras


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


# Decoding in threads and ahead


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


def test_an_archive_of_images_is_no_video(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    with zipfile.ZipFile(tmp_path / "clip.zip", "w") as archive:
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            archive.write(tmp_path / name, name)
    with pytest.raises(InputError, match=r"clip\.zip"):
        open_sequence(tmp_path / "clip.zip")
