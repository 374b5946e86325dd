"""Pretraining by classification: it learns, goes on exactly, and leaves what the tracker wants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import class_folders

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.training.classification import FEATURE_STD, Classification, ClassificationConfig
from fdn_triton.training.distributed import World
from fdn_triton.training.images import LabelledImages, read_labelled_images

ALONE = World(0, 1, torch.device("cpu"))
CONFIG = ClassificationConfig(epochs=2, batch=12, image_side=24, learning_rate=0.02)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    return read_labelled_images(class_folders(tmp_path_factory.mktemp("set")), 24)


def same(one: Classification, other: Classification) -> bool:
    pairs = zip(one.weights().tensors.values(), other.weights().tensors.values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_three_colours(images: LabelledImages) -> None:
    task = Classification(images, CONFIG, ALONE)
    assert (task.steps, task.samples_per_step) == (12, 12)
    losses = [float(task.step(number)) for number in range(task.steps)]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert task.validate() == {"top1": 1.0}
    rates = [task.learning_rate(number) for number in range(12)]
    assert max(rates) == CONFIG.learning_rate and rates[-1] < 0.1 * CONFIG.learning_rate

    weights = task.weights()
    backbone = Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale)
    pixels = images.split()[1].pixels.float() - torch.tensor(weights.mean)[:, None, None]
    assert float(backbone(pixels).std()) == pytest.approx(FEATURE_STD, rel=0.02)
    assert "72 images of 3 classes" in weights.provenance and "top-1 1.000" in weights.provenance


def test_a_step_depends_on_its_number_and_the_state_only(images: LabelledImages) -> None:
    """Also across an epoch's end, and whatever was measured or drawn in between."""
    whole, first, second = (Classification(images, CONFIG, ALONE) for _ in range(3))
    for number in range(8):
        whole.step(number)
    for number in range(5):
        first.step(number)
    first.validate()
    torch.rand(3)
    second.restore(first.state())
    for number in range(5, 8):
        second.step(number)
    assert same(whole, second) and not same(whole, first)
    other = Classification(images, replace(CONFIG, seed=1), ALONE)
    assert not same(other, Classification(images, CONFIG, ALONE))


def test_bf16_follows_fp32(images: LabelledImages) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        task = Classification(images, replace(CONFIG, precision=precision), ALONE)
        losses[precision] = torch.stack([task.step(number) for number in range(4)])
        assert all(p.dtype == torch.float32 for p in task.weights().tensors.values())
    torch.testing.assert_close(losses["bf16"], losses["fp32"], rtol=0.1, atol=0.05)
    assert not torch.equal(losses["bf16"], losses["fp32"])


def test_larger_views(images: LabelledImages) -> None:
    task = Classification(images, replace(CONFIG, view_side=36), ALONE)
    seen = []
    task._net.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[1:])))
    task.step(0)
    task.validate()
    task.weights()
    assert set(seen) == {(3, 36, 36)}
    with pytest.raises(InputError, match="--view-side is 20: it must be at least --image-side, 24"):
        Classification(images, replace(CONFIG, view_side=20), ALONE)


def test_a_batch_that_cannot_be_normalised_is_refused(images: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch of 1 is too small for 1 processes"):
        Classification(images, replace(CONFIG, batch=1), ALONE)
    with pytest.raises(InputError, match="batch of 12 is too small for 8 processes"):
        Classification(images, CONFIG, World(0, 8, torch.device("cpu")))
