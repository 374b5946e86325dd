"""The embedded demo clip: complete, drawn by its generator, and as hard as it says."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fdn_triton.demo import clip_path, generate

IMAGES = sorted((clip_path() / "img").glob("*.jpg"))
BOXES_XYWH = np.loadtxt(clip_path() / "groundtruth_rect.txt", delimiter=",") - (1, 1, 0, 0)  # 0-based


@cache
def scene() -> generate.Scene:
    return generate.Scene()


def committed(index: int) -> NDArray[np.float64]:
    bgr = cv2.imread(str(IMAGES[index]), cv2.IMREAD_COLOR)
    assert bgr is not None
    return bgr[..., ::-1].astype(np.float64)


def owl_pixels(index: int, *, birch: bool) -> NDArray[np.bool_]:
    """[240, 320], where the rendering with the owl differs from the one without (the noise is the same)."""
    with_owl = scene().render(index, birch=birch).astype(int)
    without = scene().render(index, owl=False, birch=birch).astype(int)
    return np.abs(with_owl - without).max(axis=2) > 12


def hidden_share(index: int) -> float:
    return 1 - owl_pixels(index, birch=True).sum() / owl_pixels(index, birch=False).sum()


def test_the_clip_is_complete_and_small() -> None:
    assert len(IMAGES) >= 60
    assert [image.name for image in IMAGES] == [f"{n:04d}.jpg" for n in range(1, len(IMAGES) + 1)]
    assert BOXES_XYWH.shape == (len(IMAGES), 4)
    files = [file for file in clip_path().rglob("*") if file.is_file()]
    assert len(files) == len(IMAGES) + 1
    assert sum(file.stat().st_size for file in files) <= 2e6
    assert {committed(index).shape for index in range(len(IMAGES))} == {(240, 320, 3)}


def test_every_box_lies_inside_the_frame() -> None:
    assert (BOXES_XYWH[:, 2:] > 20).all()
    assert (BOXES_XYWH[:, :2] >= 0).all()
    assert (BOXES_XYWH[:, :2] + BOXES_XYWH[:, 2:] <= (320, 240)).all()


@pytest.mark.parametrize("index", [0, 30, 36, 60, 79])
def test_the_committed_frames_are_what_the_generator_draws(index: int) -> None:
    difference = np.abs(committed(index) - scene().render(index))
    assert difference.mean() < 4


def test_the_committed_boxes_are_the_generators() -> None:
    boxes_xywh = np.array([generate.box_at(index) for index in range(len(BOXES_XYWH))])
    np.testing.assert_allclose(BOXES_XYWH, boxes_xywh, rtol=0, atol=0.06)


@pytest.mark.parametrize("index", [3, 28, 50, 79])
def test_the_box_bounds_the_pixels_of_the_owl(index: int) -> None:
    mask = owl_pixels(index, birch=False).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    x, y, w, h, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))].tolist()
    assert count > 1
    bx, by, bw, bh = generate.box_at(index)
    # Whole pixels against an exact outline, and up to half of the motion of one frame is blurred in.
    np.testing.assert_allclose((x, y, x + w, y + h), (bx, by, bx + bw, by + bh), rtol=0, atol=2.5)


def test_rendering_is_deterministic_and_depends_on_the_seed() -> None:
    first, again, other = (list(generate.render_clip(3, seed)) for seed in (5, 5, 6))
    for (image, box), (image_again, box_again), (image_other, box_other) in zip(first, again, other, strict=True):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, image_again)
        assert box == box_again == box_other
        assert np.abs(image.astype(int) - image_other.astype(int)).mean() > 4


def test_a_longer_clip_runs_the_path_backwards() -> None:
    assert generate.box_at(79 + 12) == pytest.approx(generate.box_at(79 - 12))
    assert generate.light_at(79 + 18) == pytest.approx(generate.light_at(79 - 18)) == pytest.approx(0.55)
    assert generate.box_at(2 * 79 + 3) == pytest.approx(generate.box_at(3))


def test_the_owl_changes_its_size_and_turns() -> None:
    areas = BOXES_XYWH[:, 2:].prod(axis=1)
    assert areas.max() / areas.min() > 2.5
    angles = [generate.pose_at(index).angle for index in range(len(BOXES_XYWH))]
    assert min(angles) < -10 and max(angles) > 10


def test_the_owl_moves_quickly_at_times_and_slowly_at_others() -> None:
    steps = np.linalg.norm(np.diff(BOXES_XYWH[:, :2] + BOXES_XYWH[:, 2:] / 2, axis=0), axis=1)
    assert 8 < steps.max() < 14
    assert steps.min() < 2.5


def test_the_light_drops_in_the_target_and_comes_back() -> None:
    def brightness(index: int) -> float:
        x, y, w, h = BOXES_XYWH[index].round().astype(int)
        return float(committed(index)[y : y + h, x : x + w].mean())

    first, last = generate.SHADOW_FRAMES
    dark = min(brightness(index) for index in range(first, last + 1))
    assert dark < 0.65 * brightness(first)
    assert dark < 0.65 * brightness(last)


def test_the_birch_hides_up_to_half_of_the_owl_for_some_frames() -> None:
    middle = generate.OCCLUSION_FRAME
    shares = [hidden_share(index) for index in range(middle - 6, middle + 7)]
    assert shares[0] < 0.03 and shares[-1] < 0.03
    assert 0.4 < max(shares) < 0.6
    assert 5 <= sum(share > 0.08 for share in shares) <= 10


@pytest.mark.parametrize("index", [10, 40, 70])
def test_the_background_moves(index: int) -> None:
    """A strip of the fence and the path, found again five frames later, has moved as the camera says."""
    before, after = (committed(i).astype(np.uint8) for i in (index, index + 5))
    now, later = generate.pose_at(index), generate.pose_at(index + 5)
    template = before[190:230, 110:210]
    _, _, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(after, template, cv2.TM_CCOEFF_NORMED))
    shift = np.array((x - 110, y - 190))
    assert np.linalg.norm(shift) > 4
    expected = now.camera_x - later.camera_x, now.camera_y - later.camera_y
    np.testing.assert_allclose(shift, expected, rtol=0, atol=1.5)


def test_the_command_writes_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = [(scene().render(index), generate.box_at(index)) for index in range(2)]
    monkeypatch.setattr(generate, "render_clip", lambda frames, seed: iter(drawn))
    assert generate.main(["--out", str(tmp_path / "clip")]) == 0
    assert str(tmp_path / "clip") in capsys.readouterr().out
    assert sorted(image.name for image in (tmp_path / "clip" / "img").iterdir()) == ["0001.jpg", "0002.jpg"]
    rows = np.loadtxt(tmp_path / "clip" / "groundtruth_rect.txt", delimiter=",")
    np.testing.assert_allclose(rows, BOXES_XYWH[:2] + (1, 1, 0, 0))
    # The JPEG writer may differ between builds of OpenCV; the picture may not.
    written = cv2.imread(str(tmp_path / "clip" / "img" / "0001.jpg"), cv2.IMREAD_COLOR)
    assert written is not None
    assert np.abs(written[..., ::-1].astype(float) - committed(0)).mean() < 2


def test_the_generator_needs_only_numpy_and_opencv() -> None:
    allowed = {"cv2", "numpy", "fdn_triton", *sys.stdlib_module_names}
    for file in set(clip_path().parent.glob("*.py")) - {clip_path().parent / "__main__.py"}:  # which tracks
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed
                if (node.module or "").startswith("fdn_triton"):
                    assert node.module == "fdn_triton.demo"
