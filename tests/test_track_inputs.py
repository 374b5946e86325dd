"""What the ``track`` command reads: folders, patterns, videos, cameras, and their ground truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import track_command
from numpy.typing import NDArray
from small_otb import TRUTH
from track_command import INIT, Call, Said, otb, rows, summary, write_video

from fdn_triton import track
from fdn_triton.demo import clip_path
from fdn_triton.sequence import Frame, Sequence

folder, call = track_command.folder, track_command.call  # fixtures


def test_boxes_are_in_the_convention_of_the_input_and_equal_in_all_forms(call: Call) -> None:
    folder = otb()
    box = ",".join(str(number) for number in TRUTH[0] - (1, 1, 0, 0))
    vot = Path("vot")
    shutil.copytree(folder / "img", vot)
    np.savetxt(vot / "groundtruth.txt", TRUTH[:4] - (1, 1, 0, 0), "%.1f", ",")
    for flags in (
        ["--seq", folder, "--out", "otb.txt"],
        ["--seq", vot, "--out", "vot.txt"],
        ["--seq", folder / "img", "--init", box, "--out", "images.txt"],
        ["--seq", "owl/im*/*.jpg", "--init", box, "--out", "glob.txt"],
    ):
        said = call(*flags)
        assert (said.code, said.err) == (0, "")
    np.testing.assert_array_equal(rows("otb.txt")[0], TRUTH[0])
    assert len(np.unique(rows("otb.txt"), axis=0)) == 4
    np.testing.assert_allclose(rows("vot.txt"), rows("otb.txt") - (1, 1, 0, 0), atol=1.1e-4)
    for other in ("images.txt", "glob.txt"):
        np.testing.assert_array_equal(rows(other), rows("vot.txt"))


def test_video_file_in_and_out(call: Call) -> None:
    flags = ("--json", "s.json", "--save-video", "drawn.avi")
    # The edges of unrefined boxes lie on fur that is unlike the line's colour.
    said = call("--seq", write_video("owl.avi"), "--init", INIT, *flags, "--no-bbox-regression")
    assert (said.code, said.err) == (0, "")
    boxes = rows("results/owl.txt")
    assert len(boxes) == 4
    np.testing.assert_array_equal(boxes[0], [120, 80, 40, 50])
    assert "precision" not in summary("s.json") and "auc" not in summary("s.json")
    drawn, plain = cv2.VideoCapture("drawn.avi"), cv2.VideoCapture("owl.avi")
    assert drawn.get(cv2.CAP_PROP_FPS) == 12.5
    for x, y, w, h in boxes:
        with_box, without = drawn.read()[1].astype(int), plain.read()[1].astype(int)
        difference = np.abs(with_box - without).max(axis=2)
        top, left, bottom, right = round(y), round(x), round(y + h), round(x + w)
        for line in (difference[top, left:right], difference[top:bottom, left]):
            assert np.median(line) > 40
        assert np.median(difference) < 10
    assert not drawn.read()[0]


def test_a_video_that_was_cut_off(call: Call) -> None:
    path = write_video("owl.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 8])
    said = call("--seq", path, "--init", INIT, "--json", "s.json", "--out", "b.txt")
    if "no frame" in said.err or "not a video" in said.err:
        pytest.skip(f"this OpenCV opens no cut video at all: {said.error}")
    assert "ends early" in said.error
    assert 0 < len(rows("b.txt")) < 40
    assert summary("s.json")["frames"] == len(rows("b.txt"))


def camera(frames: int) -> Callable[[int], Sequence]:
    def source() -> Iterator[Frame]:
        for number in range(1, frames + 1):
            bgr = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
            assert bgr is not None
            yield Frame(number, np.ascontiguousarray(bgr[..., ::-1]))
        yield Frame(frames + 1, None, "camera 3 gives no more frames")

    return lambda index: Sequence(f"camera{index}", None, None, False, (), None, source)


def test_camera(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "open_camera", camera(3))
    said = call("--camera", 3, "--init", INIT, "--max-frames", 2)
    assert (said.code, said.err) == (0, "")
    assert len(rows("results/camera3.txt")) == 2
    assert "no more frames" in call("--camera", 3, "--init", INIT).error
    assert len(rows("results/camera3.txt")) == 3


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    code = track.main(["--camera", "97", "--init", INIT])
    out, err = capfd.readouterr()  # of the process: OpenCV prints past sys.stderr
    assert "camera 97 cannot be opened" in Said(code, out, err).error


@pytest.mark.parametrize("kind", ["grey", "16-bit", "RGBA"])
def test_frames_of_other_depths_and_channels(call: Call, kind: str) -> None:
    Path("frames").mkdir()
    for number in range(1, 4):
        bgr = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
        assert bgr is not None
        image: NDArray[Any] = {
            "grey": lambda bgr=bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY),
            "16-bit": lambda bgr=bgr: bgr.astype(np.uint16) * 257,
            "RGBA": lambda bgr=bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA),
        }[kind]()
        assert cv2.imwrite(f"frames/{number}.png", image)
    said = call("--seq", "frames", "--init", INIT)
    assert (said.code, said.err, len(rows("results/frames.txt"))) == (0, "", 3)


def test_a_frame_size_that_changes(call: Call) -> None:
    folder = otb()
    for number in (3, 4):
        path = str(folder / "img" / f"{number:04d}.jpg")
        image = cv2.imread(path)
        assert image is not None and cv2.imwrite(path, cv2.resize(image, (640, 480)))
    said = call("--seq", folder, "--save-video", "v.avi")
    assert (said.code, said.err) == (0, "")
    boxes = rows("results/owl.txt")
    growth = boxes[2, 2:] / boxes[1, 2:]
    assert (growth > 1.5).all() and (growth < 2.7).all()  # the target grew with the frame
    video = cv2.VideoCapture("v.avi")
    sizes = [image.shape for ok, image in iter(video.read, (False, None)) if ok]
    assert sizes == [(240, 320, 3)] * 4


@pytest.mark.parametrize("row", ["NaN,NaN,NaN,NaN", "0,0,0,0"])
def test_ground_truth_rows_without_a_box_are_not_scored(call: Call, row: str) -> None:
    folder = otb()
    lines = (folder / "groundtruth_rect.txt").read_text().splitlines()
    (folder / "groundtruth_rect.txt").write_text("\n".join([lines[0], lines[1], row, lines[3]]))
    said = call("--seq", folder, "--json", "s.json", "--save-video", "v.avi")
    assert (said.code, said.err) == (0, "")
    assert summary("s.json")["scored_frames"] == 3
    assert len(rows("results/owl.txt")) == 4


def test_fewer_ground_truth_rows_than_frames(call: Call) -> None:
    folder = otb()
    np.savetxt(folder / "groundtruth_rect.txt", TRUTH[:2], "%.1f", ",")
    said = call("--seq", folder, "--json", "s.json", "--save-video", "v.avi")
    assert said.code == 0 and said.err.startswith("note: ") and "fewer rows (2)" in said.err
    assert (summary("s.json")["frames"], summary("s.json")["scored_frames"]) == (4, 2)
