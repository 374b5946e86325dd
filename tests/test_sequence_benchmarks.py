"""Folders of benchmarks as sequences: OTB's and VOT's layouts, their ground truth, and OTB's ranges of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from frame_files import values, write_images

from fdn_triton.errors import InputError
from fdn_triton.sequence import OTB_FRAME_RANGES, open_sequence

OTB = Path(__file__).resolve().parents[1] / "../shared/data/otb"


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
