"""The trunk as it is trained: batch-normalised convolutions that fold into the tracker's (paper 3.2).

The paper cites batch normalisation beside the LRN of VGG-M. Here both have a place: convolutions are followed by batch
normalisation while training, which makes it fast, and what it amounts to is folded into weights and biases at the end.
On normalised activations LRN is the constant ``k^-beta`` = 2^-0.75 to within a percent, so that it is left out while
training and the constant is folded too: the exported trunk, with its LRN, computes the same function.

The input is scaled to unit size inside of the module, not in conv1's weights, so that all layers' weights are of like
size under one learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..backbone import POOL, POOL_PADDING, POOL_STRIDE, POOLED_LAYERS, Backbone
from ..config import NetworkConfig
from ..errors import InputError
from ..frame import check_image, network_input, network_size
from ..weights import IMAGENET_MEAN, NetworkWeights

_SHAPES = ((3, 96, 7, 2, 3), (96, 256, 5, 2, 2), (256, 512, 3, 1, 1), (512, 512, 3, 1, 1), (512, 512, 3, 1, 1))
_INPUT_SCALE = 1 / 64
_LRN_CONSTANT = 2.0**-0.75
_LARGEST_DIFFERENCE = 0.03  # of the features, relative


class TrainableTrunk(nn.Module):
    """conv1 to conv3 (or conv5), each with batch normalisation and ReLU.

    Args:
        conv_layers: 3 or 5.
    """

    def __init__(self, conv_layers: int = 3) -> None:
        super().__init__()
        shapes = _SHAPES[:conv_layers]
        for i, (inputs, outputs, kernel, stride, padding) in enumerate(shapes, start=1):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"norm{i}", nn.BatchNorm2d(outputs))

    def layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions and their normalisations, in order."""
        children = list(self.children())
        return list(zip(children[::2], children[1::2], strict=True))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, h, w], RGB 0..255 minus the mean -> [N, 512, h / 16, w / 16], not negative."""
        x = images * _INPUT_SCALE
        for i, (convolution, norm) in enumerate(self.layers()):
            x = F.relu(norm(convolution(x)), inplace=True)
            if i < POOLED_LAYERS:
                x = F.max_pool2d(x, POOL, POOL_STRIDE, POOL_PADDING)
        return x

    @classmethod
    @torch.no_grad()
    def from_folded(cls, tensors: Mapping[str, Tensor], conv_layers: int = 3) -> TrainableTrunk:
        """The inverse of :meth:`folded`: the same function, the normalisation's part of it in the convolutions."""
        with torch.random.fork_rng(devices=[]):  # the random start, which is overwritten here
            trunk = cls(conv_layers)
        for i, (convolution, norm) in enumerate(trunk.layers(), start=1):
            convolution.weight.copy_(tensors[f"conv{i}.weight"] / _source_scale(i))
            norm.bias.copy_(tensors[f"conv{i}.bias"])
            assert norm.running_var is not None
            norm.running_var.fill_(1 - norm.eps)
        return trunk

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """``conv1.weight``, ``conv1.bias``, ... of the tracker's trunk, fp32 on the CPU."""
        tensors = {}
        for i, (convolution, norm) in enumerate(self.layers(), start=1):
            assert norm.running_mean is not None and norm.running_var is not None
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = convolution.weight * factor[:, None, None, None] * _source_scale(i)
            tensors[f"conv{i}.weight"] = weight.float().cpu()
            tensors[f"conv{i}.bias"] = (norm.bias - norm.running_mean * factor).float().cpu()
        return tensors


@torch.no_grad()
def trunk_to_train(
    weights: NetworkWeights, network: NetworkConfig, frames: Iterable[NDArray[np.uint8]]
) -> TrainableTrunk:
    """The trunk of a weights file, to go on training it.

    Args:
        weights: made by this package's training.
        network: of the weights.
        frames: RGB images [H, W, 3] on which the trunk has to compute what the tracker does.

    Raises:
        InputError: it does not: the weights are of another project, whose activations LRN changes, or another mean
            pixel is subtracted.
    """
    trunk = TrainableTrunk.from_folded(weights.tensors, network.conv_layers).eval()
    backbone = Backbone.with_weights(network, weights.tensors, weights.feature_scale)
    error = size = 0.0
    for frame in frames:
        height, width = frame.shape[:2]
        size_hw = network_size(height, width, short_side=240, max_side=480)
        image = check_image(frame)
        expected = backbone(network_input(image, size_hw, torch.tensor(weights.mean)))
        features = trunk(network_input(image, size_hw, torch.tensor(IMAGENET_MEAN))) * weights.feature_scale
        error += float((features - expected).square().sum())
        size += float(expected.square().sum())
    if not error <= _LARGEST_DIFFERENCE**2 * size:
        raise InputError(
            f"{weights.name!r} has other features, by {(error / size) ** 0.5 if size else np.inf:.0%}, without its "
            "normalisation layers, which are left out while training: give weights of train classify or domains"
        )
    return trunk


def _source_scale(layer: int) -> float:
    """What the tracker's convolution, which sees other inputs, has to multiply its weights by."""
    if layer == 1:
        return _INPUT_SCALE
    return 1 / _LRN_CONSTANT if layer <= POOLED_LAYERS + 1 else 1.0
