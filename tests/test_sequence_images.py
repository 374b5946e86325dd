"""Folders of images, patterns and single images as sequences: which files, in what order, and their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from frame_files import image_of, textured, values, write_images

from fdn_triton.sequence import IMAGE_EXTENSIONS, open_sequence


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
