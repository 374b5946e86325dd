"""Labelled images: class folders and archives of them, what is damaged, what is held back."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_training import class_folders

from fdn_triton.errors import InputError
from fdn_triton.training.images import LabelledImages, read_labelled_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("images") / "set/train").parent


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
        archive.writestr("__MACOSX/train/._x.jpg", b"resource fork")
    return path


def test_a_folder_and_its_archive_are_the_same(folder: Path, tmp_path: Path) -> None:
    done = []
    images = read_labelled_images(folder, 24, lambda i, n: done.append((i, n)))
    assert images.classes == ("blue", "green", "red") and images.unreadable == ()
    assert images.labels.tolist() == [0] * 25 + [1] * 25 + [2] * 25
    assert done == [(i, 75) for i in range(1, 76)]
    for label, channel in ((0, 2), (1, 1), (2, 0)):
        means = images.pixels[images.labels == label].float().mean(dim=(0, 2, 3))
        assert int(means.argmax()) == channel, "RGB"
    other = read_labelled_images(zipped(folder, tmp_path / "set.zip"), 24)
    assert torch.equal(images.pixels, other.pixels) and torch.equal(images.labels, other.labels)
    assert other.classes == images.classes


def test_the_middle_of_an_image_is_taken(tmp_path: Path) -> None:
    for name, axis in (("wide", 1), ("high", 0)):
        (tmp_path / name).mkdir()
        parts = [np.full((60, 60, 3), grey, np.uint8) for grey in (0, 200, 0)]
        for i in range(25):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), np.concatenate(parts, axis=axis))
    images = read_labelled_images(tmp_path, 20)
    assert images.pixels.shape == (50, 3, 20, 20)
    assert bool((images.pixels[:, :, 2:-2, 2:-2] == 200).all())


def test_damaged_images_are_left_out_and_named(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", each=26)
    whole = (folder / "red/images/00.jpg").read_bytes()
    (folder / "red/images/00.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "blue/images/01.jpg").write_bytes(b"")
    (folder / "blue/images/02.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not an image by its name: not counted")
    images = read_labelled_images(folder, 24)
    assert images.unreadable == ("blue/images/01.jpg", "blue/images/02.jpg", "red/images/00.jpg")
    assert torch.bincount(images.labels).tolist() == [24, 26, 25] and len(images.pixels) == 75


def test_a_damaged_member_of_an_archive_is_left_out(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "set.zip")
    content = bytearray(path.read_bytes())
    start = content.find(b"green/images/07.jpg") + len("green/images/07.jpg")
    content[start + 20 : start + 60] = bytes(40)  # its checksum no longer holds
    path.write_bytes(content)
    assert read_labelled_images(path, 24).unreadable == ("set/train/green/images/07.jpg",)


def test_every_25th_image_is_held_back() -> None:
    labels = torch.arange(100) % 2
    images = LabelledImages(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), labels, ("a", "b"), ())
    train, held_back = images.split()
    assert torch.bincount(held_back.labels).tolist() == [2, 2] and len(train.labels) == 96
    together = torch.cat((train.pixels, held_back.pixels)).flatten().sort().values
    assert torch.equal(together, torch.arange(100, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is neither a folder nor a zip archive"),
        (lambda path: path.mkdir(), "fewer than two folders with images"),
        (lambda path: class_folders(path / "x", 2), "has 6 readable images"),
        (lambda path: path.write_bytes(b"PK\x05\x06" + bytes(10) + b"\xff" * 8), "cannot be read"),
    ],
    ids=["nothing", "empty", "few", "damaged zip"],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        read_labelled_images(tmp_path / "set", 24)


def test_one_readable_class_is_not_enough(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    for file in (*folder.glob("red/images/*"), *folder.glob("green/images/*")):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no images of two classes can be read, of 75"):
        read_labelled_images(folder, 24)
