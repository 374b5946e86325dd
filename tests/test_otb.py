"""OTB's sequences: lists and attributes against known counts, every spelling of names, folders as users have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fdn_triton.errors import InputError
from fdn_triton.evaluation.attributes import ATTRIBUTES, OTB_ATTRIBUTES
from fdn_triton.evaluation.otb import OTB_LISTS, Entry, canonical_name, open_dataset

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def make_sequence(
    folder: Path, frames: int = 3, annotations: Iterable[str] = ("groundtruth_rect.txt",), rows: int | None = None
) -> Path:
    """Images by name only; row i of the k-th annotation is ``i, 10 k, 5, 6`` with i and k from 1."""
    (folder / "img").mkdir(parents=True)
    for i in range(frames):
        (folder / "img" / f"{i + 1:04d}.jpg").touch()
    for k, name in enumerate(annotations, 1):
        (folder / name).write_text("".join(f"{i + 1},{10 * k},5,6\n" for i in range(rows or frames)))
    return folder


def found(entries: Iterable[Entry]) -> list[tuple[str, str, int | None]]:
    return [(entry.name, entry.folder.name, entry.target) for entry in entries]


def height_of_first_box(entry: Entry) -> float:
    """Tells the targets that :func:`make_sequence` writes apart: 0-based y, 9 of the first."""
    truth = entry.open().ground_truth
    assert truth is not None and truth.shape[0] == 1
    return float(truth[0, 0, 1])


# Lists and attributes


def test_the_lists_have_their_known_sizes() -> None:
    assert {name: len(set(names)) for name, names in OTB_LISTS.items()} == {"otb2013": 51, "otb50": 50, "otb100": 100}
    assert set(OTB_LISTS["otb50"]) < set(OTB_LISTS["otb100"]) and set(OTB_LISTS["otb2013"]) < set(OTB_LISTS["otb100"])


@pytest.mark.parametrize("name", OTB_LISTS)
def test_the_lists_are_the_shared_ones(name: str) -> None:
    path = DATA / "splits" / f"{name}.txt"
    if not path.exists():
        pytest.skip(f"no {path}")
    assert sorted(OTB_LISTS[name]) == sorted(path.read_text().split())


def test_attributes_occur_as_often_as_published_plots_say() -> None:
    """The plots follow the annotation of the MATLAB toolkit, from which the table differs as its docstring says."""
    counts = Counter(attribute for attributes in OTB_ATTRIBUTES.values() for attribute in attributes)
    counts.subtract(["LR", "MB", "FM", "SV", "MB", "FM", "BC", "FM", "OPR", "FM"])
    assert counts == {
        "IV": 38, "OPR": 63, "SV": 64, "OCC": 49, "DEF": 44, "MB": 29, "FM": 39, "IPR": 51, "OV": 14, "BC": 31, "LR": 9
    }  # fmt: skip


def test_attributes_are_known_and_in_order() -> None:
    assert len(ATTRIBUTES) == 11
    order = list(ATTRIBUTES)
    for attributes in OTB_ATTRIBUTES.values():
        assert attributes and list(attributes) == sorted(set(attributes), key=order.index)
    assert OTB_ATTRIBUTES["Basketball"] == ("IV", "OCC", "DEF", "OPR", "BC")
    assert OTB_ATTRIBUTES["Jogging-1"] == OTB_ATTRIBUTES["Jogging-2"] == ("OCC", "DEF", "OPR")


# Names


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        *((spelling, "Jogging-1") for spelling in ("Jogging-1", "Jogging.1", "jogging_1", "Jogging_1", "jogging1")),
        ("Jogging_groundtruth_rect.2", "Jogging-2"),
        ("Jogging_rect.2", "Jogging-2"),
        *((spelling, "Skating2-1") for spelling in ("Skating2-1", "Skating2.1", "skating2_1")),
        *((spelling, "Human4") for spelling in ("Human4", "human4_2", "Human4-2", "Human4.2")),
        ("skating1", "Skating1"),
        ("faceocc1", "FaceOcc1"),
        ("fleetface", "FleetFace"),
        ("carDark", "CarDark"),
        ("blurCar1", "BlurCar1"),
        ("car24", "Car24"),
        ("dog1", "Dog1"),
        ("dog", "Dog"),
        ("jogging", "jogging"),
        ("my video-1", "my video-1"),
        ("", ""),
    ],
)
def test_spellings_of_a_name(spelling: str, canonical: str) -> None:
    assert canonical_name(spelling) == canonical


def test_all_names_are_told_apart() -> None:
    for name in OTB_LISTS["otb100"]:
        assert canonical_name(name) == canonical_name(name.lower()) == name


# Folders


def test_a_folder_of_sequences(tmp_path: Path) -> None:
    for name in ("David3", "bolt", "My Video"):
        make_sequence(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden" / "img").mkdir(parents=True)
    (tmp_path / "README.txt").write_text("about")
    assert found(open_dataset(tmp_path)) == [
        ("Bolt", "bolt", None),
        ("David3", "David3", None),
        ("My Video", "My Video", None),
    ]
    names = ["my video", "david3", "David3", "Bolt"]
    assert [entry.name for entry in open_dataset(str(tmp_path), names)] == ["My Video", "David3", "Bolt"]


def test_an_entry_opens(tmp_path: Path) -> None:
    folder = make_sequence(tmp_path / "Deer", frames=2)
    for i, value in enumerate((40, 200)):
        cv2.imwrite(str(folder / "img" / f"{i + 1:04d}.jpg"), np.full((12, 16, 3), value, np.uint8))
    (entry,) = open_dataset(tmp_path)
    sequence = entry.open()
    assert (sequence.name, sequence.length, sequence.one_based) == ("Deer", 2, True)
    np.testing.assert_array_equal(sequence.ground_truth, [[[0, 9, 5, 6], [1, 9, 5, 6]]])
    images = [frame.image for frame in sequence.frames()]
    assert [int(image.mean().round()) for image in images if image is not None] == [40, 200]
    assert [path.name for path in entry.image_paths()] == ["0001.jpg", "0002.jpg"]


def test_two_targets_in_one_folder(tmp_path: Path) -> None:
    make_sequence(tmp_path / "Jogging", annotations=("groundtruth_rect.1.txt", "groundtruth_rect.2.txt"))
    make_sequence(tmp_path / "pair", annotations=("groundtruth_rect.1.txt", "groundtruth_rect.2.txt"))
    assert found(open_dataset(tmp_path)) == [
        ("Jogging-1", "Jogging", 1),
        ("Jogging-2", "Jogging", 2),
        ("pair-1", "pair", 1),
        ("pair-2", "pair", 2),
    ]
    assert [height_of_first_box(entry) for entry in open_dataset(tmp_path)] == [9, 19, 9, 19]
    assert [entry.name for entry in open_dataset(tmp_path, ["jogging_2"])] == ["Jogging-2"]
    assert [entry.name for entry in open_dataset(tmp_path, ["jogging", "Jogging-1"])] == ["Jogging-1", "Jogging-2"]
    assert [entry.name for entry in open_dataset(tmp_path, ["Pair"])] == ["pair-1", "pair-2"]


def test_one_folder_for_each_target(tmp_path: Path) -> None:
    make_sequence(tmp_path / "Jogging-1")
    for k in (1, 2):  # the folder copied as it is
        make_sequence(tmp_path / f"Skating2-{k}", annotations=("groundtruth_rect.1.txt", "groundtruth_rect.2.txt"))
    entries = open_dataset(tmp_path)
    assert found(entries) == [
        ("Jogging-1", "Jogging-1", None),
        ("Skating2-1", "Skating2-1", 1),
        ("Skating2-2", "Skating2-2", 2),
    ]
    assert [height_of_first_box(entry) for entry in entries] == [9, 9, 19]


def test_one_of_two_targets_is_there(tmp_path: Path) -> None:
    make_sequence(tmp_path / "jogging", annotations=("groundtruth_rect.2.txt",))
    make_sequence(tmp_path / "own", annotations=("groundtruth_rect.1.txt",))
    assert found(open_dataset(tmp_path)) == [("Jogging-2", "jogging", 2), ("own", "own", 1)]


@pytest.mark.parametrize("folder", ["Human4", "Human4-2"])
@pytest.mark.parametrize("first", ["", "\r\n"])
def test_an_empty_annotation_is_no_target(folder: str, first: str, tmp_path: Path) -> None:
    make_sequence(tmp_path / folder, annotations=("groundtruth_rect.1.txt", "groundtruth_rect.2.txt"))
    (tmp_path / folder / "groundtruth_rect.1.txt").write_text(first)
    (entry,) = open_dataset(tmp_path)
    assert (entry.name, entry.target, height_of_first_box(entry)) == ("Human4", 2, 19)
    assert open_dataset(tmp_path, ["Human4-2"]) == [entry]


@pytest.mark.parametrize(
    ("name", "images", "rows", "first", "last"),
    [
        ("David", 770, 471, "0300.jpg", "0770.jpg"),
        ("David", 471, 471, "0001.jpg", "0471.jpg"),
        ("Football1", 81, 74, "0001.jpg", "0074.jpg"),
        ("Freeman4", 297, 283, "0001.jpg", "0283.jpg"),
        ("Tiger1", 354, 354, "0001.jpg", "0354.jpg"),
        ("Tiger1", 354, 349, "0006.jpg", "0354.jpg"),
    ],
)
def test_the_annotated_part_of_a_sequence(
    name: str, images: int, rows: int, first: str, last: str, tmp_path: Path
) -> None:
    make_sequence(tmp_path / name, frames=images, rows=rows)
    (entry,) = open_dataset(tmp_path)
    paths = entry.image_paths()
    assert (paths[0].name, paths[-1].name, len(paths), entry.open().length) == (first, last, rows, rows)


def test_images_are_in_natural_order_and_nothing_else_is_one(tmp_path: Path) -> None:
    folder = make_sequence(tmp_path / "Deer", frames=0, rows=3)
    for name in ("10.jpg", "2.jpg", "1.PNG", "Thumbs.db", "._2.jpg"):
        (folder / "img" / name).touch()
    assert [path.name for path in open_dataset(tmp_path)[0].image_paths()] == ["1.PNG", "2.jpg", "10.jpg"]


# What is wrong with a folder


@pytest.mark.parametrize(("images", "rows"), [(4, 3), (2, 3)])
def test_images_and_rows_of_unequal_number(images: int, rows: int, tmp_path: Path) -> None:
    make_sequence(tmp_path / "Deer", frames=images, rows=rows)
    with pytest.raises(InputError, match=rf"Deer has {images} images, groundtruth_rect.txt {rows} rows"):
        open_dataset(tmp_path)[0].open()


def test_what_is_missing_is_said_when_it_is_opened(tmp_path: Path) -> None:
    make_sequence(tmp_path / "Deer")
    make_sequence(tmp_path / "Bolt", annotations=())
    make_sequence(tmp_path / "Coke").joinpath("img").rename(tmp_path / "Coke" / "frames")
    make_sequence(tmp_path / "Boy", annotations=()).joinpath("groundtruth_rect.txt").symlink_to("nowhere")
    entries = open_dataset(tmp_path, ["woman", "Deer", "Bolt", "Coke", "Jogging-1", "Boy"])
    assert [entry.name for entry in entries] == ["Woman", "Deer", "Bolt", "Coke", "Jogging-1", "Boy"]
    assert entries[1].open().length == 3
    for number, message in {
        0: "Woman.img does not exist",
        2: "no groundtruth_rect.txt with boxes in .*Bolt",
        3: "Coke.img does not exist",
        4: "Jogging-1.img does not exist",
        5: "no groundtruth_rect.txt with boxes in .*Boy",
    }.items():
        with pytest.raises(InputError, match=message) as raised:
            entries[number].open()
        assert "\n" not in str(raised.value)


def test_an_annotation_that_is_not_understood(tmp_path: Path) -> None:
    (make_sequence(tmp_path / "Deer") / "groundtruth_rect.txt").write_text("1,2,3,4\n1,2,3\n1,2,3,4\n")
    with pytest.raises(InputError, match=r"groundtruth_rect.txt, line 2: 3 numbers"):
        open_dataset(tmp_path)[0].open()


def test_no_benchmark_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there are no sequences in"):
        open_dataset(tmp_path)
    file = tmp_path / "otb.zip"
    file.touch()
    with pytest.raises(InputError, match=r"otb.zip cannot be read: Not a directory"):
        open_dataset(file)
    with pytest.raises(InputError, match=r"there are no sequences in .*Deer"):
        open_dataset(make_sequence(tmp_path / "Deer"), ["Deer"])


def test_the_shared_sequences_open() -> None:
    if not (DATA / "otb").is_dir():
        pytest.skip(f"no {DATA / 'otb'}")
    entries = open_dataset(DATA / "otb")
    assert len(entries) == 13 and {entry.name for entry in entries} < set(OTB_LISTS["otb100"])
    assert sum(entry.open().length or 0 for entry in entries) == 2509
