"""Multi-domain training: one shared network, a branch of the last layer for every domain (paper 3.3; MDNet).

One iteration takes one domain: 8 of its frames, 32 boxes on the target and 96 beside it. Softmax cross-entropy goes
through the domain's branch, fc5, fc4 and max-RoIAlign into the convolutions; RT-MDNet's instance embedding loss, which
tells the domains' targets apart, may be added.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import ROI_FEATURES
from ..config import ROI_BINS, STRIDE
from ..errors import InputError
from ..heads import BACKGROUND, HIDDEN, TARGET
from ..kernels import max_roi_align
from ..kernels.boxes import xywh_to_xyxy
from ..roi_pool import roi_pool
from ..weights import IMAGENET_MEAN, NetworkWeights, trained_sampling_ratio
from .batches import Batch, BatchConfig, Batches
from .distributed import World
from .domains import Domain, VideoDomain, held_back_frames
from .loop import Dropout, cosine, dropped, new_module, random_generator
from .trunk import TrainableTrunk

_MOST_WORKERS = 8


@dataclass(frozen=True)
class MultiDomainConfig:
    """Numbers of the training (ALGORITHM: MDNet's; windows are this package's)."""

    cycles: int = 100
    """Passes over the domains, an iteration each."""
    frames: int = 8
    """Frames an iteration, in all processes together."""
    positives: int = 32
    negatives: int = 96
    """Boxes an iteration, of all frames together."""
    mined: int = 0
    """Negatives that are drawn an iteration, of which each frame's with the highest scores are taken, as in tracking; 0
    draws no more than are taken (MDNet). Precision on held-back frames is among the taken ones, and lower with it."""
    positive_iou: float = 0.7
    negative_iou: float = 0.5
    embedding: float = 0.0
    """Weight of the instance embedding loss (RT-MDNet, 3.3: 0.1), by which each domain's target must score higher in
    its own branch than in the others'; all branches then learn, and decay, in every iteration. 0 leaves it out."""
    learning_rate: float = 1e-3
    """Of fc4 and fc5 at the beginning; biases learn at twice it. All rates fall to 0 along a cosine."""
    convolution_rate: float = 1e-3
    """Of the convolutions: a step moves the weights of a layer by about this share of their size. SGD's absolute rate
    moves conv2 ten times as far as its neighbours. 0 keeps them as they are, which is faster."""
    branch_rate: float = 1.0
    """Factor on the learning rate of the branches."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """Both of the FC layers; the convolutions learn by Adam's rule, without decay."""
    dropout: float = 0.5
    window: int = 384
    """Pixels; side of the part of a frame that is looked at."""
    target_size_min: float = 40.0
    target_size_max: float = 96.0
    """Pixels; mean of the target's width and height in the window, before it is turned."""
    light: float = 0.2
    """Largest change of brightness and contrast, the same in all frames of an iteration."""
    grey: float = 0.1
    """Share of iterations without colours."""
    turn: float = 0.0
    """Degrees; each frame is turned about its target by up to this, either way. A box is widened to that of the turned
    ellipse, once more where a domain of photographs has turned its object already."""
    blur: float = 0.0
    """Share of frames that are blurred as by motion, along up to two fifths of the target's size. Like all changes of
    the frames, it concerns those of the precision on held-back frames too."""
    conv_layers: Literal[3, 5] = 3
    fc_layers: Literal[2, 3] = 3
    sampling_ratio: Literal["auto", 1, 2, 3] = "auto"
    """Samples per bin and axis; auto goes on with those that the weights were trained with, or begins with the paper's
    2."""
    roi_layer: Literal["align", "pool"] = "align"
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the convolutions; bf16 is twice as fast on CPUs and GPUs that multiply it."""
    seed: int = 0


class MultiDomainNet(nn.Module):
    """Trunk, RoI layer, fc4 and fc5 (those of the weights, if they have any), and a branch per domain."""

    def __init__(self, trunk: TrainableTrunk, start: NetworkWeights, domains: int, config: MultiDomainConfig) -> None:
        super().__init__()
        self.trunk, self.feature_scale, self._config = trunk, start.feature_scale, config
        self.sampling_ratio = trained_sampling_ratio(config.sampling_ratio, start)
        sizes = [ROI_FEATURES] + [HIDDEN] * (config.fc_layers - 1)
        self.hidden = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
        self.branches = [nn.Linear(HIDDEN, 2) for _ in range(domains)]
        self._layers = nn.ModuleList(self.hidden + self.branches)
        for layer in self.hidden:
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.constant_(layer.bias, 0.1)
        with torch.no_grad():
            for i, layer in enumerate(self.hidden, start=4):
                if f"fc{i}.weight" in start.tensors:
                    layer.weight.copy_(start.tensors[f"fc{i}.weight"])
                    layer.bias.copy_(start.tensors[f"fc{i}.bias"])
        for branch in self.branches:
            nn.init.normal_(branch.weight, 0, 0.01)
            nn.init.zeros_(branch.bias)

    def features(self, images: Tensor, autocast: AbstractContextManager[Any]) -> Tensor:
        """[N, 512, h / 16, w / 16] fp32 of images [N, 3, h, w]."""
        with autocast:
            features = self.trunk(images)
        return features.float() * self.feature_scale

    def forward(self, features: Tensor, boxes_xywh: Tensor, domain: int, dropout: Dropout | None = None) -> Tensor:
        """Background and target score [N * K, 2] of the boxes [N, K, 4], by the :meth:`features` of their images.

        Without ``dropout`` nothing is dropped.
        """
        return self.branches[domain](self.hidden_output(features, boxes_xywh, dropout))

    def hidden_output(self, features: Tensor, boxes_xywh: Tensor, dropout: Dropout | None = None) -> Tensor:
        """What the branches multiply, [N * K, 512]; the arguments are those of :meth:`forward`."""
        n, k = boxes_xywh.shape[:2]
        index = torch.arange(n, device=features.device).repeat_interleave(k)[:, None]
        rois = torch.cat((index, xywh_to_xyxy(boxes_xywh.reshape(-1, 4))), dim=1)
        if self._config.roi_layer == "pool":
            bins = roi_pool(features, rois, ROI_BINS, 1 / STRIDE)
        else:
            bins = max_roi_align(features, rois, ROI_BINS, 1 / STRIDE, self.sampling_ratio, deterministic=True)
        x = bins.permute(0, 2, 3, 1).flatten(1)  # (y, x, channel)
        for layer in self.hidden:
            x = dropped(F.relu(layer(x)), self._config.dropout, dropout)
        return x

    def target_scores(self, hidden_output: Tensor) -> Tensor:
        """[N, domains]: target score in every branch, by the :meth:`hidden_output` [N, 512]."""
        # Stacked whole and then indexed: one operation, and one gradient, of all branches.
        weight, bias = (torch.stack([getattr(b, name) for b in self.branches]) for name in ("weight", "bias"))
        return F.linear(hidden_output, weight[:, TARGET], bias[:, TARGET])

    @torch.no_grad()
    def margins(self, features: Tensor, boxes_xywh: Tensor, domain: int) -> Tensor:
        """[N, K]: how far each box's target score is above its background score."""
        scores = self(features, boxes_xywh, domain)
        return (scores[:, TARGET] - scores[:, BACKGROUND]).view(boxes_xywh.shape[:2])


