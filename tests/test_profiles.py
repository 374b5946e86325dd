"""Curves by the rules of each toolkit: the real got10k, published numbers, each rule on cases worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fdn_triton.errors import InputError
from fdn_triton.evaluation.otb import open_dataset
from fdn_triton.evaluation.profiles import PROFILES, Curves, curves
from fdn_triton.evaluation.published import find_trackers, read_results

DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAN = (np.nan,) * 4
SQUARE = (100.0, 50.0, 40.0, 40.0)
FAR = (500.0, 500.0, 40.0, 40.0)

# Precision at 20 pixels and AUC, the means over the 13 sequences; the first result set to the ground truth.
PUBLISHED = {
    "MDNet": (0.977, 0.694),
    "ATOM": (0.939, 0.697),
    "SiamRPN++": (0.954, 0.684),
    "C-COT": (0.911, 0.633),
    "SiamFC": (0.763, 0.566),
    "CSRDCF": (0.754, 0.561),
    "Staple": (0.745, 0.557),
    "SRDCF": (0.670, 0.512),
    "MEEM": (0.819, 0.506),
    "Struck": (0.539, 0.383),
    "KCF": (0.468, 0.344),
    "TLD": (0.419, 0.293),
}


def rows(*boxes: tuple[float, ...]) -> NDArray[np.float64]:
    """0-based, as the package has them."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def one_based(*boxes: tuple[float, ...]) -> NDArray[np.float64]:
    return rows(*boxes) - (1, 1, 0, 0)


def shares(score: Curves) -> tuple[float, float, float]:
    """At the smallest thresholds, which only an exact or an uncounted frame passes."""
    return score.precision[0], score.success[0], score.norm_precision[0]


@pytest.fixture(scope="module")
def truth() -> dict[str, NDArray[np.float64]]:
    if not (DATA / "otb_results").is_dir() or not (DATA / "otb").is_dir():
        pytest.skip(f"no published results in {DATA}")
    boxes = {}
    for entry in open_dataset(DATA / "otb"):
        annotation = entry.open().ground_truth
        assert annotation is not None
        boxes[entry.name] = annotation[0]
    assert len(boxes) == 13
    return boxes


def scored(tracker: str, truth: dict[str, NDArray[np.float64]], profile: str) -> dict[str, Curves]:
    files = find_trackers(DATA / "otb_results")[tracker]
    return {name: curves(read_results(files[name]), boxes, PROFILES[profile]) for name, boxes in truth.items()}


@pytest.mark.parametrize("profile", ["otb", "got10k"])
@pytest.mark.parametrize("tracker", PUBLISHED)
def test_published_boxes_have_their_known_accuracy(
    tracker: str, profile: str, truth: dict[str, NDArray[np.float64]]
) -> None:
    mean = Curves.mean(list(scored(tracker, truth, profile).values()))
    assert (round(mean.precision_20, 3), round(mean.auc, 3)) == PUBLISHED[tracker]
    assert mean.frames == 2509


