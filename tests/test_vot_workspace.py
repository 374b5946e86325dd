"""Workspaces of vot-toolkit: what is written, what is refused, and that the toolkit's scores are those of the rules."""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from vot_clips import TRUTH, vot_folder

from fdn_triton.errors import InputError
from fdn_triton.evaluation import vot_workspace
from fdn_triton.evaluation.vot_workspace import (
    TRACKER,
    VotSequence,
    check_toolkit,
    eao_range,
    find_sequences,
    open_vot_sequence,
    results_folder,
    score,
    write_trackers_ini,
    write_workspace,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def toolkit() -> None:
    pytest.importorskip("vot", reason="the extra vot is not installed")


# Sequences


def test_sequences_of_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        vot_folder(tmp_path / name, 2)
    (tmp_path / "c" / "groundtruth.txt").unlink()
    assert find_sequences(tmp_path) == ["a", "b"]
    (tmp_path / "list.txt").write_text("c\nb\n\n")
    assert find_sequences(tmp_path) == ["c", "b"]
    assert find_sequences(tmp_path, ["x", "a", "x"]) == ["x", "a"]
    with pytest.raises(InputError, match="no sequence"):
        find_sequences(tmp_path / "a" / "color")
    with pytest.raises(InputError, match="not a folder"):
        find_sequences(tmp_path / "list.txt")


def test_a_sequence_is_read_from_either_layout(tmp_path: Path) -> None:
    new = open_vot_sequence(vot_folder(tmp_path / "new", 3, polygon=True))
    assert (new.name, [image.name for image in new.images]) == ("new", [f"{k:08d}.jpg" for k in (1, 2, 3)])
    assert [len(region) for region in new.regions] == [8, 8, 8]
    old = vot_folder(tmp_path / "old", 11)
    for image in (old / "color").iterdir():  # beside the ground truth, and not padded with zeros
        image.rename(old / f"{int(image.stem)}.jpg")
    (old / "color").rmdir()
    assert [image.stem for image in open_vot_sequence(old).images] == [str(k) for k in range(1, 12)]


def test_sequences_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_vot_sequence(tmp_path / "nowhere")
    folder = vot_folder(tmp_path / "owl", 3)
    truth = folder / "groundtruth.txt"
    whole = truth.read_text()
    truth.write_text("".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=r"3 frames, groundtruth\.txt 2 rows"):
        open_vot_sequence(folder)
    truth.write_text(whole)
    (folder / "color" / "00000003.jpg").rename(folder / "color" / "00000003.png")
    with pytest.raises(InputError, match="several formats"):
        open_vot_sequence(folder)
    truth.unlink()
    with pytest.raises(InputError, match=r"groundtruth\.txt cannot be read"):
        open_vot_sequence(folder)
    with pytest.raises(InputError, match="one frame only"):
        open_vot_sequence(vot_folder(tmp_path / "short", 1))


# The range of EAO


def test_eao_range_is_around_the_commonest_length() -> None:
    low, high = eao_range([100, 100, 100, 101, 99, 600])
    assert 97 < low <= 99 <= high < 102
    lengths = [40, 60, 80, 90, 100, 110, 120, 150, 200, 400]
    low, high = eao_range(lengths)
    assert low < 99 < high < 200
    assert eao_range([10 * length for length in lengths])[0] == pytest.approx(10 * low, rel=0.1)


def test_eao_range_lies_on_the_curve() -> None:
    """The curve of n frames has the places 0 to n - 1, and says nothing at 0."""
    for lengths in ([2], [3], [30], [30, 30], [5, 500]):
        low, high = eao_range(lengths)
        assert 1 <= low <= high <= max(lengths) - 1, lengths
    assert eao_range([30]) == (29, 29)


# What is written


def test_images_are_those_of_the_sequence(tmp_path: Path) -> None:
    sequence = open_vot_sequence(vot_folder(tmp_path / "data" / "owl", 3))
    for _ in range(2):  # writing again changes nothing
        write_workspace(tmp_path / "work", [sequence], 15, (5, 9))
        written = sorted((tmp_path / "work" / "sequences" / "owl" / "color").iterdir())
        assert [path.name for path in written] == ["00000001.jpg", "00000002.jpg", "00000003.jpg"]
        assert all(path.samefile(image) for path, image in zip(written, sequence.images, strict=True))
    assert (tmp_path / "work" / "sequences" / "list.txt").read_text() == "owl\n"


def test_images_are_copied_where_links_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("a privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    sequence = open_vot_sequence(vot_folder(tmp_path / "data" / "owl", 2))
    for _ in range(2):
        write_workspace(tmp_path / "work", [sequence], 15, (5, 9))
    copy = tmp_path / "work" / "sequences" / "owl" / "color" / "00000002.jpg"
    assert not copy.is_symlink() and copy.read_bytes() == sequence.images[1].read_bytes()


def test_a_workspace_of_other_frames_is_left_alone(tmp_path: Path) -> None:
    sequence = open_vot_sequence(vot_folder(tmp_path / "data" / "owl", 3))
    write_workspace(tmp_path / "work", [sequence], 15, (5, 9))
    fewer = VotSequence("owl", sequence.images[:2], sequence.regions[:2])
    with pytest.raises(InputError, match="other frames"):
        write_workspace(tmp_path / "work", [fewer], 15, (5, 9))
    moved = VotSequence("owl", sequence.images[::-1], sequence.regions)
    with pytest.raises(InputError, match="give an empty folder"):
        write_workspace(tmp_path / "work", [moved], 15, (5, 9))
    with pytest.raises(InputError, match="cannot write"):
        write_workspace(sequence.images[0], [sequence], 15, (5, 9))


def test_trackers_ini_survives_its_parser(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-c", "print('100 %')"])
    write_trackers_ini(tmp_path / "new" / "trackers.ini", command)
    parser = configparser.ConfigParser()
    parser.read(tmp_path / "new" / "trackers.ini")
    entry = parser[TRACKER]
    assert entry["protocol"] == "trax"
    assert subprocess.run(shlex.split(entry["command"]), capture_output=True, text=True).stdout == "100 %\n"
    assert entry["env_pythonpath"].split(":")[0] == str(ROOT)
    with pytest.raises(InputError, match="cannot write"):
        write_trackers_ini(tmp_path, command)


def test_another_toolkit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise vot_workspace.PackageNotFoundError(name)

    monkeypatch.setattr(vot_workspace, "version", lambda name: "0.9.0")
    with pytest.raises(InputError, match=r"in version 0\.9\.0, not 0\.7\.4: pip install"):
        check_toolkit()
    monkeypatch.setattr(vot_workspace, "version", missing)
    with pytest.raises(InputError, match=r"not installed: pip install 'fdn-triton\[vot\]'"):
        check_toolkit()
    monkeypatch.setattr(vot_workspace, "version", lambda name: "0.7.4")
    check_toolkit()


# Scores

BOX = "100,80,40,50"
RIGHT = "110,80,40,50"  # overlaps by 30 of 50 columns: 0.6
BELOW = "100,105,40,50"  # by 25 of 75 rows: 1/3


def still(folder: Path, frames: int, polygon: bool = False) -> VotSequence:
    """A sequence whose target stays where it is."""
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        cv2.imwrite(str(folder / f"{number:08d}.jpg"), np.zeros((240, 320, 3), np.uint8))
    # The toolkit takes a polygon's outline as part of it: of pixels 100 to 139 the corners are those.
    row = "100,80,139,80,139,129,100,129" if polygon else BOX
    (folder / "groundtruth.txt").write_text(f"{row}\n" * frames)
    return open_vot_sequence(folder)


def put(workspace: Path, name: str, number: int, rows: list[str]) -> None:
    folder = results_folder(workspace, name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_{number:03d}.txt").write_text("\n".join(rows) + "\n")


@pytest.mark.usefixtures("toolkit")
@pytest.mark.parametrize("polygon", [False, True])
def test_scores_are_those_computed_by_hand(tmp_path: Path, polygon: bool) -> None:
    sequences = [still(tmp_path / "data" / "long", 30, polygon), still(tmp_path / "data" / "short", 20, polygon)]
    workspace = tmp_path / "work"
    write_workspace(workspace, sequences, 2, (5, 6))
    write_trackers_ini(workspace / "trackers.ini", "false")
    again = ["2", "0", "0", "0", "0", "1"]
    put(workspace, "long", 1, ["1", *[RIGHT] * 29])
    put(workspace, "long", 2, ["1", *[RIGHT] * 13, *again, *[BOX] * 10])
    put(workspace, "short", 1, ["1", *[BELOW] * 19])
    put(workspace, "short", 2, ["1", *[BELOW] * 3, *again, BELOW, *again, *[BELOW] * 2, "2"])
    scores = score(workspace)

    # Frames 0 to 9 after a start do not count: of the second run of "long" four at 0.6 and one at 1 are left, of the
    # second run of "short" none, which counts as 0.
    long, short = (0.6 + (4 * 0.6 + 1) / 5) / 2, (1 / 3 + 0) / 2
    assert scores.sequences["long"] == pytest.approx((long, 0.5))
    assert scores.sequences["short"] == pytest.approx((short, 1.5))
    assert scores.accuracy == pytest.approx((30 * long + 20 * short) / 50)
    assert scores.robustness == pytest.approx((30 * 0.5 + 20 * 1.5) / 50)

    # Fragments of n frames behind their start; a fragment that ends in a failure goes on with 0, one that ends with its
    # sequence counts as far as it goes. At 5: 0.6, 0.6, 1, 1/3, and three that failed behind 3, 1 and 2 times 1/3.
    at_5 = (0.6 + 0.6 + 1 + 1 / 3 + (3 + 1 + 2) / 3 / 5) / 7
    at_6 = (0.6 + 0.6 + 1 + 1 / 3 + (3 + 1 + 2) / 3 / 6) / 7
    assert scores.eao_curve[5:7] == pytest.approx([at_5, at_6])
    assert scores.eao == pytest.approx((at_5 + at_6) / 2)
    assert len(scores.eao_curve) == 30


@pytest.mark.usefixtures("toolkit")
def test_eao_beyond_the_longest_fragment_is_undefined(tmp_path: Path) -> None:
    write_workspace(tmp_path, [still(tmp_path / "data" / "long", 30)], 1, (12, 20))
    write_trackers_ini(tmp_path / "trackers.ini", "false")
    put(
        tmp_path, "long", 1, ["1", *[RIGHT] * 7, "2", *["0"] * 4, "1", *[RIGHT] * 7, "2", *["0"] * 4, "1", *[RIGHT] * 3]
    )
    scores = score(tmp_path)
    assert scores.eao is None
    assert (len(scores.eao_curve), scores.robustness) == (8, 2)
    put(tmp_path, "long", 1, ["1", *[RIGHT] * 29])
    assert score(tmp_path).eao == pytest.approx(0.6)  # and not what the toolkit remembers of the results before


@pytest.mark.usefixtures("toolkit")
def test_what_the_toolkit_says_is_passed_on(tmp_path: Path) -> None:
    write_workspace(tmp_path, [still(tmp_path / "data" / "long", 3)], 1, (1, 2))
    write_trackers_ini(tmp_path / "trackers.ini", "false")
    put(tmp_path, "long", 1, ["1", BOX, BOX])
    assert score(tmp_path).robustness == 0
    put(tmp_path, "long", 1, ["1", BOX])  # of the scores of before, nothing is taken
    with pytest.raises(InputError, match=r"vot-toolkit cannot score .*not of the same size 2 != 3") as caught:
        score(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("toolkit")
def test_the_toolkit_reads_the_sequence_as_it_is(tmp_path: Path) -> None:
    sequence = open_vot_sequence(vot_folder(tmp_path / "data" / "owl", 4, polygon=True))
    write_workspace(tmp_path / "work", [sequence], 15, (1, 3))
    write_trackers_ini(tmp_path / "work" / "trackers.ini", "false")
    put(tmp_path / "work", "owl", 1, ["1", "2", "0", "0"])
    score(tmp_path / "work")
    written = json.loads((tmp_path / "work" / "analysis" / "fdn.json").read_text())
    assert written["toolkit"] == "0.7.4"
    assert written["sequences"]["owl"] == {"length": 4, "width": 320, "height": 240}
    experiment = written["results"]["baseline"]["parameters"]
    assert (experiment["repetitions"], experiment["skip_initialize"], experiment["failure_overlap"]) == (15, 5, 0)
    from vot.region.io import read_trajectory

    regions = read_trajectory(str(tmp_path / "work" / "sequences" / "owl" / "groundtruth.txt"))
    corners = np.array([region.points()[0] for region in regions])
    np.testing.assert_allclose(corners, TRUTH[:4, :2], atol=0.01)
