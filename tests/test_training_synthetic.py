"""Domains of still images: repeatable, different from each other, boxes tight around what moves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_training import bounding_box

from fdn_triton.errors import InputError
from fdn_triton.training import synthetic
from fdn_triton.training.synthetic import synthetic_domains

LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plain ones, so dark or bright that no light makes one look like another."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, bgr in {"dark": (10, 20, 25), "grey": (110, 110, 110), "bright": (230, 255, 250)}.items():
        cv2.imwrite(str(folder / f"{name}.png"), np.full((300, 400, 3), bgr, np.uint8))
    return folder


def test_boxes_are_tight_around_what_is_drawn(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_COVERED_SHARE", 0.0)
    monkeypatch.setattr(synthetic, "_CROWDED_SHARE", 0.0)
    widths, centers = [], []
    for domain in synthetic_domains(photographs, 12, 0):
        for number in (0, 13, 29):
            image, box = domain.frame(number)
            grey = image @ LUMA
            x, y, w, h = box
            assert 0 <= x < x + w <= image.shape[1] and 0 <= y < y + h <= image.shape[0]
            ground = np.median([grey[0, 0], grey[0, -1], grey[-1, 0], grey[-1, -1]])
            patch = grey[int(y + h / 2), int(x + w / 2)]
            drawn = tuple(bounding_box(abs(grey - ground) > abs(patch - ground) / 2))
            np.testing.assert_allclose(drawn, box, atol=4, err_msg=f"{domain.name}, frame {number}")
            widths.append(w)
            centers.append(x + w / 2)
    assert np.std(widths) > 15 and np.std(centers) > 30, "targets differ, and move"


def test_a_domain_is_a_function_of_its_seed(photographs: Path) -> None:
    one, other = synthetic_domains(photographs, 2, 5)
    (again,) = synthetic_domains(photographs, 1, 5)
    assert one.name != other.name and len(one) >= 10
    later = again.frame(7)
    for i in (3, 7):
        image, box = one.frame(i)
        assert image.dtype == np.uint8 and image.ndim == 3
        assert not np.array_equal(image, other.frame(i)[0])
    assert np.array_equal(image, later[0]) and np.array_equal(box, later[1]), "the order of the frames does not count"
    assert not np.array_equal(synthetic_domains(photographs, 1, 6)[0].frame(7)[0], image)


def test_covered_targets_keep_their_box(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, boxes = [], []
    for share in (0.0, 1.0):
        monkeypatch.setattr(synthetic, "_COVERED_SHARE", share)
        frames = [domain.frame(i) for domain in synthetic_domains(photographs, 4, 1) for i in range(0, 40, 10)]
        images.append(np.stack([image for image, _ in frames]))
        boxes.append(np.stack([box for _, box in frames]))
    np.testing.assert_array_equal(*boxes)
    assert (images[0] != images[1]).any(axis=(1, 2, 3)).mean() > 0.5


def test_damaged_photographs_are_passed_over(photographs: Path, tmp_path: Path) -> None:
    for i, name in enumerate(["dark", "grey", "bright"]):
        (tmp_path / f"{2 * i}.png").write_bytes((photographs / f"{name}.png").read_bytes())
        (tmp_path / f"{2 * i + 1}.png").write_bytes(b"damaged")
    assert all(domain.frame(0) is not None for domain in synthetic_domains(tmp_path, 6, 0))
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert synthetic_domains(tmp_path, 1, 0)[0].frame(0) is None


def test_photographs_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 0 images: give a folder of photographs"):
        synthetic_domains(tmp_path, 3, 0)


def test_crowded_targets_have_their_like_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph with a red half, here the target's: the box is of it alone, and green is beside it."""
    halves = np.full((200, 600, 3), (20, 20, 230), np.uint8)
    halves[:, 300:] = (20, 230, 20)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), halves)
    monkeypatch.setattr(synthetic, "_COVERED_SHARE", 0.0)
    monkeypatch.setattr(synthetic, "_halves", lambda rng, image: (image[:, :300], image[:, 300:]))
    monkeypatch.setattr(cv2, "GaussianBlur", lambda image, *_: image)
    beside = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(synthetic, "_CROWDED_SHARE", share)
        for domain in synthetic_domains(tmp_path, 12, 0):
            scene = domain._scene
            assert len(scene._neighbours) in (range(1, 5) if share else [0])
            frame, box = scene.draw(np.full((360, 480, 3), 120, np.uint8), 0.3)
            if scene._grey:
                continue
            red, green = (frame[:, :, c].astype(int) - frame[:, :, 1 - c] > 60 for c in (0, 1))
            if share:
                assert red.any()
                near = np.array(tuple(bounding_box(red))) - box
                assert abs(near).max() < 6, f"{domain.name}: the box is of the target alone"
                beside.append(green.any())
    assert len(beside) > 6 and np.mean(beside) > 0.8


def test_halves_share_nothing() -> None:
    rng, first = np.random.default_rng(0), set()
    for height, width in ((40, 90), (90, 40), (7, 7), (1, 5)):
        image = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3)
        for _ in range(8):
            one, other = synthetic._halves(rng, image)
            assert not set(one.flat) & set(other.flat) and one.size + other.size == image.size
            assert min(one.shape) > 0 and min(other.shape) > 0
            assert one.shape[int(width <= height)] == image.shape[int(width <= height)], "cut across the longer side"
            first.add((height, bool(one.flat[0] == 0)))
    assert len(first) == 8, "either half is the target's"


def test_neighbours_keep_near(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_CROWDED_SHARE", 1.0)
    for domain in synthetic_domains(photographs, 10, 2):
        for neighbour in domain._scene._neighbours:
            distances = [float(np.hypot(*neighbour.offset(moment))) for moment in np.linspace(0, 1, 20)]
            assert min(distances) > 0.2 and max(distances) < 2.6, "sizes of the target"
