"""What a run leaves behind, read back: rows of boxes, the summary, pictures and videos."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest

from fdn_triton.errors import InputError
from fdn_triton.results import BoxWriter, OverlayVideo, check_writable, draw_boxes, numbered, write_json

BOXES = np.array([[1.25, -2, 30, 40.00004], [5, 6, 7, 8]])


@pytest.mark.parametrize("one_based", [False, True])
def test_rows_are_on_disk_at_once_and_in_the_convention(tmp_path: Path, one_based: bool) -> None:
    path = tmp_path / "deep/er/b.txt"
    with BoxWriter(path, 1, one_based) as writer:
        assert writer.paths == [path] and path.read_text() == ""
        writer.write(BOXES[:1])
        first = "2.2500,-1.0000,30.0000,40.0000\n" if one_based else "1.2500,-2.0000,30.0000,40.0000\n"
        assert path.read_text() == first
        writer.write(BOXES[1:])
        assert path.read_text().startswith(first) and path.read_text().count("\n") == 2


def test_a_file_per_target(tmp_path: Path) -> None:
    with BoxWriter(tmp_path / "a.b.txt", 2, False) as writer:
        writer.write(BOXES)
        assert [path.name for path in writer.paths] == ["a.b.1.txt", "a.b.2.txt"]
        assert writer.paths[1].read_text() == "5.0000,6.0000,7.0000,8.0000\n"
        with pytest.raises(ValueError, match="zip"):
            writer.write(BOXES[:1])
    assert numbered(Path("d/name"), 12) == Path("d/name.12")


def test_an_error_leaves_the_rows_before_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BoxWriter(tmp_path / "b.txt", 1, False) as writer:
        writer.write(BOXES[1:])
        raise KeyboardInterrupt
    assert (tmp_path / "b.txt").read_text() == "5.0000,6.0000,7.0000,8.0000\n"


def test_no_file_is_emptied_where_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "b.1.txt").write_text("old")
    (tmp_path / "b.2.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*b\.2\.txt"):
        BoxWriter(tmp_path / "b.txt", 2, False)
    assert (tmp_path / "b.1.txt").read_text() == "old"


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file/x.txt", tmp_path, tmp_path / ("x" * 300), Path("/")):
        with pytest.raises(InputError, match="cannot write") as caught:
            BoxWriter(path, 1, False)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="cannot write"):
            check_writable(path)
        with pytest.raises(InputError, match="cannot write"):
            write_json(path / "s.json" if path == tmp_path / "file" else path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_fills_up() -> None:
    with BoxWriter(Path("/dev/full"), 1, False) as writer, pytest.raises(InputError, match="No space left"):
        writer.write(BOXES[:1])


def test_looking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    check_writable(tmp_path / "old")
    check_writable(tmp_path / "new")
    assert (tmp_path / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


# The summary


def test_the_summary_is_written_whole_and_readable_for_others(tmp_path: Path) -> None:
    path = tmp_path / "deep/s.json"
    write_json(path, {"fps": 1.5, "none": None, "name": "Ström"})
    assert json.loads(path.read_text()) == {"fps": 1.5, "none": None, "name": "Ström"}
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    write_json(path, {"fps": 2})
    assert json.loads(path.read_text()) == {"fps": 2}
    assert [entry.name for entry in path.parent.iterdir()] == ["s.json"]


@pytest.mark.parametrize("content", [{"fps": float("nan")}, {"fps": object()}])
def test_content_that_is_no_json_leaves_the_old_file(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "s.json"
    path.write_text("old")
    with pytest.raises((ValueError, TypeError)):
        write_json(path, content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.json"] and path.read_text() == "old"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "s.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_json(path, {"fps": 2})
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.json"] and path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no /dev/null")
def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write_json(link, {"fps": 2})
    assert link.is_symlink() and link.read_text() == ""


# Pictures


def test_a_box_is_drawn_on_its_border_and_nowhere_else() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    image.setflags(write=False)
    drawn = draw_boxes(image, np.array([[20.4, 30, 40, 25]]))
    assert (image == 90).all() and not np.shares_memory(drawn, image)
    border = np.zeros((100, 120), bool)
    border[30, 20:61] = border[55, 20:61] = True  # rows y and y + h, from x to x + w
    border[30:56, 20] = border[30:56, 60] = True
    np.testing.assert_array_equal((drawn != 90).any(axis=2), border)
    assert len(np.unique(drawn[border], axis=0)) == 1


def test_targets_have_colours_of_their_own_and_the_truth_is_white() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    boxes = np.array([[5.0 + 14 * k, 5, 10, 10] for k in range(6)])
    truth = np.array([[5.0, 60, 20, 20], [np.nan, 60, 20, 20]])
    drawn = draw_boxes(image, boxes, truth)
    colors = {tuple(drawn[5, int(x) + 3]) for x, *_ in boxes}
    assert len(colors) == 6 and (0, 0, 0) not in colors and (255, 255, 255) not in colors
    assert tuple(drawn[60, 10]) == (255, 255, 255)
    assert (drawn[58:].any(axis=2)).sum() == 4 * 20  # only the truth that there is


def test_the_label_is_in_the_corner() -> None:
    image = np.full((120, 160, 3), 128, np.uint8)
    changed = (draw_boxes(image, np.empty((0, 4)), label="#12") != 128).any(axis=2)
    assert changed.any() and not changed[40:].any() and not changed[:, 80:].any()


@pytest.mark.parametrize(
    "box",
    [(1e12, 5, 10, 10), (-1e12, -1e12, 2e12, 2e12), (5, 5, 1e30, 1e30), (-50, -50, 10, 10), (5, 5, 0, 0)],
)
def test_boxes_far_outside_do_no_harm(box: tuple[float, ...]) -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    drawn = draw_boxes(image, np.array([box]), np.array([box]))
    visible = box[0] == 5  # of these, the upper left corner lies inside
    assert drawn.any() == visible
    if visible:
        assert drawn[5, 5].any()


def test_an_image_that_is_not_contiguous() -> None:
    image = np.zeros((3, 60, 50), np.uint8).transpose(2, 1, 0)[::-1]
    assert draw_boxes(image, BOXES[1:])[6, 5:12].any(axis=1).all() and not image.any()


# Videos


def read_back(path: Path) -> list[np.ndarray]:
    video, images = cv2.VideoCapture(str(path)), []
    while True:
        ok, bgr = video.read()
        if not ok:
            return images
        images.append(bgr[..., ::-1])


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".avi", ".mkv", ".AVI"])
def test_a_video_can_be_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep/v{suffix}"
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    with OverlayVideo(path, 12.0) as video:
        for color in colors:
            video.write(np.full((48, 64, 3), color, np.uint8))
    images = read_back(path)
    assert [image.shape for image in images] == [(48, 64, 3)] * 3
    for image, color in zip(images, colors, strict=True):
        np.testing.assert_allclose(image.mean(axis=(0, 1)), color, atol=12)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(12)


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    large = np.zeros((96, 128, 3), np.uint8)
    large[:, 64:] = 250
    with OverlayVideo(path, 25.0) as video:
        for image in (np.zeros((48, 64, 3), np.uint8), large, large[:24, 40:90]):
            video.write(image)
    first, second, third = read_back(path)
    assert first.shape == second.shape == third.shape == (48, 64, 3)
    assert first.mean() < 10 and second[:, :28].mean() < 15 and second[:, 36:].mean() > 235
    assert third[:, :26].mean() < 15 and third[:, 36:].mean() > 235


@pytest.mark.parametrize("name", ["v.gif", "v", "v.mp4.txt"])
def test_unknown_suffixes_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.mp4.*\.avi"):
        OverlayVideo(tmp_path / name, 25.0)
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="cannot write"):
        OverlayVideo(tmp_path / "file/v.avi", 25.0)


def test_no_frame_no_file(tmp_path: Path) -> None:
    with OverlayVideo(tmp_path / "v.avi", 25.0):
        pass
    assert list(tmp_path.iterdir()) == []
