"""Annotation files: what every accepted spelling of a box comes to, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fdn_triton.errors import InputError
from fdn_triton.ground_truth import read_otb_boxes, read_vot_boxes, stack_targets

NAN_ROW = [np.nan] * 4


def written(folder: Path, content: str | bytes, name: str = "groundtruth.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "line",
    [
        "82,218,69,73",
        "82\t218\t69\t73",
        "82 218 69 73",
        "  82,\t218 ,69   73  ",
        "82, 218, 69, 73,",
        "8.2e1,218.0,+69,73.",
    ],
    ids=["comma", "tab", "space", "mixture", "comma at the end", "floats"],
)
def test_otb_separators_and_the_shift_to_0_based(tmp_path: Path, line: str) -> None:
    boxes_xywh = read_otb_boxes(written(tmp_path, f"{line}\n1,1,2.5,3\n"))
    assert boxes_xywh.dtype == np.float64
    np.testing.assert_array_equal(boxes_xywh, [[81, 217, 69, 73], [0, 0, 2.5, 3]])


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf5,6,7,8\r\n9,10,11,12\r\n", b"5,6,7,8\n9,10,11,12", b"5,6,7,8\n9,10,11,12\n\n \t\n\n"],
    ids=["byte order mark and CRLF", "no newline at the end", "blank lines at the end"],
)
def test_what_editors_leave_in_a_file(tmp_path: Path, content: bytes) -> None:
    np.testing.assert_array_equal(read_otb_boxes(written(tmp_path, content)), [[4, 5, 7, 8], [8, 9, 11, 12]])
    np.testing.assert_array_equal(read_vot_boxes(written(tmp_path, content)), [[5, 6, 7, 8], [9, 10, 11, 12]])


def test_rows_without_a_usable_box_become_nan_and_keep_their_place(tmp_path: Path) -> None:
    lines = [
        "NaN,NaN,NaN,NaN",
        "1,2,3,4",
        "0,0,0,0",
        "5,6,-7,8",
        "5,6,7,0",
        "nan,6,7,8",
        "5,6,inf,8",
        "9,9,9,9",
    ]
    path = written(tmp_path, "\n".join(lines))
    for read, shift in ((read_otb_boxes, 1), (read_vot_boxes, 0)):
        expected = np.full((8, 4), np.nan)
        expected[1] = [1 - shift, 2 - shift, 3, 4]
        expected[7] = [9 - shift, 9 - shift, 9, 9]
        np.testing.assert_array_equal(read(path), expected)


def test_vot_polygons_become_their_bounding_box(tmp_path: Path) -> None:
    lines = [
        "10,20,30,15,34.5,40,12,44",  # four corners, turned
        "7,8,1,9,4,2",  # three
        "0,0,10,0,12,5,10,10,0,10",  # five
        "1,2,30,40",  # a box
        "3,3,8,3,8,3,3,3",  # no area
        "1,nan,2,3,4,5,6,7",
    ]
    np.testing.assert_array_equal(
        read_vot_boxes(written(tmp_path, "\n".join(lines))),
        [[10, 15, 24.5, 29], [1, 2, 6, 7], [0, 0, 12, 10], [1, 2, 30, 40], NAN_ROW, NAN_ROW],
    )


def test_a_number_alone_is_a_frame_without_a_region_in_vot_only(tmp_path: Path) -> None:
    path = written(tmp_path, "1,2,3,4\n0\n1\n2\n5,6,7,8\n")
    np.testing.assert_array_equal(read_vot_boxes(path), [[1, 2, 3, 4], NAN_ROW, NAN_ROW, NAN_ROW, [5, 6, 7, 8]])
    with pytest.raises(InputError, match=r"line 2: 1 number: write four"):
        read_otb_boxes(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3", r"line 2: 3 numbers: write four"),
        ("1,2,3,4,5", r"line 2: 5 numbers: write four"),
        ("1,2,x,4", r"line 2: 'x' is not a number: write numbers"),
        ("1,2,,4", r"line 2: a number is missing between two separators"),
        ("occluded", r"line 2: 'occluded' is not a number"),
        ("  ", r"line 2: blank line: delete it"),
    ],
)
def test_refused_rows_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, f"1,2,3,4\n{line}\n5,6,7,8\n")
    for read in (read_otb_boxes, read_vot_boxes):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}, line 2: ")
        assert "\n" not in str(caught.value)


def test_otb_refuses_polygons_and_vot_refuses_masks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1: 8 numbers: write four"):
        read_otb_boxes(written(tmp_path, "1,2,3,4,5,6,7,8"))
    with pytest.raises(InputError, match=r"groundtruth\.txt, line 2: the target is given as a mask.*convert"):
        read_vot_boxes(written(tmp_path, "1,2,3,4\nm0,0,10,10,5,3,92\n"))


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    for read in (read_otb_boxes, read_vot_boxes):
        with pytest.raises(InputError, match=r"groundtruth\.txt is empty: write"):
            read(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"is not a UTF-8 text file: save"):
        read_otb_boxes(written(tmp_path, "1,2,3,4".encode("utf-16")))
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file.*check"):
        read_otb_boxes(tmp_path / "none.txt")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"groundtruth\.txt cannot be read: Permission denied: check"):
        read_vot_boxes(tmp_path / "groundtruth.txt")


def test_targets_are_stacked_and_shorter_ones_filled_with_nan() -> None:
    long, short = np.arange(12.0).reshape(3, 4), np.arange(100.0, 104.0).reshape(1, 4)
    np.testing.assert_array_equal(stack_targets([short, long]), [[short[0], NAN_ROW, NAN_ROW], long])