def test_the_real_got10k_gives_the_same_numbers(
    truth: dict[str, NDArray[np.float64]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    otb = pytest.importorskip("got10k.experiments.otb", reason="got10k==0.1.3 and six are not installed")

    class Dataset:
        """In place of got10k's own, which would download what is missing of OTB."""

        seq_names = tuple(truth)

        def __len__(self) -> int:
            return len(truth)

        def __iter__(self):  # type: ignore[no-untyped-def]
            for name in truth:
                text = (DATA / "otb" / name / "groundtruth_rect.txt").read_text()
                yield [], np.array([line.replace(",", " ").split() for line in text.splitlines()], dtype=float)

    experiment = otb.ExperimentOTB.__new__(otb.ExperimentOTB)
    vars(experiment).update(
        dataset=Dataset(), result_dir=str(DATA / "otb_results"), report_dir=str(tmp_path), nbins_iou=21, nbins_ce=51
    )
    monkeypatch.setattr(experiment, "plot_curves", lambda names: None)
    experiment.report(list(PUBLISHED))
    theirs = json.loads((tmp_path / "MDNet" / "performance.json").read_text())

    assert set(theirs) == set(PUBLISHED)
    for tracker, performance in theirs.items():
        ours = scored(tracker, truth, "got10k")
        assert set(performance["seq_wise"]) == set(ours)
        for score, expected in [
            (Curves.mean(list(ours.values())), performance["overall"]),
            *((ours[name], performance["seq_wise"][name]) for name in ours),
        ]:
            np.testing.assert_allclose(score.success, expected["success_curve"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(score.precision, expected["precision_curve"], rtol=0, atol=1e-6)
            assert score.auc == pytest.approx(expected["success_score"], abs=1e-6)
            assert score.precision_20 == pytest.approx(expected["precision_score"], abs=1e-6)


def test_the_real_got10k_treats_broken_boxes_the_same() -> None:
    otb = pytest.importorskip("got10k.experiments.otb", reason="got10k==0.1.3 and six are not installed")
    experiment = otb.ExperimentOTB.__new__(otb.ExperimentOTB)
    experiment.nbins_iou, experiment.nbins_ce = 21, 51
    random = np.random.default_rng(0)
    for _ in range(50):
        truth = np.hstack([random.integers(-8, 60, (40, 2)), random.integers(0, 40, (40, 2))]).astype(float)
        boxes = truth + random.integers(-8, 9, (40, 4))
        for broken in (truth, boxes):
            broken[random.random(40) < 0.1] = np.nan
            broken[random.random((40, 4)) < 0.03] = np.nan
            broken[random.random(40) < 0.1] = 0
        first_is_truth = np.vstack([truth[:1], boxes[1:]])
        success, precision = experiment._calc_curves(*experiment._calc_metrics(first_is_truth, truth))
        score = curves(boxes, truth, PROFILES["got10k"])
        np.testing.assert_allclose(score.success, success, rtol=0, atol=1e-6)
        np.testing.assert_allclose(score.precision, precision, rtol=0, atol=1e-6)


def test_each_curve_on_known_offsets() -> None:
    truth = rows(SQUARE, SQUARE, (100.0, 50.0, 32.0, 64.0), SQUARE)
    boxes = rows(
        SQUARE,
        (120.0, 50.0, 40.0, 40.0),  # 20 px aside, half a width; 800 / 2400 in common
        (108.0, 50.0, 32.0, 64.0),  # 8 px, a quarter of the width; 24 / 40
        (100.0, 50.5, 40.0, 40.0),  # half a pixel, 0.0125 of the height; 39.5 / 40.5
    )
    score = curves(boxes, truth, PROFILES["pysot"])
    expected = np.full(51, 0.5)  # SQUARE itself and the last
    expected[0] = 0.25
    expected[8:] = 0.75
    expected[20:] = 1
    np.testing.assert_array_equal(score.precision, expected)
    expected = np.full(51, 0.5)
    expected[:2] = 0.25
    expected[25:] = 0.75
    expected[50] = 1
    np.testing.assert_array_equal(score.norm_precision, expected)
    # Greater than 0 ... 0.30; 0 ... 0.55, for 0.6 is not greater than itself; 0 ... 0.95; 0 ... 0.95.
    expected = np.ones(21)
    expected[7:] = 0.75
    expected[12:] = 0.5
    expected[20] = 0
    np.testing.assert_array_equal(score.success, expected)
    assert score.precision_20 == 1 and score.norm_precision_score == 0.5 and score.frames == 4
    assert score.auc == pytest.approx((7 + 5 * 0.75 + 8 * 0.5) / 21)


@pytest.mark.parametrize(("profile", "expected"), [("otb", 1.0), ("got10k", 1.0), ("pysot", 0.5)])
def test_the_first_result_is_set_to_the_ground_truth(profile: str, expected: float) -> None:
    score = curves(rows(FAR, SQUARE), rows(SQUARE, SQUARE), PROFILES[profile])
    assert shares(score) == (expected, expected, expected)


# The ground truth of the second of two frames, and what its frame counts as: precise, a success, precise where the
# error is normalised. The result is the same box, or far from it.
EXACT_AND_FAR = {
    "nan": (one_based(NAN), {"otb": "1-1 1-1", "got10k": "--- ---", "pysot": "1-1 1-1"}),
    "one number missing": (
        one_based((30.0, np.nan, 40.0, 40.0)),
        {"otb": "1-1 1-1", "got10k": "--- ---", "pysot": "1-1 1-1"},
    ),
    "all zero": (one_based((0.0, 0.0, 0.0, 0.0)), {"otb": "1-1 1-1", "got10k": "1-1 ---", "pysot": "1-1 1-1"}),
    "no width": (one_based((30.0, 30.0, 0.0, 40.0)), {"otb": "1-1 1-1", "got10k": "1-1 ---", "pysot": "1-1 ---"}),
    "beyond the left border": (
        one_based((0.0, 30.0, 40.0, 40.0)),
        {"otb": "1-1 1-1", "got10k": "111 ---", "pysot": "1-1 ---"},
    ),
    "at the left border": (
        one_based((0.25, 30.0, 40.0, 40.0)),
        {"otb": "111 ---", "got10k": "111 ---", "pysot": "111 ---"},
    ),
    "centre beyond the left border": (
        one_based((-20.0, 30.0, 40.0, 40.0)),
        {"otb": "1-1 1-1", "got10k": "111 ---", "pysot": "1-1 1-1"},
    ),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", EXACT_AND_FAR)
def test_frames_whose_ground_truth_is_not_valid(case: str, profile: str) -> None:
    truth, expected = EXACT_AND_FAR[case]
    counted = []
    for box in (truth[0], np.array(FAR)):
        score = curves(np.vstack([rows(SQUARE), box]), np.vstack([rows(SQUARE), truth]), PROFILES[profile])
        counted.append("".join("1" if share == 1 else "-" if share == 0.5 else "?" for share in shares(score)))
    assert " ".join(counted) == expected[profile]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("lost", [NAN, (np.nan, 50.0, 40.0, 40.0), (100.0, 50.0, np.nan, 40.0)])
def test_results_with_nan_fail(lost: tuple[float, ...], profile: str) -> None:
    score = curves(rows(SQUARE, lost), rows(SQUARE, SQUARE), PROFILES[profile])
    assert (score.precision == 0.5).all() and (score.norm_precision == 0.5).all()
    assert (score.success[:-1] == 0.5).all() and score.success[-1] == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_results_without_area_fail_by_their_overlap_only(profile: str) -> None:
    score = curves(rows(SQUARE, (120.0, 70.0, 0.0, 0.0)), rows(SQUARE, SQUARE), PROFILES[profile])
    assert shares(score) == (1, 0.5, 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_as_many_results_as_frames(profile: str) -> None:
    with pytest.raises(InputError, match="2 results for 3 frames"):
        curves(rows(SQUARE, SQUARE), rows(SQUARE, SQUARE, SQUARE), PROFILES[profile])
    with pytest.raises(InputError, match="3 results for 2 frames"):
        curves(rows(SQUARE, SQUARE, SQUARE), rows(SQUARE, SQUARE), PROFILES[profile])
    with pytest.raises(InputError, match="0 results for 0 frames"):
        curves(rows(), rows(), PROFILES[profile])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_arguments_are_left_alone(profile: str) -> None:
    boxes, truth = rows(FAR, NAN, SQUARE), rows(SQUARE, SQUARE, NAN)
    kept = boxes.copy(), truth.copy()
    curves(boxes, truth, PROFILES[profile])
    np.testing.assert_array_equal(boxes, kept[0])
    np.testing.assert_array_equal(truth, kept[1])


def test_means_count_tracks_or_frames_the_same() -> None:
    truth = rows(*[SQUARE] * 4)
    perfect = curves(truth[:1], truth[:1], PROFILES["otb"])
    lost = curves(rows(*[FAR] * 4), truth, replace(PROFILES["otb"], first_is_truth=False))
    assert shares(lost) == (0, 0, 0)
    mean, pooled = Curves.mean([perfect, lost]), Curves.pooled([perfect, lost])
    assert shares(mean) == (0.5, 0.5, 0.5) and shares(pooled) == (0.2, 0.2, 0.2)
    assert mean.frames == pooled.frames == 5
    assert mean.auc == pytest.approx(0.5 * 20 / 21) and pooled.auc == pytest.approx(0.2 * 20 / 21)


def test_the_profiles_name_themselves() -> None:
    assert list(PROFILES) == ["otb", "got10k", "pysot"]
    assert all(profile.name == name and "\n" not in profile.about for name, profile in PROFILES.items())
    assert [PROFILES[name].omitted for name in PROFILES] == [{"Tiger1": 5}, {}, {"Tiger1": 5}]
