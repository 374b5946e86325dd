"""Which frames a strip shows, and what is drawn into them."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from example_evaluation import scored, truth

from fdn_triton.evaluation.report.strips import anchor, chosen_frames, frame_overlaps, strip
from fdn_triton.evaluation.summary import SequenceScore, Track

NAN = float("nan")


def test_the_first_and_the_worst_apart_from_each_other() -> None:
    overlap = np.full(80, 0.9)
    overlap[30:36] = 0.1, 0.05, 0.0, 0.02, 0.03, 0.04  # one failure is shown once, where it is worst
    overlap[41] = 0.2  # 9 frames from it, and an eighth of the sequence is 10
    overlap[42] = 0.25
    overlap[70] = 0.3
    assert chosen_frames(overlap) == [0, 32, 42, 70]


@pytest.mark.parametrize(
    ("overlap", "chosen"),
    [
        ([], []),
        ([NAN, NAN], []),
        ([1.0], [0]),
        ([1.0, 0.5], [0, 1]),
        ([NAN, 0.2, 0.9, NAN, 0.1], [1, 2, 4]),  # the first is the first with ground truth
        ([1.0, 0.0, 0.0, 0.0, 0.0], [0, 1, 2, 3]),  # of equals the earliest
    ],
)
def test_short_sequences(overlap: list[float], chosen: list[int]) -> None:
    assert chosen_frames(np.array(overlap)) == chosen


def test_a_long_failure_begins_the_strip() -> None:
    assert chosen_frames(np.array([0.8] * 40 + [0.0] * 40)) == [0, 40, 50, 60]


def test_overlap_only_where_there_is_ground_truth() -> None:
    truth_xywh = truth(4)
    truth_xywh[1] = NAN
    track = Track([], np.concatenate([truth(4), truth(2)]), truth_xywh)
    np.testing.assert_allclose(frame_overlaps(track), [1, NAN, 1, 1, NAN, NAN])


def score_of(track: Track) -> SequenceScore:
    n = len(track.truth_xywh)
    return SequenceScore(scored(track.boxes_xywh[:n], track.truth_xywh), {0: (0.0, 0.0)})


def rectangles(markup: str, kind: str) -> list[list[float]]:
    found = re.findall(rf'<rect x="([^"]*)" y="([^"]*)" width="([^"]*)" height="([^"]*)" class="{kind}">', markup)
    return [[float(value) for value in box] for box in found]


def test_the_pictures_are_the_frames_with_both_boxes(tmp_path: Path) -> None:
    paths = []
    for k in range(3):
        paths.append(tmp_path / f"{k}.png")
        image = np.zeros((600, 1000, 3), np.uint8)
        image[:, :, 2] = 100 * k  # red, as OpenCV has it
        assert cv2.imwrite(str(paths[-1]), image)
    boxes_xywh = truth(3) + [[0, 0, 0, 0], [3, 1, 0, 0], [5, -700, 0, 0]]
    track = Track(paths, boxes_xywh, truth(3))
    made = strip("A <b>", track, score_of(track))
    assert "A &lt;b&gt;" in made and "Frame 2, overlap" in made and made.count("<figure>") == 3
    for (width, height), data, level in zip(
        re.findall(r'viewBox="0 0 (\d+) (\d+)" role="img" aria-label="Frame', made),
        re.findall('href="data:image/jpeg;base64,(.*?)"', made),
        (0, 100, 200),
        strict=True,
    ):
        assert (width, height) == ("1000", "600")  # boxes are in the file's pixels, whatever the picture's size
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (288, 480, 3)
        np.testing.assert_allclose(picture.mean(axis=(0, 1)), [0, 0, level], atol=3)
    np.testing.assert_allclose(rectangles(made, "truth"), truth(3), atol=0.06)
    np.testing.assert_allclose(rectangles(made, "result"), boxes_xywh, atol=0.06)
    assert rectangles(made, "result edge") == rectangles(made, "result")


def test_a_picture_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "<1>.jpg").write_bytes(b"no picture")
    track = Track([tmp_path / "<1>.jpg"], truth(2), truth(2))  # and there is none for the second frame
    made = strip("S", track, score_of(track))
    assert "&lt;1&gt;.jpg cannot be read." in made and "The picture cannot be read." in made
    assert made.count("overlap 1.00") == 2 and "<rect" not in made


def test_no_ground_truth_at_all(tmp_path: Path) -> None:
    track = Track([], truth(2), np.full((2, 4), NAN))
    assert "No frame has ground truth." in strip("S", track, SequenceScore(scored(truth(2), truth(2)), {0: (1, 1)}))


def test_an_anchor_has_no_blank() -> None:
    assert anchor("a  b\tc") == "strip-a-b-c"
