"""Domains: the folders of the benchmarks, what is left out of them, which frames are kept for validation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_training import PaintedDomain, video_folders

from fdn_triton.errors import InputError
from fdn_triton.training.domains import held_back_frames, read_domains, training_frames


def add_images(folder: Path, count: int = 8, name: str = "{:08d}.jpg", first: int = 1) -> Path:
    """Images of 60 x 40 pixels that tell their number by their grey."""
    folder.mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / name.format(first + i)), np.full((40, 60, 3), 20 * i, np.uint8))
    return folder


BOXES = np.array([[10.0 + i, 5, 20, 12] for i in range(8)])


def greys(domain) -> list[int]:
    return [round(float(domain.frame(i)[0].mean()) / 20) for i in range(len(domain))]


def test_otb(tmp_path: Path) -> None:
    (found,), left_out = read_domains([video_folders(tmp_path, ("owl",)) / "owl"])
    assert (found.name, len(found), left_out) == ("owl", 10, [])
    image, box = found.frame(0)
    assert image.shape == (240, 320, 3)
    row = np.loadtxt(tmp_path / "owl/groundtruth_rect.txt", delimiter=",")[0]
    np.testing.assert_allclose(box, row - [1, 1, 0, 0], err_msg="OTB counts from 1")


def test_otb_with_two_targets(tmp_path: Path) -> None:
    folder = add_images(tmp_path / "pair/img").parent
    for k in (1, 2):
        np.savetxt(folder / f"groundtruth_rect.{k}.txt", BOXES + [k, 0, 0, 0], "%g", ",")
    found, left_out = read_domains([tmp_path])
    assert [domain.name for domain in found] == ["pair.1", "pair.2"] and not left_out
    assert [domain.boxes_xywh[0, 0] for domain in found] == [10, 11]


def test_vot_with_polygons(tmp_path: Path) -> None:
    folder = add_images(tmp_path / "vot/ball/color").parent
    lines = [f"{x},{y},{x + w},{y},{x + w},{y + h},{x},{y + h}" for x, y, w, h in BOXES]
    lines[3] = "1"  # VOT's code for no region
    (folder / "groundtruth.txt").write_text("\n".join(lines))
    (found,), left_out = read_domains([tmp_path / "vot"])
    np.testing.assert_allclose(found.boxes_xywh, np.delete(BOXES, 3, axis=0))
    assert greys(found) == [0, 1, 2, 4, 5, 6, 7] and left_out == ["ball: 1 of 8 frames without a usable box"]


def test_got10k_leaves_absent_frames_out(tmp_path: Path) -> None:
    folder = add_images(tmp_path / "GOT-10k_Train_000001")
    np.savetxt(folder / "groundtruth.txt", BOXES, "%.4f", ",")
    (folder / "absence.label").write_text("0\n1\n0\n0\n0\n0\n0\n1\n")
    (folder / "cover.label").write_text("8\n0\n8\n8\n8\n8\n8\n0\n")
    (tmp_path / "list.txt").write_text("GOT-10k_Train_000001\n")
    (found,), left_out = read_domains([tmp_path])
    assert greys(found) == [0, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(found.boxes_xywh, BOXES[[0, 2, 3, 4, 5, 6]])
    assert left_out == ["GOT-10k_Train_000001: 2 of 8 frames without a usable box"]


def test_lasot_is_grouped_by_class_and_leaves_hidden_frames_out(tmp_path: Path) -> None:
    for name in ("cat-1", "cat-2"):
        folder = add_images(tmp_path / f"cat/{name}/img").parent
        np.savetxt(folder / "groundtruth.txt", BOXES, "%d", ",")
        (folder / "full_occlusion.txt").write_text("0,0,0,1,0,0,0,0")
        (folder / "out_of_view.txt").write_text("0,0,0,0,0,0,1,0\n")
        (folder / "nlp.txt").write_text("a cat")
    found, left_out = read_domains([tmp_path])
    assert [domain.name for domain in found] == ["cat-1", "cat-2"]
    assert greys(found[1]) == [0, 1, 2, 4, 5, 7] and len(left_out) == 2


def test_boxes_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    folder = add_images(tmp_path / "clip/img").parent
    boxes = BOXES.copy()
    boxes[1] = np.nan
    boxes[3, 2:] = 3  # pixels
    boxes[4, 0] = 200  # outside of the image
    np.savetxt(folder / "groundtruth_rect.txt", boxes, "%g", ",")
    (found,), left_out = read_domains([tmp_path])
    assert greys(found) == [0, 2, 5, 6, 7] and left_out == ["clip: 3 of 8 frames without a usable box"]


def test_videos_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path) -> None:
    video_folders(tmp_path, ("good", "short", "torn", "wrong"))
    (tmp_path / "short/groundtruth_rect.txt").write_text("10,10,20,20\n" * 4)
    for path in (tmp_path / "torn/img").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    (tmp_path / "wrong/groundtruth_rect.txt").write_text("10,ten,20,20\n")
    (tmp_path / "notes").mkdir()
    found, left_out = read_domains([tmp_path])
    assert [domain.name for domain in found] == ["good"]
    assert [line.split(":")[0] for line in left_out] == ["short", "torn", "wrong"]
    assert "4 frames with a usable box, 5 are needed" in left_out[0] and "cannot be read" in left_out[1]
    assert "'ten' is not a number" in left_out[2]


def test_a_frame_that_cannot_be_read_is_remembered(tmp_path: Path) -> None:
    folder = video_folders(tmp_path, ("clip",)) / "clip/img"
    (folder / "0004.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "0007.jpg").unlink()
    (folder / "0007.jpg").symlink_to("nowhere.jpg")
    ((found,), _) = read_domains([tmp_path])
    assert [found.frame(i) is None for i in range(10)] == [i in (3, 6) for i in range(10)]
    assert {path.name for path in found.unreadable} == {"0004.jpg", "0007.jpg"}


def test_there_has_to_be_a_domain(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder: give sequences"):
        read_domains([tmp_path / "missing"])
    with pytest.raises(InputError, match=r"no usable annotated sequence in .*: give sequences"):
        read_domains([tmp_path])
    add_images(tmp_path / "clip/img")
    (tmp_path / "clip/groundtruth_rect.txt").write_text("")
    with pytest.raises(InputError, match=r"no usable annotated sequence .*groundtruth_rect.txt is empty"):
        read_domains([tmp_path])


@pytest.mark.parametrize("frames", [5, 6, 23])
def test_every_fifth_frame_is_held_back(frames: int) -> None:
    domain = PaintedDomain(frames=frames)
    trained, held_back = set(training_frames(domain)), set(held_back_frames(domain))
    assert not trained & held_back and trained | held_back == set(range(frames))
    assert len(held_back) == frames // 5