class MultiDomainTraining:
    """A :class:`~.loop.Task`.

    Args:
        domains: K of them.
        trunk: where the convolutions start.
        start: the weights that the trunk has, for their feature scale, fc4 and fc5 if they have them, and provenance.
        config: all numbers.
        world: of the processes.

    Attributes:
        workers: processes that draw batches ahead, where the device leaves the CPU free for it.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        trunk: TrainableTrunk,
        start: NetworkWeights,
        config: MultiDomainConfig,
        world: World,
    ) -> None:
        self._config, self._world, self._domains, self._start = config, world, list(domains), start
        self.steps = config.cycles * len(domains)
        self.samples_per_step = config.positives + config.negatives
        frames = config.frames
        counts = config.positives, config.negatives, config.mined
        if frames < 1 or frames % world.size or any(count % frames for count in counts):
            raise InputError(
                f"{config.positives} positives and {config.negatives} negatives"
                + (f", {config.mined} drawn," if config.mined else "")
                + f" of {frames} frames in {world.size} processes: give multiples of --frames, and --frames as a "
                "multiple of the processes"
            )
        if config.mined and config.mined < config.negatives:
            raise InputError(f"--mined is {config.mined}: draw at least the {config.negatives} that are taken, or 0")
        batch = BatchConfig(
            seed=config.seed,
            frames=frames,
            positives=config.positives // frames,
            negatives=(config.mined or config.negatives) // frames,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            window=config.window,
            target_sizes=(config.target_size_min, config.target_size_max),
            light=config.light,
            grey=config.grey,
            turn=config.turn,
            blur=config.blur,
        )
        self._batches = Batches(self._domains, batch, world.share(frames))
        self.workers = 0
        if world.device.type == "cuda":
            self.workers = min(_MOST_WORKERS, (os.cpu_count() or 1) // world.size)
        self._ahead: Iterator[Batch] | None = None
        self._next = 0  # number of the batch that it gives next
        n = len(domains)
        self.net = new_module(lambda: MultiDomainNet(trunk, start, n, config), config.seed, world)
        # The statistics of one video's windows are no other video's: the normalisations keep those they came with.
        self.net.eval()
        self.net.trunk.requires_grad_(config.convolution_rate > 0)
        self._mean = torch.tensor(IMAGENET_MEAN, device=world.device)[:, None, None]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.SGD(self._fully_connected(), lr=config.learning_rate, momentum=config.momentum)
        ]
        if config.convolution_rate > 0:
            self._optimizers.append(torch.optim.Adam(self._convolutions(), lr=config.convolution_rate))

    def learning_rate(self, number: int) -> float:
        """Of the FC layers in a step."""
        return self._config.learning_rate * cosine(number, self.steps, 1)

    def step(self, number: int) -> Tensor:
        """One iteration on one domain; its loss."""
        config, world = self._config, self._world
        batch = self._next_batch(number)
        domain, (images, boxes) = batch.domain, self._on_device(batch)
        features = self.net.features(images, world.autocast(config.precision))
        boxes = self._hardest(features.detach(), boxes, domain)
        dropout = Dropout(random_generator(world.device, config.seed, 3, number), world)
        hidden = self.net.hidden_output(features, boxes, dropout)
        labels = self._labels(len(images))
        loss = F.cross_entropy(self.net.branches[domain](hidden), labels)
        if config.embedding:
            scores = self.net.target_scores(hidden[labels == TARGET])
            loss = loss + config.embedding * F.cross_entropy(scores, labels.new_full((len(scores),), domain))
        self.net.zero_grad()
        loss.backward()
        world.average_gradients(self.net)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["first_lr"] * cosine(number, self.steps, 1)
            optimizer.step()
        return world.average(loss.detach())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Precision on held-back frames: what share of its boxes with the highest scores are on the target.

        Those of a synthetic domain or a photograph show what its other frames show, placed otherwise.
        """
        precision = []
        for i in range(min(len(self._domains), 40)):
            domain = i * len(self._domains) // min(len(self._domains), 40)
            held_back = held_back_frames(self._domains[domain])
            images, boxes = self._on_device(self._batches.drawn(self.steps + i, domain, held_back))
            features = self.net.features(images, self._world.autocast(self._config.precision))
            boxes = self._hardest(features, boxes, domain)
            on_target = self._labels(len(images)) == TARGET
            best = self.net.margins(features, boxes, domain).flatten().topk(int(on_target.sum())).indices
            precision.append(on_target[best].float().mean())
        return {"held_back_precision": float(self._world.average(torch.stack(precision).mean()))}

    def state(self) -> dict[str, Any]:
        """Network and momentum."""
        return {"net": self.net.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self._optimizers]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.net.load_state_dict(state["net"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def weights(self) -> NetworkWeights:
        """Convolutions, fc4 and fc5."""
        tensors = self.net.trunk.folded()
        for i, layer in enumerate(self.net.hidden, start=4):
            tensors |= {f"fc{i}.weight": layer.weight.detach().cpu(), f"fc{i}.bias": layer.bias.detach().cpu()}
        return NetworkWeights(
            name="multi-domain",
            tensors=tensors,
            mean=IMAGENET_MEAN,
            feature_scale=self.net.feature_scale,
            sampling_ratio=None if self._config.roi_layer == "pool" else self.net.sampling_ratio,
            roi_grid="midpoint",
            provenance=f"{self._start.provenance}; multi-domain training, {len(self._domains)} domains, "
            f"{self.steps} iterations" + ("" if self._config.convolution_rate else " with the convolutions kept"),
            sha256="",
        )

    def _hardest(self, features: Tensor, boxes: Tensor, domain: int) -> Tensor:
        """Of the boxes of a batch [F, K, 4] the positives and, in each frame, the negatives with the highest scores."""
        positives, negatives = (n // self._config.frames for n in (self._config.positives, self._config.negatives))
        near, far = boxes.split((positives, boxes.shape[1] - positives), dim=1)
        if far.shape[1] > negatives:
            hardest = self.net.margins(features, far, domain).topk(negatives, dim=1).indices
            far = far.take_along_dim(hardest[:, :, None], dim=1)
        return torch.cat((near, far), dim=1)

    def _labels(self, frames: int) -> Tensor:
        """[frames * boxes a frame], in the order in which :meth:`_hardest` has the boxes."""
        config = self._config
        positives, negatives = config.positives // config.frames, config.negatives // config.frames
        labels = torch.full((frames, positives + negatives), BACKGROUND, device=self._world.device)
        labels[:, :positives] = TARGET
        return labels.flatten()

    def _next_batch(self, number: int) -> Batch:
        """That of a step; those after it may be under way already."""
        if self._ahead is None or self._next != number:
            self._ahead = self._batches.ahead(number, self.steps, self.workers)
        self._next = number + 1
        batch = next(self._ahead)
        domain = self._domains[batch.domain]
        if isinstance(domain, VideoDomain):
            domain.unreadable.update(batch.unreadable)
        return batch

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Its images [F, 3, side, side] minus the mean, lit as they shall be, and its boxes [F, K, 4]."""
        x = batch.pixels.to(self._world.device).permute(0, 3, 1, 2).float()
        if batch.grey:
            x = (x * x.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(dim=1, keepdim=True).expand_as(x)
        middle = x.mean(dim=(1, 2, 3), keepdim=True)
        x = ((x - middle) * batch.contrast + middle * batch.light).clamp(0, 255) - self._mean
        return x.contiguous(memory_format=torch.channels_last), batch.boxes_xywh.to(self._world.device)

    def _fully_connected(self) -> list[dict[str, Any]]:
        config, net = self._config, self.net
        groups = []
        for layers, rate in (
            (net.hidden, config.learning_rate),
            (net.branches, config.learning_rate * config.branch_rate),
        ):
            weights, biases = ([getattr(layer, name) for layer in layers] for name in ("weight", "bias"))
            groups.append({"params": weights, "first_lr": rate, "weight_decay": config.weight_decay})
            groups.append({"params": biases, "first_lr": 2 * rate})
        return groups

    def _convolutions(self) -> list[dict[str, Any]]:
        rate = self._config.convolution_rate
        return [
            {"params": [p], "first_lr": rate * float(p.detach().square().mean().sqrt())}
            for p in self.net.trunk.parameters()
        ]
