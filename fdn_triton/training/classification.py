"""Pretraining of the trunk: classification of images (the paper's convolutions are VGG-M's, trained on ImageNet)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import FEATURE_CHANNELS
from ..config import ROI_BINS
from ..errors import InputError
from ..weights import IMAGENET_MEAN, NetworkWeights
from .augmentation import random_views
from .distributed import World
from .images import LabelledImages
from .loop import Dropout, cosine, dropped, new_module, random_generator
from .trunk import TrainableTrunk

FEATURE_STD = 10.0  # of VGG-M's features, which the tracker's learning rates suit
_HIDDEN = 512


@dataclass(frozen=True)
class ClassificationConfig:
    """Numbers of the training."""

    epochs: float = 30.0
    """Passes over the images."""
    batch: int = 128
    """Images a step, in all processes together."""
    image_side: int = 64
    """Pixels of the images in memory."""
    view_side: int | None = None
    """Pixels of the views of them that are trained on, at least those of the images; None for as many. Larger views
    are as blurred as the enlarged frames of small videos, and take as much more time as area."""
    learning_rate: float = 0.1
    """Highest; it rises to it and falls along a cosine."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    dropout: float = 0.3
    """Of the features, before the classifier."""
    label_smoothing: float = 0.1
    conv_layers: Literal[3, 5] = 3
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the products; bf16 is twice as fast on CPUs and GPUs that multiply it."""
    seed: int = 0


class Classifier(nn.Module):
    """The trunk, the 3x3 maxima that a RoI's features would be, and two layers."""

    def __init__(self, conv_layers: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk = TrainableTrunk(conv_layers)
        self._dropout = dropout
        self.head = nn.Sequential(
            nn.Linear(FEATURE_CHANNELS * ROI_BINS**2, _HIDDEN, bias=False),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, classes),
        )

    def forward(self, images: Tensor, dropout: Dropout | None = None) -> Tensor:
        """[N, 3, h, w], RGB 0..255 minus the mean -> [N, classes]; without ``dropout`` nothing is dropped."""
        features = F.adaptive_max_pool2d(self.trunk(images), ROI_BINS).flatten(1)
        return self.head(dropped(features, self._dropout, dropout))


class Classification:
    """A :class:`~.loop.Task`: SGD with momentum on the cross-entropy of random views."""

    def __init__(self, images: LabelledImages, config: ClassificationConfig, world: World) -> None:
        self._config, self._world = config, world
        train, self._held_back = (
            LabelledImages(part.pixels.to(world.device), part.labels.to(world.device), part.classes, ())
            for part in images.split()
        )
        self._pixels, self._labels = train.pixels, train.labels
        self.samples_per_step = min(config.batch, len(train.labels))
        if self.samples_per_step < 2 * world.size:  # batch normalisation needs two
            raise InputError(f"a batch of {config.batch} is too small for {world.size} processes: give two images each")
        self._steps_per_epoch = len(train.labels) // self.samples_per_step
        self.steps = max(1, round(config.epochs * self._steps_per_epoch))
        self._warm_up = max(1, min(self.steps // 20, self._steps_per_epoch))
        self._side = config.image_side if config.view_side is None else config.view_side
        if self._side < config.image_side:
            raise InputError(f"--view-side is {self._side}: it must be at least --image-side, {config.image_side}")
        self._epoch_order: tuple[int, Tensor] | None = None
        self._mean = torch.tensor(IMAGENET_MEAN, device=world.device)[:, None, None]
        n_classes = len(images.classes)
        self._net = new_module(lambda: Classifier(config.conv_layers, n_classes, config.dropout), config.seed, world)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self._net.parameters() if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in self._net.parameters() if p.dim() == 1]},
        ]
        self._optimizer = torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=True,
        )

    def learning_rate(self, number: int) -> float:
        """Of a step."""
        return self._config.learning_rate * cosine(number, self.steps, self._warm_up)

    def step(self, number: int) -> Tensor:
        """One step; its loss."""
        config, world = self._config, self._world
        chosen = self._batch(number)[world.share(self.samples_per_step)]
        generator = random_generator(world.device, config.seed, 1, number, world.rank)
        views = random_views(self._pixels[chosen], self._side, generator) - self._mean
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self._net.train()
        with world.autocast(config.precision):
            dropout = Dropout(random_generator(world.device, config.seed, 2, number), world)
            logits = self._net(views.contiguous(memory_format=torch.channels_last), dropout)
        loss = F.cross_entropy(logits.float(), self._labels[chosen], label_smoothing=config.label_smoothing)
        self._optimizer.zero_grad()
        loss.backward()
        world.average_gradients(self._net)
        self._optimizer.step()
        world.average_buffers(self._net)
        return world.average(loss.detach())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of the held-back images whose class is the first guess."""
        self._net.eval()
        hits = 0
        for pixels, labels in zip(self._held_back.pixels.split(256), self._held_back.labels.split(256), strict=True):
            with self._world.autocast(self._config.precision):
                logits = self._net(self._whole(pixels))
            hits += int((logits.argmax(dim=1) == labels).sum())
        return {"top1": hits / len(self._held_back.labels)}

    def state(self) -> dict[str, Any]:
        """Network and momentum."""
        return {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def weights(self) -> NetworkWeights:
        """The convolutions, with the scale that brings the features of the held-back images to the usual size."""
        self._net.eval()
        features = self._net.trunk(self._whole(self._held_back.pixels[:256]))
        return NetworkWeights(
            name="classification",
            tensors=self._net.trunk.folded(),
            mean=IMAGENET_MEAN,
            feature_scale=float(f"{FEATURE_STD / float(features.std()):.4g}"),
            sampling_ratio=None,
            roi_grid=None,
            provenance=f"classification of {len(self._labels)} images of {len(self._held_back.classes)} classes, "
            f"{self._config.epochs:g} epochs, top-1 {self.validate()['top1']:.3f}",
            sha256="",
        )

    def _whole(self, pixels: Tensor) -> Tensor:
        """Images [N, 3, side, side] uint8 as the network sees those it is not trained on."""
        x = pixels.float()
        if x.shape[-1] != self._side:
            x = F.interpolate(x, (self._side, self._side), mode="bilinear", align_corners=False)
        return (x - self._mean).contiguous(memory_format=torch.channels_last)

    def _batch(self, number: int) -> Tensor:
        epoch, place = divmod(number, self._steps_per_epoch)
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            generator = random_generator(torch.device("cpu"), self._config.seed, 0, epoch)
            order = torch.randperm(len(self._labels), generator=generator)
            self._epoch_order = epoch, order.to(self._labels.device)
        return self._epoch_order[1][place * self.samples_per_step :][: self.samples_per_step]
