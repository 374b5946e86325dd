"""The shared part of the network: VGG-M's convolutions over the whole frame, and the RoI layer (paper 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ROI_BINS, STRIDE, NetworkConfig
from .kernels import lrn_max_pool, max_roi_align, roi_linear
from .kernels.boxes import xywh_to_xyxy
from .kernels.onednn import PackedConvolution, linear, multiplies_faster
from .roi_pool import roi_pool
from .winograd import WinogradConvolution

FEATURE_CHANNELS = 512
ROI_FEATURES = FEATURE_CHANNELS * ROI_BINS * ROI_BINS
POOLED_LAYERS = 2  # the first two convolutions are normalised and pooled
POOL, POOL_STRIDE, POOL_PADDING = 3, 2, 1
_CHANNELS_IN_FP16 = 4  # of conv1's input: on an H200 cuDNN takes 59 microseconds with 4, 106 with 3 and 111 with 8


class Backbone(nn.Module):
    """conv1 to conv3 (or conv5) of VGG-M with the paddings that put the centre of feature cell i on pixel 16 i.

    Attributes:
        conv1 ... conv3 (conv5): the convolutions.
        feature_scale: factor on the last layer's output; one number that brings other weights to the size of VGG-M's
            features, for which the tracker's learning rates are made.
    """

    feature_scale: Tensor

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        self.network = network
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2, padding=3)
        self.conv2 = nn.Conv2d(96, 256, 5, stride=2, padding=2)
        self.conv3 = nn.Conv2d(256, 512, 3, padding=1)
        if network.conv_layers == 5:
            self.conv4 = nn.Conv2d(512, 512, 3, padding=1)
            self.conv5 = nn.Conv2d(512, 512, 3, padding=1)
        self.register_buffer("feature_scale", torch.ones(()))

    @classmethod
    def with_weights(
        cls,
        network: NetworkConfig,
        tensors: Mapping[str, Tensor],
        feature_scale: float,
        dtype: torch.dtype = torch.float32,
    ) -> Backbone:
        """A backbone with the ``conv*`` tensors of a weights file, which must be complete, rounded to ``dtype``."""
        with torch.device("meta"):
            backbone = cls(network)
        state = {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("conv")}
        state["feature_scale"] = torch.tensor(feature_scale, dtype=torch.float32)
        backbone.load_state_dict(state, assign=True)
        for convolution in backbone.convolutions():
            convolution.to(dtype)
            convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        return backbone.requires_grad_(False)

    def forward(self, frame: Tensor) -> Tensor:
        """Whole-frame features.

        Args:
            frame: [N, 3, h, w], RGB 0..255 minus the mean; with zeros behind that, up to :attr:`input_channels`, no
                copy is made.

        Returns:
            [N, 512, ceil(h / 16), ceil(w / 16)], channels-last in memory, not negative, of the weights' type.
        """
        x = frame.to(self.dtype)
        if self._rectifies and not (torch.is_grad_enabled() and frame.requires_grad):
            if x.shape[1] < self.input_channels:
                x = F.pad(x, (0, 0, 0, 0, 0, self.input_channels - x.shape[1]))
            for i, layer in enumerate(self._rectified_convolutions):
                x = torch.cudnn_convolution_relu(x, *layer, dilation=(1, 1), groups=1)
                x = normalise_and_pool(x) if i < POOLED_LAYERS else x
            return x
        for i, convolution in enumerate(self.convolutions()):
            x = convolution(x)
            x = normalise_and_pool(x) if i < POOLED_LAYERS else F.relu(x, inplace=True)
        return x * self.feature_scale

    def convolutions(self) -> list[nn.Conv2d]:
        """The convolutions in order."""
        return [layer for layer in self.children() if isinstance(layer, nn.Conv2d)]

    @property
    def _rectifies(self) -> bool:
        """Whether convolution, bias and ReLU are one operation here: one without a derivative, and measured in fp16."""
        cudnn = torch.backends.cudnn
        on_nvidia = self.device.type == "cuda" and torch.version.hip is None and cudnn.enabled and cudnn.is_available()
        return on_nvidia and self.dtype == torch.float16 and not self.conv1.weight.requires_grad

    @property
    def input_channels(self) -> int:
        """Of the frames that are convolved without a copy."""
        return _CHANNELS_IN_FP16 if self._rectifies else 3

    @cached_property
    def _rectified_convolutions(self) -> list[tuple[Tensor, Tensor, tuple[int, ...], Any]]:
        """Weight, bias, stride and padding of every layer: the first one's weight has :attr:`input_channels`, the last
        one's holds the scale. Made and renewed as :attr:`unpadded_convolutions` is."""
        layers = []
        convolutions = self.convolutions()
        for i, convolution in enumerate(convolutions):
            weight, bias = convolution.weight, convolution.bias
            assert bias is not None
            if i == 0:
                weight = F.pad(weight, (0, 0, 0, 0, 0, self.input_channels - weight.shape[1]))
            if i + 1 == len(convolutions):
                weight, bias = ((self.feature_scale * x.float()).to(x.dtype) for x in (weight, bias))
            weight = weight.contiguous(memory_format=torch.channels_last)
            layers.append((weight, bias, convolution.stride, convolution.padding))
        return layers

    @cached_property
    def unpadded_convolutions(self) -> list[Callable[[Tensor], Tensor]]:
        """The convolutions, biases included, of one image [1, C, H, W] that has its padding, in the fastest way that
        gives their results up to rounding. Made at the first use, and anew after weights were moved, cast or loaded;
        what is written into them otherwise need not reach it."""
        return [_without_padding(layer) for layer in self.convolutions()]

    def _apply(self, *args: Any, **kwargs: Any) -> Backbone:
        self._forget_prepared()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget_prepared()
        super()._load_from_state_dict(*args, **kwargs)

    def _forget_prepared(self) -> None:
        for name in ("unpadded_convolutions", "_rectified_convolutions"):
            self.__dict__.pop(name, None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.feature_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions' weights, and of the maps behind them."""
        return self.conv1.weight.dtype

    def roi_features(self, feature_map: Tensor, boxes_xywh: Tensor) -> Tensor:
        """Fixed-size features of boxes.

        Args:
            feature_map: [1, 512, h, w] of one frame.
            boxes_xywh: [..., 4] in pixels of the resized frame.

        Returns:
            [..., 4608] in at least fp32, ordered (y, x, channel) of the 3x3 bins. RoIPool knows no grid, samples or
            extension.
        """
        rois = _rois(boxes_xywh)
        dtype = torch.promote_types(feature_map.dtype, torch.float32)  # the heads learn in fp32
        if self.network.roi_layer == "pool":
            bins = roi_pool(feature_map, rois, ROI_BINS, 1 / STRIDE).to(dtype)
        else:
            bins = max_roi_align(
                feature_map,
                rois,
                ROI_BINS,
                spatial_scale=1 / STRIDE,
                sampling_ratio=self._sampling_ratio,
                grid="midpoint" if self.network.roi_grid == "auto" else self.network.roi_grid,
                extend=self.network.roi_extend,
                dtype=dtype,
            )
        return bins.permute(0, 2, 3, 1).reshape(*boxes_xywh.shape[:-1], ROI_FEATURES)

    def linear_of_rois(self, feature_map: Tensor, boxes_xywh: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A linear layer on the :meth:`roi_features` of boxes [K, 4]: with weight [out, 4608] and bias [out], [K, out].

        With one sample a bin the features themselves are not needed.
        """
        if self.network.roi_layer == "pool" or self._sampling_ratio > 1:
            return linear(self.roi_features(feature_map, boxes_xywh), weight, bias)
        rois, extend = _rois(boxes_xywh), self.network.roi_extend
        return roi_linear(feature_map, rois, ROI_BINS, weight, bias, spatial_scale=1 / STRIDE, extend=extend)

    @property
    def _sampling_ratio(self) -> int:
        """The tracker has settled what is auto; of a network alone, it is the paper's."""
        return 2 if self.network.sampling_ratio == "auto" else self.network.sampling_ratio


def _rois(boxes_xywh: Tensor) -> Tensor:
    """[K, 5]: the boxes [..., 4] of the first image."""
    return F.pad(xywh_to_xyxy(boxes_xywh.reshape(-1, 4)), (1, 0))


def _without_padding(convolution: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    # Winograd's products are MKL's: where oneDNN multiplies twice as fast, the plain way takes less time
    # (30x38 outputs of conv2 in 5.6 ms instead of 6.7, one thread of an AMD EPYC, fifth generation, 2026-11-26).
    if WinogradConvolution.fits(convolution) and not multiplies_faster():
        return WinogradConvolution(convolution)
    if PackedConvolution.fits(convolution):
        return PackedConvolution(convolution)
    return partial(F.conv2d, weight=convolution.weight, bias=convolution.bias, stride=convolution.stride)


def normalise_and_pool(x: Tensor, padding: int | tuple[int, int, int, int] = POOL_PADDING) -> Tensor:
    """ReLU, LRN and max-pooling behind the first two convolutions, with VGG-M's constants."""
    return lrn_max_pool(x, size=5, alpha=1e-4, beta=0.75, k=2.0, pool=POOL, stride=POOL_STRIDE, padding=padding)
