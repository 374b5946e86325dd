"""The benchmark beside other trackers: their features, their runs on a few frames, what the runs add up to."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_otb import QUICK, small_benchmark

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.evaluation.cropping import CroppedFeatures
from fdn_triton.kernels import roi_align_ada_max_ref
from fdn_triton.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
FAKE_CSRT = """
import cv2
class TrackerCSRT:
    def init(self, image, box):
        assert image.dtype == "uint8" and all(isinstance(value, int) for value in box)
        self.box = box
    def update(self, image):
        x, y, w, h = self.box
        self.box = x + 1, y, w, h
        return self.box[0] % 2 == 0, self.box
cv2.TrackerCSRT_create = TrackerCSRT
"""


NO_MEAN = torch.zeros(3)


@pytest.fixture(autouse=True)
def in_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of ``perf/`` can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "perf"))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    weights = load_weights("fdn", NetworkConfig())
    return Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale)


def test_a_region_is_warped_so_that_its_boxes_measure_107(backbone: Backbone) -> None:
    """On a frame that holds its coordinates the region says where it was sampled."""
    from rt_mdnet_scheme import SearchRegionFeatures

    y, x = torch.meshgrid(torch.arange(120.0) + 0.5, torch.arange(300.0) + 0.5, indexing="ij")
    features = SearchRegionFeatures(backbone, (120, 300), NO_MEAN)
    features._frame = torch.stack((x, y, torch.ones_like(x)))[None]
    (region,) = features.warped(torch.tensor([50.0, 20.0, 250.0, 100.0]), torch.tensor([50.0, 40.0]))
    assert region.shape == (3, 214, 428)
    along = torch.arange(428) + 0.5, torch.arange(214) + 0.5
    torch.testing.assert_close(region[0], (50 + along[0] * 50 / 107).expand(214, -1), rtol=0, atol=1e-2)
    torch.testing.assert_close(region[1].T, (20 + along[1] * 40 / 107).expand(428, -1), rtol=0, atol=1e-2)
    (outside,) = features.warped(torch.tensor([-50.0, 0.0, 0.0, 40.0]), torch.tensor([50.0, 40.0]))
    assert outside[:, :, :-2].abs().max() == 0, "what lies outside is the mean"


def test_features_are_those_of_the_dense_map(backbone: Backbone) -> None:
    """Boxes of 107 pixels are not scaled; the map is made of PyTorch's own layers here."""
    from rt_mdnet_scheme import SearchRegionFeatures

    image = torch.randint(0, 256, (240, 320, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean = torch.tensor([120.0, 110.0, 100.0])
    frame = (image - mean).permute(2, 0, 1)[None]
    boxes = torch.tensor([[100.0, 60, 107, 107], [140, 80, 107, 107], [100, 70, 107, 107]])
    features = SearchRegionFeatures(backbone, (240, 320), mean)
    features.begin(image)
    found = features.of_boxes(boxes)

    x1, y1, x2, y2 = 100 - 10.7, 60 - 10.7, 140 + 107 + 10.7, 80 + 107 + 10.7
    moved = F.affine_grid(torch.tensor([[[1.0, 0, 2 * 0.3 / 320], [0, 1, 2 * 0.3 / 240]]]), [1, 3, 240, 320], False)
    x = F.grid_sample(frame, moved, align_corners=False)[:, :, int(y1) : int(y1) + 148, int(x1) : int(x1) + 168]
    assert (round(x2 - x1), round(y2 - y1)) == (168, 148)
    conv1, conv2, conv3 = backbone.convolutions()
    norm = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    x = F.max_pool2d(norm(conv1(x).relu()), 3, 2, 1)
    x = norm(conv2(x).relu())
    x = F.conv2d(x, conv3.weight, conv3.bias, dilation=3, padding=3).relu() * backbone.feature_scale
    assert x.shape[2:] == (19, 21), "a cell every 8 pixels"
    rois = torch.cat((torch.zeros(3, 1), boxes[:, :2] - torch.tensor([x1, y1]), boxes[:, :2] + 107), dim=1)
    rois[:, 3:] -= torch.tensor([x1, y1])
    expected = roi_align_ada_max_ref(x, rois, 3, 1 / 8).permute(0, 2, 3, 1).reshape(3, -1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_a_region_is_convolved_once(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    from rt_mdnet_scheme import SearchRegionFeatures

    features = SearchRegionFeatures(backbone, (240, 320), NO_MEAN)
    features.begin(torch.zeros(240, 320, 3, dtype=torch.uint8))
    warped = []
    monkeypatch.setattr(features, "warped", lambda *region: warped.append(region) or torch.zeros(1, 3, 64, 64))
    candidates = torch.tensor([[[100.0, 60, 40, 40], [140, 80, 40, 40], [120, 70, 40, 40]]])
    assert features.of_boxes(candidates).shape == (1, 3, 4608)
    features.of_boxes(candidates[:, 2:])
    assert len(warped) == 1
    features.of_boxes(candidates + 30)
    assert len(warped) == 2, "outside of the first"
    features.of_boxes(candidates[:, 2:] * torch.tensor([1.0, 1, 0.5, 0.5]) + torch.tensor([30.0, 30, 0, 0]))
    assert len(warped) == 3, "of another size"
    features.begin(torch.zeros(240, 320, 3, dtype=torch.uint8))
    features.of_boxes(candidates)
    assert len(warped) == 4, "another frame"


def test_plain_layers_compute_the_same(backbone: Backbone) -> None:
    from peer_runs import by_plain_layers

    image = torch.randint(0, 256, (150, 180, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean = torch.tensor([120.0, 110.0, 100.0])
    boxes = torch.tensor([[40.0, 30, 75, 75], [10, 5, 50, 90]])
    found = []
    for pooled in ({}, {"pooled": by_plain_layers}):
        features = CroppedFeatures(backbone, (150, 180), mean, **pooled)
        features.begin(image)
        found.append(features.of_boxes(boxes))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    import peer_runs
    import peers

    quick_peers = {
        name: dataclasses.replace(peer, changes={**peer.changes, **QUICK}, frames=peer.frames and min(peer.frames, 3))
        for name, peer in peer_runs.PEERS.items()
    }
    monkeypatch.setattr(peers, "PEERS", quick_peers)


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    import peers

    monkeypatch.setattr(sys, "argv", ["peers.py", *flags])
    return peers.main()


@pytest.mark.usefixtures("quick")
def test_every_tracker_runs_and_is_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peer_runs import PEERS

    root = small_benchmark(tmp_path / "otb")
    (tmp_path / "sitecustomize.py").write_text(FAKE_CSRT)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = tmp_path / "peers.json"
    flags = ("--root", str(root), "--sequences", "Bird2", "owl", "--csrt-python", str(python))
    assert run(monkeypatch, *flags, "--json", str(path)) == 0
    found = json.loads(path.read_text())
    assert found["sequences"] == {"Bird2": 5, "owl": 4} and found["cpu"]["threads"] == torch.get_num_threads()
    rows = found["trackers"]
    assert list(rows) == list(PEERS)
    for row in rows.values():
        assert row["fps"] == pytest.approx(np.mean([each["fps"] for each in row["sequences"].values()]))
    whole = {name for name, row in rows.items() if "auc" in row}
    assert whole == {"paper", "fast", "CSRT"}, "accuracy of complete runs only"
    assert rows["RT-MDNet's scheme"]["sequences"]["Bird2"]["frames"] == 3
    assert "first_frame_s" not in rows["MDNet's crops"] and rows["CSRT"]["first_frame_s"] > 0
    ratios = {(row["of"], row["to"]): row for row in found["ratios"]}
    assert ratios["paper", "RT-MDNet's scheme"]["at_least"] == 1.5
    for ratio in ratios.values():
        assert ratio["ratio"] == pytest.approx(ratio["fps"][0] / ratio["fps"][1]) and ratio["ratio"] > 0
    assert len(found["gains"]) == 1
    assert "paper is" in capsys.readouterr().out


def test_csrt_gives_its_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box per frame, the last one again where it found nothing, and its own clock."""
    from peer_runs import PEERS, run_peer

    from fdn_triton.sequence import open_sequence

    (tmp_path / "sitecustomize.py").write_text(FAKE_CSRT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sequence = open_sequence(small_benchmark(tmp_path / "otb") / "Bird2")
    assert sequence.ground_truth is not None
    found = run_peer(PEERS["CSRT"], sequence, 0, Path(sys.executable))
    x, y, w, h = (round(value) for value in sequence.ground_truth[0, 0])
    lefts = range(x + 1, x + 5)
    expected = [list(sequence.ground_truth[0, 0])]
    expected += [[left, y, w, h] if left % 2 == 0 else None for left in lefts]
    for i in range(1, 5):
        expected[i] = expected[i] or expected[i - 1]
    np.testing.assert_allclose(found.boxes_xywh, expected)
    assert len(found.marks) == 5 and found.marks == sorted(found.marks) and found.known["threads"] >= 1


def test_passes_count_by_their_median_and_frames_that_both_have_seen(tmp_path: Path) -> None:
    from peer_runs import PEERS, Run
    from peers import _gains, _ratios, _tracker_summary

    from fdn_triton.sequence import open_sequence

    sequence = open_sequence(small_benchmark(tmp_path) / "Bird2")
    assert sequence.ground_truth is not None
    truth = sequence.ground_truth[0]
    passes = [Run(truth, first_s, [0, *(fast * np.arange(1, 5))]) for first_s, fast in ((1, 0.5), (4, 0.1), (3, 0.25))]
    found = _tracker_summary(PEERS["paper"], {"Bird2": sequence}, {"Bird2": passes})
    assert found["fps"] == pytest.approx(4) and found["first_frame_s"] == 3 and found["auc"] == pytest.approx(20 / 21)
    assert found["sequences"]["Bird2"]["fps_of_passes"] == pytest.approx([2, 10, 4])

    slow_later = Run(truth, 1, [0, 1, 2, 20, 40])
    runs = {"paper": {"Bird2": [slow_later]}, "RT-MDNet's scheme": {"Bird2": [Run(truth[:3], 1, [0, 2, 4])]}}
    (ratio,) = _ratios(runs)
    assert ratio["ratio"] == pytest.approx(2) and ratio["fps"] == pytest.approx([1, 0.5])
    (gain,) = _gains({"fast": {"auc": 0.5}, "CSRT": {"auc": 0.625}})
    assert gain == {"of": "fast", "to": "CSRT", "auc": -0.125}
    assert list(_gains({"fast": {"auc": 0.5}, "CSRT": {"fps": 1}})) == [], "complete runs only"


def test_speed_is_of_the_frames_after_the_first() -> None:
    from peer_runs import Run

    found = Run(np.zeros((4, 4)), 9.0, [100.0, 100.5, 101.0, 103.0])
    assert found.fps() == 1.0 and found.fps(3) == 2.0 and found.fps(9) == 1.0


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small_benchmark(tmp_path / "otb")
    some = ("--root", str(root), "--sequences", "Bird2", "--json", str(tmp_path / "x.json"))
    assert run(monkeypatch, *some, "--trackers", "CSRT", "--csrt-python", str(tmp_path / "no")) == 2
    assert "error: --csrt-python" in capsys.readouterr().err
    if "contrib" not in __import__("cv2").getBuildInformation():
        assert run(monkeypatch, *some, "--trackers", "CSRT", "--csrt-python", sys.executable) == 2
        assert "install opencv-contrib-python-headless there" in capsys.readouterr().err
    assert run(monkeypatch, "--root", str(tmp_path), "--sequences", "Nothing") == 2
    assert "does not exist" in capsys.readouterr().err
