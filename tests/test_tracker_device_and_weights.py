"""The device and the weights that a tracker takes, and that CPU and GPU agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from moving_patch import SMALL, boxes_of, follow, tracker_of, truths, weights

from fdn_triton.config import TrackerConfig
from fdn_triton.device import choose_device
from fdn_triton.errors import InputError
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.tracker import Tracker

# Device


def test_choosing_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match=r"^unknown device 'meta'"):
        choose_device(torch.device("meta"))
    for name in ("tpu", "", "mps", "cuda:x", "gpu 0"):
        with pytest.raises(InputError, match=f"^unknown device '{name}': choose auto, cpu, cuda or cuda:N$"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:99"):
        with pytest.raises(InputError, match=f"device '{name}' asked for, but torch .* sees no GPU: use --device cpu"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"^device 'cuda:99' asked for, but the last GPU is cuda:1$"):
        choose_device("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree() -> None:
    """They draw the same numbers: fp16 convolutions are the difference (on a CPU 0.97 over these frames)."""
    config = TrackerConfig.from_preset("paper", **{**SMALL, "short_side": 240})
    on_cpu, on_gpu = (follow(Tracker(config, weights=weights(), device=device), 16) for device in ("cpu", "cuda"))
    assert overlaps(boxes_of(on_gpu), truths(16)).mean() > 0.85
    assert overlaps(boxes_of(on_cpu), boxes_of(on_gpu)).mean() > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_repeats_bit_for_bit() -> None:
    config = TrackerConfig.from_preset("paper", **SMALL)
    first, second = (boxes_of(follow(Tracker(config, weights=weights(), device="cuda"), 8)) for _ in range(2))
    assert np.array_equal(first, second)


# Weights


def test_default_weights_are_the_shipped_ones() -> None:
    tracker = Tracker(TrackerConfig.from_preset("paper", **SMALL), device="cpu")
    assert tracker.weights.name == "fdn" and "fc5.weight" in tracker.weights.tensors


def test_loaded_weights_must_be_of_the_network() -> None:
    with pytest.raises(InputError, match=r"unexpected 'conv4\.bias'"):
        Tracker(weights=weights(5), device="cpu")
    with pytest.raises(InputError, match=r"missing conv4\.weight"):
        Tracker(TrackerConfig.from_preset("paper", conv_layers=5), weights=weights(3), device="cpu")
    fc4 = {"fc4.weight": torch.zeros(512, 4608), "fc4.bias": torch.zeros(512)}
    half = dataclasses.replace(weights(), tensors={**weights().tensors, **fc4})
    with pytest.raises(InputError, match=r"missing fc5\.weight, fc5\.bias"):
        Tracker(weights=half, device="cpu")


def test_auto_takes_the_samples_that_the_weights_were_trained_with() -> None:
    trained = dataclasses.replace(weights(), sampling_ratio=3, roi_grid="interior")
    config = TrackerConfig.from_preset("paper", **SMALL)
    auto = Tracker(config, weights=trained, device="cpu")
    assert (auto.config.network.sampling_ratio, auto.config.network.roi_grid) == (3, "interior")
    plain = tracker_of()
    assert (plain.config.network.sampling_ratio, plain.config.network.roi_grid) == (2, "midpoint")
    explicit = tracker_of(sampling_ratio=3, roi_grid="interior")
    assert np.array_equal(boxes_of(follow(auto, 3)), boxes_of(follow(explicit, 3)))
    told = Tracker(TrackerConfig.from_preset("paper", **SMALL, sampling_ratio=2), weights=trained, device="cpu")
    assert told.config.network.sampling_ratio == 2
