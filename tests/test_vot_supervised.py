"""The reset-based experiment: when it starts again, and what it leaves on disk."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from vot_clips import QUICK, TRUTH, vot_folder

from fdn_triton.errors import InputError
from fdn_triton.evaluation.vot_region import read_regions
from fdn_triton.evaluation.vot_supervised import Repetition, track_with_resets
from fdn_triton.evaluation.worker import Settings, fingerprint
from fdn_triton.frame_source import Frame, image_frames
from fdn_triton.tracker import Tracker, TrackResult
from fdn_triton.weights import load_weights

WEIGHTS = load_weights("untrained", QUICK.network)
ON, OFF = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 10.0, 10.0]


class Scripted:
    """A tracker that says what it is told to, and notes the boxes it is started from."""

    def __init__(self, boxes: Sequence[ArrayLike]) -> None:
        self._boxes = iter(boxes)
        self.started: list[list[float]] = []

    def init(self, image: NDArray[np.uint8], box: NDArray[np.float64]) -> None:
        self.started.append(box.tolist())

    def update(self, image: NDArray[np.uint8]) -> TrackResult:
        box = np.array([next(self._boxes)], dtype=np.float64)
        return TrackResult(box, np.zeros(1), np.ones(1, dtype=bool), (None,), (0,))


def frames(number: int, unreadable: Sequence[int] = ()) -> Iterator[Frame]:
    for index in range(number):
        bad = index in unreadable
        yield Frame(index + 1, None if bad else np.zeros((80, 100, 3), np.uint8), "it is gone" if bad else None)


def texts(boxes: Sequence[ArrayLike], regions: Sequence[ArrayLike], unreadable: Sequence[int] = ()) -> list[str]:
    rows = track_with_resets(
        Scripted(boxes), frames(len(regions), unreadable), [np.array(region) for region in regions]
    )
    return ["x" if "," in row.text else row.text for row in rows]


def test_starts_again_five_frames_after_a_failure() -> None:
    assert texts([ON, OFF, ON, ON], [ON] * 10) == ["1", "x", "2", "0", "0", "0", "0", "1", "x", "x"]


def test_failures_in_a_row_and_at_the_end() -> None:
    assert texts([OFF, OFF, ON, OFF], [ON] * 16) == list("1200001200001x20")
    assert texts([ON, OFF], [ON] * 3) == ["1", "x", "2"]
    assert texts([OFF], [ON] * 6) == list("120000")
    assert texts([OFF], [ON] * 7) == list("1200001")


def test_starts_from_the_bounding_box_of_the_frame_it_starts_on() -> None:
    regions = [np.array([k, 0, k + 10, 20, k - 10, 20]) for k in range(20, 27)]
    tracker = Scripted([OFF])
    rows = list(track_with_resets(tracker, frames(7), regions))
    assert tracker.started == [[10, 0, 20, 20], [16, 0, 20, 20]]
    assert [row.seconds is None for row in rows] == [False, False, True, True, True, True, False]


def test_rows_are_boxes_of_four_decimals() -> None:
    tracker = Scripted([[10.12345, 11, 20, 21.5]])
    rows = list(track_with_resets(tracker, frames(2), [np.array(ON)] * 2))
    assert [row.text for row in rows] == ["1", "10.1235,11.0000,20.0000,21.5000"]


def test_only_frames_that_are_needed_must_be_readable() -> None:
    assert texts([OFF, ON], [ON] * 8, unreadable=[2, 5]) == list("1200001x")
    with pytest.raises(InputError, match="frame 3: it is gone"):
        texts([ON, ON], [ON] * 4, unreadable=[2])
    with pytest.raises(InputError, match="frame 7: it is gone"):
        texts([OFF], [ON] * 8, unreadable=[6])


def test_a_start_that_the_tracker_refuses_is_said() -> None:
    outside = np.array([500.0, 10, 20, 20])
    tracker = Tracker(QUICK, weights=WEIGHTS, device="cpu")
    with pytest.raises(InputError, match="frame 1: box 500,10,20,20 lies outside the frame"):
        list(track_with_resets(tracker, frames(2), [outside, outside]))


# On disk


@dataclass
class Place:
    """A sequence, and the settings of an evaluation."""

    settings: Settings
    repetition: Repetition

    @property
    def wanted(self) -> dict[str, object]:
        return fingerprint(self.settings.config, WEIGHTS, "cpu")

    def steps(self) -> Generator[int, None, None]:
        tracker = Tracker(self.settings.config, weights=WEIGHTS, device="cpu").beside(self.repetition.seed)
        yield from self.repetition.run(self.settings, tracker)

    def run(self) -> int:
        return sum(1 for _ in self.steps())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = vot_folder(tmp_path / "owl", 4)
    regions, images = read_regions(folder / "groundtruth.txt"), sorted((folder / "color").iterdir())
    settings = Settings(QUICK, "paper", "untrained", "cpu", tmp_path)
    return Place(settings, Repetition("owl", images, regions, 2, 7, tmp_path / "results"))


def test_files_of_a_run(place: Place) -> None:
    repetition = place.repetition
    assert repetition.read(place.wanted) is None
    assert place.run() == 4  # a step a frame
    names = {path.name for path in repetition.folder.iterdir()}
    assert names == {"owl_002.txt", "owl_002_time.value", "owl_002.json"}

    # The rows are what a tracker with that seed says.
    tracker = Tracker(replace(QUICK, seed=7), weights=WEIGHTS, device="cpu")
    images = [frame.image for frame in image_frames(repetition.images)]
    tracker.init(images[0], TRUTH[0])
    expected = [tracker.update(image).boxes_xywh[0] for image in images[1:]]
    text = repetition.path(".txt").read_text().splitlines()
    assert text[0] == "1"
    np.testing.assert_allclose([[float(n) for n in row.split(",")] for row in text[1:]], expected, atol=1e-4)

    seconds = [float(line) for line in repetition.path("_time.value").read_text().splitlines()]
    outcome = repetition.read(place.wanted)
    assert outcome is not None
    assert (outcome.failures, outcome.updates) == (0, 3)
    assert outcome.seconds == pytest.approx(sum(seconds[1:]), abs=1e-5)


def test_a_run_that_was_killed_is_not_done(place: Place) -> None:
    run = place.steps()
    next(run), next(run)
    run.close()
    assert place.repetition.read(place.wanted) is None and not place.repetition.folder.exists()
    place.run()
    place.repetition.path(".json").unlink()  # killed before the last file
    assert place.repetition.read(place.wanted) is None


def test_files_of_another_run_are_not_taken(place: Place) -> None:
    place.run()
    repetition = place.repetition
    other = fingerprint(replace(QUICK, candidates=17), WEIGHTS, "cpu")
    with pytest.raises(InputError, match="candidates 16 instead of 17"):
        repetition.read(other)
    assert repetition.read() is not None  # any settings
    with pytest.raises(InputError, match="another seed"):
        replace(repetition, seed=8).read(place.wanted)
    with pytest.raises(InputError, match="another ground truth"):
        replace(repetition, regions=[region + 1 for region in repetition.regions]).read(place.wanted)
    with pytest.raises(InputError, match="other frames"):
        replace(repetition, images=repetition.images[:3]).read(place.wanted)


def test_damaged_files_are_noticed(place: Place) -> None:
    place.run()
    path = place.repetition.path(".json")
    whole = path.read_text()
    record = json.loads(whole)
    lacking = {key: value for key, value in record.items() if key != "settings"}
    for text in ("", whole[:100], "[]", "null", "[" * 10**5, json.dumps(lacking), "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"owl_002\.json is damaged"):
            place.repetition.read(place.wanted)
    path.write_text(whole)
    rows = place.repetition.path(".txt")
    rows.write_text(rows.read_text() + "0\n")
    with pytest.raises(InputError, match="changed"):
        place.repetition.read(place.wanted)
    rows.unlink()
    with pytest.raises(InputError, match="missing"):
        place.repetition.read(place.wanted)
    place.run()
    assert place.repetition.read(place.wanted) is not None
