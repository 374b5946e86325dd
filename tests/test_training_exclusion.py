"""Test videos are refused by name and by content, others are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_training import video_folders

from fdn_triton.errors import InputError
from fdn_triton.evaluation.attributes import OTB_ATTRIBUTES
from fdn_triton.training.domains import VideoDomain, read_domains
from fdn_triton.training.exclusion import refuse_test_videos

DATA = Path(__file__).resolve().parents[2] / "shared/data"


def named(*names: str) -> list[VideoDomain]:
    return [VideoDomain(name, (), np.empty((0, 4))) for name in names]


def copied(video: VideoDomain, folder: Path, *, scale: float, quality: int, frames: slice = slice(None)) -> VideoDomain:
    """Re-encoded at another size and quality, under another name."""
    folder.mkdir(parents=True)
    images = []
    for i, path in enumerate(video.images[frames]):
        image = cv2.resize(cv2.imread(str(path)), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        images.append(folder / f"frame{i}.jpg")
        cv2.imwrite(str(images[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return VideoDomain(folder.name, tuple(images), video.boxes_xywh[frames] * scale)


@pytest.mark.parametrize(
    "name",
    [*OTB_ATTRIBUTES, "deer", "jogging", "Jogging.1", "Jogging_2", "Skating2.2", "Skating2", "Human4.2", "otb_Deer"]
    + ["OTB100-Bolt2", "vot2015_bolt2", "TLD_david", "votlt_skiing", "VOT-LT2018_DragonBaby"],
)
def test_otb_s_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"the training set has 1 videos to be tested on: .* \(named like OTB's\)"):
        refuse_test_videos(named("one", name), "otb")


def test_other_names_are_not(tmp_path: Path) -> None:
    """LaSOT's have numbers behind the class, and some classes are names of OTB's."""
    names = named("bird-1", "deer-4", "car-1", "basketball-11", "GOT-10k_Train_000001", "tlp_Bike", "bag", "ball1.2")
    names += named("TLD_pedestrian2", "votlt_yamaha")
    refuse_test_videos(names, "otb")


def test_all_that_are_refused_are_named() -> None:
    with pytest.raises(InputError, match=r"has 2 videos .*: Deer \(.*\), Bolt2 \(.*\): take them out, or rename"):
        refuse_test_videos(named("Deer", "owl", "Bolt2"), "otb")


def test_for_vot_it_is_vot_s_names() -> None:
    refuse_test_videos(named("Deer", "Skiing", "Bird2"), "vot")
    for name in ("bag", "vot2015_bag", "vot2014_ball", "Bolt2", "MotorRolling", "BlurCar1"):
        with pytest.raises(InputError, match="named like VOT's"):
            refuse_test_videos(named(name), "vot")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VideoDomain]]:
    folder = video_folders(tmp_path_factory.mktemp("clips"), ("early", "late"), frames=12)
    return folder, read_domains([folder])[0]


def test_content_is_refused_whatever_it_is_called(clips: tuple[Path, list[VideoDomain]], tmp_path: Path) -> None:
    folder, (early, _) = clips
    copy = copied(early, tmp_path / "another_name", scale=0.6, quality=30)
    refuse_test_videos([copy], "otb")
    compared = []
    with pytest.raises(InputError, match=r"another_name \(shows what early does\)"):
        refuse_test_videos([copy], "otb", [folder], lambda: compared.append(1))
    assert len(compared) == 2, "each video of the folder"
    part = copied(early, tmp_path / "part", scale=1.5, quality=60, frames=slice(5, 10))
    with pytest.raises(InputError, match="part"):
        refuse_test_videos([part], "otb", [folder])


def test_what_cannot_be_compared_is_said(clips: tuple[Path, list[VideoDomain]], tmp_path: Path) -> None:
    _, (early, _) = clips
    folder = video_folders(tmp_path / "excluded", ("whole", "wrong"))
    (folder / "wrong/groundtruth_rect.txt").write_text("10,ten,20,20\n")
    (said,) = refuse_test_videos(named("one"), "otb", [folder])
    assert said.startswith("wrong: ") and "'ten' is not a number" in said
    assert refuse_test_videos([early], "otb") == []


def test_plain_frames_are_nothing_to_compare(tmp_path: Path) -> None:
    videos = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        images = [tmp_path / name / f"{i}.png" for i in range(6)]
        for path in images:
            cv2.imwrite(str(path), np.full((40, 60, 3), 17, np.uint8))
        np.savetxt(tmp_path / name / "groundtruth.txt", np.tile([10.0, 10, 20, 20], (6, 1)), "%g", ",")
        videos.append(VideoDomain(name, tuple(images), np.zeros((6, 4))))
    refuse_test_videos(videos[:1], "otb", [tmp_path / "two"])


def test_a_missing_folder_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        refuse_test_videos(named("one"), "otb", [tmp_path / "missing"])


@pytest.mark.skipif(not (DATA / "otb").is_dir(), reason="needs ../shared/data")
def test_real_videos(tmp_path: Path) -> None:
    """None of the training videos is refused; every test video is, at half its size."""
    train, tested = read_domains([DATA / "train"])[0], read_domains([DATA / "otb"])[0]
    assert len(train) > 20 and len(tested) == 13
    thinned = tmp_path / "otb"  # every third frame, to be quick; the copies are of those
    for video in tested:
        chosen = slice(0, None, 3 * (1 + len(video) // 200))
        (thinned / f"_{video.name}").mkdir(parents=True)
        for path in video.images[chosen]:
            (thinned / f"_{video.name}" / path.name).symlink_to(path)
        np.savetxt(thinned / f"_{video.name}/groundtruth.txt", video.boxes_xywh[chosen], "%g", ",")
    refuse_test_videos(train, "otb", [thinned])
    copies = [
        copied(video, tmp_path / f"copy{i}", scale=0.5, quality=50, frames=slice(0, None, 3 * (1 + len(video) // 200)))
        for i, video in enumerate(tested)
    ]
    with pytest.raises(InputError, match="has 13 videos to be tested on") as refusal:
        refuse_test_videos(copies, "otb", [thinned])
    assert all(f"copy{i} (shows what _{video.name} does)" in str(refusal.value) for i, video in enumerate(tested))
