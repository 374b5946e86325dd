"""The tracking score: the tracker's accuracy on the first frames of videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_training import video_folders

from fdn_triton.config import NetworkConfig
from fdn_triton.training import tracking_score as module
from fdn_triton.training.domains import read_domains
from fdn_triton.training.tracking_score import tracking_score
from fdn_triton.weights import untrained_weights


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that takes its steps in milliseconds."""
    from small_otb import quick_config

    monkeypatch.setattr(module, "TrackerConfig", lambda network: replace(quick_config(), network=network))


def test_it_is_the_mean_over_the_videos(tmp_path: Path) -> None:
    videos = read_domains([video_folders(tmp_path)])[0]
    network = NetworkConfig()
    weights = untrained_weights(network)
    scores = [tracking_score(weights, [video], 4, network, "cpu") for video in videos]
    both = tracking_score(weights, videos, 4, network, "cpu")
    assert both == {name: pytest.approx(np.mean([score[name] for score in scores])) for name in ("precision", "auc")}
    assert both["precision"] >= 0.25 and both["auc"] > 0.2, "the first of four frames at least"
    assert tracking_score(weights, videos, 4, network, "cpu") == both


def test_the_first_frame_alone_is_right(tmp_path: Path) -> None:
    videos = read_domains([video_folders(tmp_path)])[0]
    network = NetworkConfig()
    score = tracking_score(untrained_weights(network), videos, 1, network, "cpu")
    assert score["precision"] == 1.0 and score["auc"] > 0.9


def test_a_frame_that_cannot_be_read_counts_with_the_box_before_it(tmp_path: Path) -> None:
    video = read_domains([video_folders(tmp_path, ("clip",))])[0][0]
    video.images[1].write_bytes(b"damaged")
    network = NetworkConfig()
    assert tracking_score(untrained_weights(network), [video], 2, network, "cpu")["precision"] == 1.0
