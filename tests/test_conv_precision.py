"""The trunk in fp16, the way of a GPU: features and tracks are those of fp32, and of a CPU where there is a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fdn_triton import Tracker, TrackerConfig, device
from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.evaluation.metrics import overlaps
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.sequence import open_sequence
from fdn_triton.weights import DEFAULT_WEIGHTS, load_weights

CLIP = Path(__file__).resolve().parents[1] / "fdn_triton/demo/clip"
BOXES = torch.tensor([[30.0, 40.0, 60.0, 50.0], [100.0, 20.0, 33.0, 70.0]])


def frames(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    sequence = open_sequence(CLIP, max_frames=count)
    assert sequence.ground_truth is not None
    images = [frame.image for frame in sequence.frames() if frame.image is not None]
    return images, sequence.ground_truth[0]


def track(device: str, images: list[np.ndarray], box_xywh: np.ndarray, **changes: object) -> np.ndarray:
    tracker = Tracker(TrackerConfig.from_preset("paper", **changes), device=device)
    tracker.init(images[0], box_xywh)
    return np.stack([tracker.update(image).boxes_xywh[0] for image in images[1:]])


def backbone(dtype: torch.dtype) -> Backbone:
    weights = load_weights(DEFAULT_WEIGHTS, NetworkConfig())
    return Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale, dtype)


def test_features_in_half_precision() -> None:
    """Three layers with 11 bits of mantissa; nothing near the end of the range; handed to the heads in fp32."""
    image = torch.from_numpy(frames(1)[0][0])
    mean = torch.tensor(load_weights(DEFAULT_WEIGHTS, NetworkConfig()).mean)
    exact, half = (FrameFeatures(backbone(dtype), (150, 200), mean) for dtype in (torch.float32, torch.float16))
    for features in (exact, half):
        features.begin(image)
    expected, out = exact.of_boxes(BOXES), half.of_boxes(BOXES)
    assert out.dtype == torch.float32 and out.max() < 1000
    assert 1e-5 < float((out - expected).norm() / expected.norm()) < 2e-3
    assert torch.equal(half._features.half().float(), half._features), "the convolutions were in half precision"


def test_tracks_in_half_precision_are_those_of_fp32() -> None:
    """Small frames and short updates, for half precision takes a CPU long."""
    images, truth = frames(6)
    small = {
        "short_side": 150,  # smaller ones, with some seeds, fork by rounding
        "max_side": 250,
        "least_target_size": None,
        "first_iterations": 5,
        "bbox_regression_samples": 200,
    }
    exact, half = (track("cpu", images, truth[0], conv_precision=p, **small) for p in ("fp32", "fp16"))
    assert not np.array_equal(exact, half)
    assert overlaps(half, exact).mean() > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tracks_on_a_gpu_are_those_of_a_cpu() -> None:
    images, truth = frames(40)
    assert overlaps(track("cuda", images, truth[0]), track("cpu", images, truth[0])).mean() > 0.9


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="conv_precision is 'fp8': choose one of auto, half, fp32, fp16, bf16"):
        TrackerConfig(conv_precision="fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize("supported", [False, True])
def test_half_is_what_the_device_multiplies_fast(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    """On a CPU without instructions for bf16 it would take many times as long as fp32."""
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: supported)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    own = torch.bfloat16 if supported else torch.float32
    assert device.convolution_dtype("half", cpu) == device.feature_dtype("half", cpu) == own
    assert device.convolution_dtype("half", gpu) == torch.float16
    assert device.feature_dtype("half", gpu) == device.feature_dtype("bf16", gpu) == torch.float32
    assert device.convolution_dtype("auto", cpu) == torch.float32
    assert device.convolution_dtype("auto", gpu) == torch.float16
    assert device.convolution_dtype("bf16", cpu) == device.feature_dtype("bf16", cpu) == torch.bfloat16


@pytest.mark.parametrize("supported", [False, True])
def test_the_preset_fast_takes_half_precision(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: supported)
    tracker = Tracker(TrackerConfig.from_preset("fast"), device="cpu")
    own = torch.bfloat16 if supported else torch.float32
    assert tracker._backbone.dtype == tracker._targets._pool.dtype == own


# One operation for convolution, bias and ReLU, as on NVIDIA's GPUs


@pytest.fixture
def rectifying(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A CPU's trunk goes the GPU's way, by plain convolutions; their numbers of input channels are listed."""
    channels: list[int] = []

    def convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *geometry: object, **rest: object) -> Any:
        channels.append(x.shape[1])
        return F.conv2d(x, weight, bias, *geometry).relu()  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "_rectifies", True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", convolved)
    return channels


@pytest.mark.parametrize("channels", [3, 4])
def test_a_rectifying_trunk_computes_the_same(rectifying: list[int], channels: int) -> None:
    """Of frames with and without zeros behind their colours."""
    trunk = backbone(torch.float32)
    frame = torch.randn(2, 3, 90, 130, generator=torch.Generator().manual_seed(0)) * 50
    frame = F.pad(frame, (0, 0, 0, 0, 0, channels - 3)).contiguous(memory_format=torch.channels_last)
    assert trunk.input_channels == 4
    features = trunk(frame)
    assert rectifying == [4, 96, 256]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "_rectifies", False)
        expected = trunk(frame[:, :3])
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_weights_that_are_loaded_are_prepared_anew(rectifying: list[int]) -> None:
    trunk = backbone(torch.float32)
    frame = torch.randn(1, 3, 40, 40) * 50
    before = trunk(frame)
    trunk.load_state_dict({name: 0.5 * value for name, value in trunk.state_dict().items()})
    assert not torch.allclose(trunk(frame), before)


def test_only_fp16_on_a_gpu_that_does_not_learn_is_rectified() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert not backbone(dtype)._rectifies and backbone(dtype).input_channels == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_rectifying_trunk_reads_no_memory_that_nobody_wrote() -> None:
    """Its operator passes the unwritten output to cuDNN as an addend, times 0."""
    trunk = backbone(torch.float16).to("cuda")
    frame = (torch.randn(1, 4, 281, 500, device="cuda") * 50).half().contiguous(memory_format=torch.channels_last)
    frame[:, 3] = 0
    expected = trunk(frame)
    sizes = [(1, 141, 250, 96), (1, 36, 63, 256), (1, 18, 32, 512)]
    poison = [torch.full(size, float("nan"), dtype=torch.float16, device="cuda") for size in sizes for _ in range(4)]
    del poison  # what is allocated next lies in it
    features = trunk(frame)
    assert features.isfinite().all() and torch.equal(features, expected)
