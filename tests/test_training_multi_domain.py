"""Multi-domain training: samples, gradients into the convolutions, one branch a step, exact continuation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import PaintedDomain, start_weights

from fdn_triton.backbone import Backbone
from fdn_triton.config import NetworkConfig
from fdn_triton.errors import InputError
from fdn_triton.kernels.boxes import iou
from fdn_triton.training.batches import Batch
from fdn_triton.training.distributed import World
from fdn_triton.training.domains import held_back_frames, training_frames
from fdn_triton.training.multi_domain import MultiDomainConfig, MultiDomainNet, MultiDomainTraining
from fdn_triton.training.trunk import TrainableTrunk
from fdn_triton.weights import load_weights

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
CONFIG = MultiDomainConfig(
    cycles=6,
    frames=2,
    positives=8,
    negatives=24,
    learning_rate=1e-3,
    convolution_rate=1e-3,
    branch_rate=1.0,
    window=128,
    target_size_min=40,
    target_size_max=50,
    dropout=0.3,
)
MakeTask = Callable[..., MultiDomainTraining]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeTask:
    path = start_weights(tmp_path_factory.mktemp("start") / "start.safetensors")
    weights = load_weights(path, NetworkConfig())

    def task(domains=None, world: World = ALONE, **numbers) -> MultiDomainTraining:
        domains = domains or [PaintedDomain("one"), PaintedDomain("two")]
        trunk = TrainableTrunk.from_folded(weights.tensors)
        return MultiDomainTraining(domains, trunk, weights, replace(CONFIG, **numbers), world)

    return task


def parameters(task: MultiDomainTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.net.state_dict().items()}


def changed(task: MultiDomainTraining, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in task.net.state_dict().items() if not torch.equal(value, before[name])}


def test_samples_overlap_the_target_as_they_should(make: MakeTask) -> None:
    task = make()
    for number in range(5):
        images, boxes = task._on_device(task._batches.drawn(number, 0, training_frames(PaintedDomain())))
        assert images.shape == (2, 3, 128, 128) and boxes.shape == (2, 16, 4)
        assert images.is_contiguous(memory_format=torch.channels_last)
        labels = task._labels(2).view(2, 16)
        assert labels.sum() == 8 and bool((labels[:, :4] == 1).all())
        for image, frame_boxes in zip(images, boxes, strict=True):
            bright = (image[0] - image[2] > 105).numpy()  # the yellow square, in any light
            rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
            if len(rows) == 0:  # a step without colours
                continue
            target = torch.tensor([columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1], dtype=torch.float32)
            overlap = iou(frame_boxes, target)
            assert float(overlap[:4].min()) > 0.6 and float(overlap[4:].max()) < 0.6  # 0.7 and 0.5, and a pixel


@pytest.mark.parametrize("size", [(30.0, 90.0), (60.0, 60.0), (110.0, 20.0)])
def test_limits_of_the_overlap(make: MakeTask, size: tuple[float, float]) -> None:
    task, target = make(), torch.tensor([30.0, 25.0, *size])
    for seed in range(5):
        boxes = task._batches.samples(target, seed)
        overlap = iou(boxes, target)
        assert len(boxes) == 16 and float(overlap[:4].min()) >= 0.7 and float(overlap[4:].max()) <= 0.5


def test_the_hardest_negatives_of_each_frame_are_taken(make: MakeTask) -> None:
    task = make(mined=60)
    images, drawn = task._on_device(task._batches.drawn(0, 0, training_frames(PaintedDomain())))
    assert drawn.shape == (2, 4 + 30, 4)
    assert all(len(torch.unique(boxes[4:], dim=0)) == 30 for boxes in drawn), "as many boxes, not the same again"
    with torch.no_grad():
        features = task.net.features(images, ALONE.autocast("fp32"))
    boxes = task._hardest(features, drawn, 0)
    assert boxes.shape == (2, 16, 4) and torch.equal(boxes[:, :4], drawn[:, :4])
    margins, taken = task.net.margins(features, drawn, 0)[:, 4:], task.net.margins(features, boxes, 0)[:, 4:]
    torch.testing.assert_close(taken, margins.sort(dim=1, descending=True).values[:, :12])
    assert torch.equal(task._hardest(features, boxes, 0), boxes), "nothing to choose from"


def test_mining_makes_a_step_harder(make: MakeTask) -> None:
    plain, mined = make(), make(mined=120)
    for number in range(4):
        losses = float(plain.step(number)), float(mined.step(number))
    assert losses[1] > losses[0]
    assert mined.validate()["held_back_precision"] <= plain.validate()["held_back_precision"] + 0.2


def test_fc_layers_go_on_from_the_weights(make: MakeTask) -> None:
    first = make()
    first.step(0)
    weights = replace(first.weights(), feature_scale=3.0)
    trunk = TrainableTrunk.from_folded(weights.tensors)
    task = MultiDomainTraining([PaintedDomain()], trunk, weights, CONFIG, ALONE)
    for mine, theirs in zip(task.net.hidden, first.net.hidden, strict=True):
        assert torch.equal(mine.weight, theirs.weight) and torch.equal(mine.bias, theirs.bias)
    assert task.net.feature_scale == 3.0
    assert not torch.equal(make().net.hidden[0].weight, first.net.hidden[0].weight)


def test_it_learns_and_moves_the_branch_of_its_domain_only(make: MakeTask) -> None:
    task = make()
    before = parameters(task)
    domain = task._batches.domain(0)
    first = float(task.step(0))
    moved = changed(task, before)
    assert {"trunk.conv1.weight", "trunk.conv2.weight", "trunk.conv3.weight"} <= moved, "through max-RoIAlign"
    assert {"_layers.0.weight", "_layers.1.weight"} <= moved  # fc4, fc5
    branches = {f"_layers.{2 + i}.{part}" for i in range(2) for part in ("weight", "bias")}
    assert moved & branches == {f"_layers.{2 + domain}.{part}" for part in ("weight", "bias")}
    assert not {name for name in moved if "running" in name or "num_batches" in name}, "statistics stay"
    losses = [float(task.step(number)) for number in range(1, task.steps)]
    assert task.steps == 12 and sum(losses[-3:]) / 3 < 0.8 * first
    assert task.validate()["held_back_precision"] > 0.4, "by chance it is a quarter"


def test_the_embedding_loss_tells_the_domains_targets_apart(make: MakeTask) -> None:
    domains = [PaintedDomain(str(i)) for i in range(4)]
    plain, embedding = make(domains, dropout=0.0), make(domains, dropout=0.0, embedding=0.5)
    before = parameters(embedding)
    apart = float(embedding.step(0)) - float(plain.step(0))
    assert apart == pytest.approx(0.5 * np.log(4), rel=0.1), "branches that are alike know nothing of the domain"
    branches = {f"_layers.{2 + i}.{part}" for i in range(4) for part in ("weight", "bias")}
    assert branches <= changed(embedding, before), "every branch learns what its target is not"

    images, boxes = embedding._on_device(embedding._batches.drawn(1, 2, training_frames(domains[2])))
    features = embedding.net.features(images, ALONE.autocast("fp32"))
    hidden = embedding.net.hidden_output(features, boxes)
    for i, branch in enumerate(embedding.net.branches):
        torch.testing.assert_close(embedding.net.target_scores(hidden)[:, i], branch(hidden)[:, 1])


def test_convolutions_can_stay(make: MakeTask) -> None:
    task = make(convolution_rate=0.0)
    before = parameters(task)
    task.step(0)
    moved = changed(task, before)
    assert "_layers.0.weight" in moved and not {name for name in moved if name.startswith("trunk")}


def test_the_convolutions_move_by_like_shares_of_their_size(make: MakeTask) -> None:
    task = make(convolution_rate=1e-3)
    before = parameters(task)
    task.step(0)
    for layer in (1, 2, 3):
        old, new = before[f"trunk.conv{layer}.weight"], task.net.state_dict()[f"trunk.conv{layer}.weight"]
        assert 0.3e-3 < float((new - old).norm() / old.norm()) <= 1.001e-3


def test_every_domain_has_its_turn_in_every_cycle(make: MakeTask) -> None:
    task = make([PaintedDomain(str(i)) for i in range(5)])
    cycles = [[task._batches.domain(5 * cycle + place) for place in range(5)] for cycle in range(4)]
    assert all(sorted(cycle) == [0, 1, 2, 3, 4] for cycle in cycles) and len({tuple(c) for c in cycles}) > 1


def test_held_back_frames_are_for_validation_only(make: MakeTask) -> None:
    domains = [PaintedDomain("one"), PaintedDomain("two")]
    task = make(domains)
    for number in range(task.steps):
        task.step(number)
    for domain in domains:
        assert domain.asked <= set(training_frames(domain)) and len(domain.asked) > 4
        domain.asked.clear()
    before = parameters(task)
    validated = task.validate()
    assert all(domain.asked and domain.asked <= set(held_back_frames(domain)) for domain in domains)
    assert not changed(task, before) and task.validate() == validated, "measuring changes nothing"


def test_a_step_depends_on_its_number_and_the_state_only(make: MakeTask) -> None:
    whole, first, second = make(), make(), make()
    for number in range(6):
        whole.step(number)
    for number in range(3):
        first.step(number)
    first.validate()
    torch.rand(3)
    second.restore(first.state())
    for number in range(3, 6):
        second.step(number)
    assert not changed(whole, parameters(second)) and changed(whole, parameters(first))
    assert changed(make(seed=1), parameters(make()))


def test_the_exported_network_computes_the_same(make: MakeTask) -> None:
    task = make()
    for number in range(6):
        task.step(number)
    weights = task.weights()
    assert (weights.sampling_ratio, weights.roi_grid) == (2, "midpoint") and set(weights.tensors) == {
        f"{layer}.{part}" for layer in ("conv1", "conv2", "conv3", "fc4", "fc5") for part in ("weight", "bias")
    }
    images, _ = task._on_device(task._batches.drawn(0, 0, np.arange(3)))
    backbone = Backbone.with_weights(NetworkConfig(), weights.tensors, weights.feature_scale)
    with torch.no_grad():
        expected = task.net.trunk(images) * weights.feature_scale
        assert float((backbone(images) - expected).norm() / expected.norm()) < 1e-2
    assert torch.equal(weights.tensors["fc4.weight"], task.net.hidden[0].weight)


class BarDomain(PaintedDomain):
    """A long target, by which turns are seen."""

    def frame(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.full((120, 160, 3), 40, np.uint8)
        image[50:66, 40:120] = (250, 200, 40)
        return image, np.array([40.0, 50, 80, 16])


def test_frames_turn_by_up_to_so_many_degrees_either_way(make: MakeTask) -> None:
    numbers = {"frames": 8, "positives": 8, "negatives": 24}
    batch = make([BarDomain()], turn=10.0, **numbers)._batches.drawn(0, 0, np.arange(15))
    angles = []
    for pixels in batch.pixels.numpy().astype(int):
        places = np.argwhere(pixels[:, :, 0] - pixels[:, :, 2] > 105)[:, ::-1]
        x, y = np.linalg.eigh(np.cov(places.T))[1][:, 1]
        angles.append(np.degrees(np.arctan(y / x)))
    assert min(angles) < -3 and max(angles) > 3 and max(map(abs, angles)) < 10.5
    plain = make([BarDomain()], **numbers)._batches.drawn(0, 0, np.arange(15))
    # Of the first positive, which mostly is the same draw.
    heights = (batch.boxes_xywh[:, 0, 3] / plain.boxes_xywh[:, 0, 3]).numpy()
    widened = np.hypot(np.cos(np.radians(angles)), 80 / 16 * np.sin(np.radians(angles)))
    assert np.median(abs(heights - widened)) < 0.01


def test_a_share_of_the_frames_is_blurred(make: MakeTask) -> None:
    def drawn(**changes: float) -> Batch:
        return make(frames=12, positives=12, negatives=24, **changes)._batches.drawn(0, 0, np.arange(3))

    plain, blurred = drawn(), drawn(blur=0.4)
    assert torch.equal(blurred.boxes_xywh, plain.boxes_xywh)
    same = [torch.equal(before, after) for before, after in zip(plain.pixels, blurred.pixels, strict=True)]
    assert 4 <= sum(same) <= 10
    before, after = (batch.pixels.float().diff(dim=2).abs().mean(dim=(1, 2, 3)) for batch in (plain, blurred))
    assert bool((after < 0.99 * before)[~torch.tensor(same)].all())


def test_two_processes_share_the_frames_of_one(make: MakeTask) -> None:
    frames = training_frames(PaintedDomain())
    whole = make()._batches.drawn(3, 1, frames)
    parts = [make(world=World(rank, 2, CPU))._batches.drawn(3, 1, frames) for rank in range(2)]
    assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts]))
    assert torch.equal(whole.boxes_xywh, torch.cat([part.boxes_xywh for part in parts]))
    assert len({(part.light, part.contrast, part.grey) for part in (whole, *parts)}) == 1


def test_batches_drawn_ahead_in_processes_are_the_same(make: MakeTask) -> None:
    batches = make()._batches
    ahead = list(batches.ahead(2, 7, workers=2))
    assert [batch.domain for batch in ahead] == [batches.domain(number) for number in range(2, 7)]
    for number, batch in enumerate(ahead, start=2):
        own = batches[number]
        assert torch.equal(batch.pixels, own.pixels) and torch.equal(batch.boxes_xywh, own.boxes_xywh)
        assert (batch.light, batch.contrast, batch.grey) == (own.light, own.contrast, own.grey)


def test_steps_are_the_same_whoever_draws_their_batches(make: MakeTask) -> None:
    """Also where they go on in the middle, as after a checkpoint."""
    alone, helped = make(), make()
    helped.workers = 2
    for number in (0, 1, 7):
        assert float(helped.step(number)) == float(alone.step(number))
    assert not changed(helped, parameters(alone))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_domain_that_cannot_be_read_is_named(make: MakeTask, workers: int) -> None:
    task = make([PaintedDomain("torn", readable=False)])
    task.workers = workers
    with pytest.raises(InputError, match=r"^torn: 4 frames in a row cannot be read: leave this sequence out$"):
        task.step(0)


@pytest.mark.parametrize("variant", [{"fc_layers": 2}, {"roi_layer": "pool"}, {"sampling_ratio": 1}])
def test_variants_of_the_network(make: MakeTask, variant: dict[str, object]) -> None:
    task = make(**variant)
    before = parameters(task)
    assert 0 < float(task.step(0)) < 5 and "trunk.conv1.weight" in changed(task, before)
    weights = task.weights()
    assert ("fc5.weight" in weights.tensors) == (variant.get("fc_layers") != 2)
    assert weights.sampling_ratio == (None if "roi_layer" in variant else variant.get("sampling_ratio", 2))


def test_samples_a_bin_are_those_of_the_weights_to_start_from(make: MakeTask) -> None:
    task = make()
    start = replace(task._start, sampling_ratio=1)
    for asked, expected in (("auto", 1), (2, 2)):
        net = MultiDomainNet(task.net.trunk, start, 2, replace(CONFIG, sampling_ratio=asked))
        assert net.sampling_ratio == expected


def test_bf16_follows_fp32(make: MakeTask) -> None:
    fp32, bf16 = float(make().step(0)), float(make(precision="bf16").step(0))
    assert bf16 == pytest.approx(fp32, rel=0.05) and bf16 != fp32


def test_numbers_that_cannot_be_shared_are_refused(make: MakeTask) -> None:
    with pytest.raises(InputError, match="--mined is 12: draw at least the 24 that are taken, or 0"):
        make(mined=12)
    with pytest.raises(InputError, match="--mined is -8"):
        make(mined=-8)
    with pytest.raises(InputError, match="8 positives and 24 negatives of 3 frames in 1 processes"):
        make(frames=3)
    with pytest.raises(InputError, match="of 2 frames in 4 processes"):
        make(world=World(0, 4, CPU))
    with pytest.raises(InputError, match="0 frames"):
        make(frames=0)


def test_the_start_is_the_weights_of_classification(make: MakeTask, tmp_path: Path) -> None:
    start = load_weights(start_weights(tmp_path / "start.safetensors"), NetworkConfig())
    tensors = make().weights().tensors
    for name, tensor in start.tensors.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-5, atol=1e-7)
