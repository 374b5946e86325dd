"""Published results: reading every separator, finding trackers, and the layouts of the toolkits written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fdn_triton.errors import InputError
from fdn_triton.evaluation.otb import OTB_LISTS, canonical_name
from fdn_triton.evaluation.published import LAYOUTS, find_trackers, read_results, result_path, write_results

DATA = Path(__file__).parents[1].parent / "shared" / "data"
BOXES = np.array([[9.0, 19.0, 30.5, 40.0], [-3.25, 0.0, 12.125, 7.0], [100.0625, 50.0, 0.0, 0.0]])


def results(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1,2,3,4\n")


@pytest.mark.parametrize(
    "text",
    [
        "10,20,30.5,40\n1,2,3,4\n",
        "10\t20\t30.5\t40\n1\t2\t3\t4",
        "10 20 30.5 40\n1  2 3 4\n\n",
        "10, 20, 30.5, 40\r\n1, 2, 3, 4\r\n",
        "\ufeff1.0e+01,2.0e+01,3.05e+01,40\n1,2,3,4\n",
        " 10 ,\t20 , 30.5,40,\n1,2,3,4,\n",
    ],
    ids=["comma", "tab", "spaces", "windows", "exponents", "mixed"],
)
def test_every_separator(text: str, tmp_path: Path) -> None:
    path = tmp_path / "Deer.txt"
    path.write_bytes(text.encode())
    boxes = read_results(path)
    assert boxes.dtype == np.float64
    np.testing.assert_array_equal(boxes, [[9, 19, 30.5, 40], [0, 1, 3, 4]])


def test_rows_without_a_box_stay(tmp_path: Path) -> None:
    path = tmp_path / "Deer.txt"
    path.write_text("1,2,3,4\nNaN,NaN,NaN,NaN\n5,6,0,-1\nnan,6,7,8\n")
    np.testing.assert_array_equal(read_results(path), [[0, 1, 3, 4], [np.nan] * 4, [4, 5, 0, -1], [np.nan, 5, 7, 8]])


def test_a_single_row(tmp_path: Path) -> None:
    results(tmp_path, "Deer")
    np.testing.assert_array_equal(read_results(str(tmp_path / "Deer.txt")), [[0, 1, 3, 4]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"1,2,3,4\n1,2,x,4\n", "not a table of boxes: could not convert string 'x'"),
        (b"1,2,3,4\n1,2,3\n", "not a table of boxes: the number of columns changed from 4 to 3"),
        (b"1,2,3,4\n1,,3,4\n", "not a table of boxes: the number of columns changed from 4 to 3"),
        (b"1,2,3\n1,2,3\n", "has 3 numbers a row"),
        (b"1,2,3,4,5,6,7,8\n", "has 8 numbers a row"),
        (b"# boxes\n1,2,3,4\n", "not a table of boxes"),
        (b"\x89PNG\r\n\x1a\n\xff", "not a UTF-8 text file"),
    ],
)
def test_files_that_are_no_results(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "Deer.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_results(path)
    assert "\n" not in str(raised.value) and "Deer.txt" in str(raised.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Deer.txt cannot be read: No such file"):
        read_results(tmp_path / "Deer.txt")


# Trackers in a folder


def test_a_folder_of_trackers(tmp_path: Path) -> None:
    results(tmp_path, "SiamFC/jogging_1", "SiamFC/human4_2", "SiamFC/faceocc1", "MDNet/Jogging-1", "MDNet/own video")
    (tmp_path / "MDNet" / "scores.json").write_text("{}")
    (tmp_path / "README.txt").write_text("where they are from")
    trackers = find_trackers(tmp_path)
    assert list(trackers) == ["MDNet", "SiamFC"]
    assert trackers["SiamFC"] == {
        "FaceOcc1": tmp_path / "SiamFC" / "faceocc1.txt",
        "Human4": tmp_path / "SiamFC" / "human4_2.txt",
        "Jogging-1": tmp_path / "SiamFC" / "jogging_1.txt",
    }
    assert list(trackers["MDNet"]) == ["Jogging-1", "own video"]


def test_folders_and_times_of_the_toolkits(tmp_path: Path) -> None:
    results(tmp_path, "dimp/dimp50_000/Deer", "dimp/dimp50_000/Deer_time", "dimp/dimp50_001/Deer")  # pytracking
    results(tmp_path, "MDNet/Deer", "MDNet/times/Deer_time")  # got10k
    assert {name: list(files) for name, files in find_trackers(tmp_path).items()} == {
        "dimp/dimp50_000": ["Deer"],
        "dimp/dimp50_001": ["Deer"],
        "MDNet": ["Deer"],
    }


def test_a_single_tracker(tmp_path: Path) -> None:
    results(tmp_path / "MDNet", "Deer", "Skating2.2")
    assert {name: list(files) for name, files in find_trackers(tmp_path / "MDNet").items()} == {
        "MDNet": ["Deer", "Skating2-2"]
    }


def test_the_canonical_name_comes_before_other_spellings(tmp_path: Path) -> None:
    results(tmp_path, "A/Human4-2", "A/Human4", "B/jogging_1", "B/Jogging.1")
    trackers = find_trackers(tmp_path)
    assert trackers["A"]["Human4"].name == "Human4.txt"
    assert trackers["B"]["Jogging-1"].name == "Jogging.1.txt"


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no results in"):
        find_trackers(tmp_path)
    (tmp_path / "MDNet").mkdir()
    (tmp_path / "MDNet" / "Deer.mat").touch()
    with pytest.raises(InputError, match="there are no results in"):
        find_trackers(tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        find_trackers(tmp_path / "nowhere")


def test_the_shared_results() -> None:
    if not (DATA / "otb_results").is_dir():
        pytest.skip(f"no {DATA / 'otb_results'}")
    trackers = find_trackers(DATA / "otb_results")
    assert len(trackers) == 12 and all(len(files) == 13 for files in trackers.values())
    assert sum(len(read_results(path)) for path in trackers["TLD"].values()) == 2509


# Layouts


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("otb", ("Jogging-1", "Skating2-2", "Human4")),
        ("pysot", ("Jogging-1", "Skating2-2", "Human4-2")),
        ("got10k", ("Jogging.1", "Skating2.2", "Human4")),
        ("pytracking", ("Jogging_1", "Skating2_2", "Human4_2")),
    ],
)
def test_names_in_each_layout(layout: str, names: tuple[str, ...]) -> None:
    for sequence, name in zip(("Jogging-1", "Skating2-2", "Human4"), names, strict=True):
        assert result_path("out", "FDN", sequence, LAYOUTS[layout]) == Path("out") / "FDN" / f"{name}.txt"
    assert result_path("out", "FDN", "my-video", LAYOUTS[layout]).name == "my-video.txt"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_found_and_read(layout: str, tmp_path: Path) -> None:
    for sequence in OTB_LISTS["otb100"]:
        write_results(result_path(tmp_path, "fdn/paper_000", sequence, LAYOUTS[layout]), BOXES, LAYOUTS[layout])
    files = find_trackers(tmp_path)["fdn/paper_000"]
    assert set(files) == set(OTB_LISTS["otb100"])
    np.testing.assert_array_equal(read_results(files["Jogging-2"]), BOXES)
    assert all(canonical_name(path.stem) == sequence for sequence, path in files.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_toolkits_can_read_what_is_written(layout: str, tmp_path: Path) -> None:
    """Each reads with this one separator: pysot splits at commas, the others call numpy.loadtxt."""
    separator = {"otb": ",", "pysot": ",", "got10k": ",", "pytracking": "\t"}[layout]
    path = tmp_path / "Deer.txt"
    write_results(path, BOXES, LAYOUTS[layout])
    expected = BOXES + (1, 1, 0, 0)
    np.testing.assert_array_equal(np.loadtxt(path, delimiter=separator), expected)
    lines = path.read_text().splitlines()
    np.testing.assert_array_equal([[float(word) for word in line.split(separator)] for line in lines], expected)


def test_lost_frames_are_written_as_nan(tmp_path: Path) -> None:
    boxes = np.array([[1.0, 2, 3, 4], [np.nan] * 4])
    write_results(tmp_path / "Deer.txt", boxes, LAYOUTS["otb"])
    np.testing.assert_array_equal(read_results(tmp_path / "Deer.txt"), boxes)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_results(tmp_path / "file" / "Deer.txt", BOXES, LAYOUTS["otb"])
