"""Every number of the method, with its unit and source.

Sources: "paper" is Cui, Lu, Jing, Shi, "Fast Dynamic Convolutional Neural Networks for Visual Tracking" (ACML 2018);
"MDNet" is Nam and Han, CVPR 2016, which the paper follows where it is silent; "release" is the authors' MATLAB code.
Lengths in "target sizes" are multiples of the mean of the target's width and height.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .errors import InputError

STRIDE = 16
"""Input pixels per feature cell: two stride-2 convolutions and two stride-2 poolings (paper 3.2)."""

ROI_BINS = 3
"""The RoI layer gives 3x3 bins (paper 3.2)."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network of paper section 3.2 and the variants of sections 4.3 and 4.4."""

    conv_layers: Literal[3, 5] = 3
    """Convolution layers taken from VGG-M (paper 3.2: 3; 5 is the variant of 4.4)."""
    fc_layers: Literal[2, 3] = 3
    """Fully-connected layers (paper 3.2: 3; 2 is the variant of 4.4)."""
    roi_layer: Literal["align", "pool"] = "align"
    """RoI layer: max-RoIAlign (paper 3.2) or RoIPool (the variant of 4.3)."""
    sampling_ratio: Literal["auto", 1, 2, 3] = "auto"
    """Samples per bin and axis in max-RoIAlign (paper 3.2: 2; 1 and 3 are the variants it mentions); auto as the
    weights were trained (2 where they do not say)."""
    roi_grid: Literal["auto", "midpoint", "interior"] = "auto"
    """Where the n samples of a bin lie: midpoint (j+0.5)/n, interior (j+1)/(n+1) as the release, auto as the
    weights were trained (midpoint where they do not say)."""
    roi_extend: float = 0.0
    """Feature cells added to the right and bottom of a RoI (release: 1)."""


@dataclass(frozen=True)
class TrackerConfig:
    """The whole tracker. The defaults are the preset "paper"."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    seed: int = 0
    """Of each target's generator, which decides all that is random; equal seeds draw the same on every device."""

    # Frame
    short_side: int = 600
    """Pixels; the frame is scaled so that its short side has this length ..."""
    max_side: int = 1000
    """Pixels; ... unless the long side would pass this one."""
    target_size: float | None = 80.0
    """Pixels; the frame is made smaller still where the target's mean side would pass this on its first frame (of
    several, the smallest's). A feature sees 75 pixels: of much larger targets only parts, at a higher cost. None leaves
    it (the paper)."""
    least_target_size: float | None = 64.0
    """Pixels; it is made larger where that side would stay below this (and below ``target_size``), but no more than
    twice as large: the 3x3 bins of a target of less than three feature cells, 48 pixels, repeat cells, and candidates
    are a third smaller. None leaves it (the paper)."""
    resize_step: float | None = 1.1
    """Frames are made smaller by this factor each time that the target has grown by it in them, and larger each time
    that it has shrunk by it (of several, in the geometric mean), but no more than twice as large as by the sides above.
    So a target is seen about as large as it was learnt, as in MDNet, which crops it to one size. None keeps the size of
    the first frame (the paper)."""
    conv_precision: Literal["auto", "half", "fp32", "fp16", "bf16"] = "auto"
    """Type of the convolutions' weights and maps; auto is fp16 on a GPU and fp32 on a CPU. On a GPU, PyTorch rounds
    what fp32 convolutions multiply to 10 bits of mantissa (TF32); fp16 keeps as many, for values up to 65504. On a CPU
    that has instructions for it (AVX512_BF16, AMX), bf16 with its 7 bits takes half the time of fp32; on others
    several times as long. half is fp16 on a GPU, bf16 on a CPU that has the instructions, else fp32."""
    feature_precision: Literal["half", "fp32", "bf16"] = "fp32"
    """On a CPU, type of the samples' features, and of what the first fully-connected layer multiplies: bf16 takes half
    the memory too; half is bf16 on a CPU that has the instructions, else fp32. A GPU uses fp32."""

    # Drawing boxes (MDNet)
    scale_step: float = 1.05
    """Base of all scale factors."""
    min_box_size: float = 10.0
    """Pixels of the resized frame; drawn widths and heights lie in [this, frame - this], and reach to the target's
    own where that lies outside."""
    round_boxes: bool = False
    """Round drawn boxes and the box searched from to whole pixels of the given image (the release does)."""

    # Search (paper 3.4)
    candidates: int = 256
    """Candidates a frame (paper 3.1: 256; release: 512)."""
    search_translation: float = 0.6
    """Spread of the candidates' centres, target sizes."""
    search_scale: float = 1.0
    """Spread of the candidates' size, exponents of scale_step."""
    search_growth: float = 1.1
    """Factor on the spread after each failed frame."""
    search_translation_max: float = 1.5
    """Largest spread, target sizes."""
    top_k: int = 5
    """Candidates averaged into the result (MDNet and release: 5; the paper's text: 1)."""
    score_threshold: float = 0.0
    """m: a frame succeeds when its score is above (paper 3.4)."""

    # Bounding box regression (paper 3.4, R-CNN)
    bbox_regression: bool = True
    """Refine the result by a regressor trained on the first frame."""
    search_from_refined: bool = False
    """Search on from the refined box instead of the mean of the best candidates."""
    search_size_refined: float = 0.5
    """Else, search on from that mean with this share of the regressor's change of its size (in logarithms, as far as it
    is beyond the tolerance; MDNet: 0), where a box of the refined size scores no less. Scores alone tell sizes little,
    as boxes that overlap the target by 0.7 are learnt to be as good as its own: by them, boxes fall far behind targets
    that grow."""
    search_size_tolerance: float = 0.05
    """Change of the size, in logarithms, that the search takes no notice of: by a few hundredths the regressor errs to
    one side for many frames, where the target looks otherwise than in the first one."""
    bbox_regression_draws: int = 10_000
    bbox_regression_samples: int = 1_000
    """Samples kept for the regressor, of those drawn."""
    bbox_regression_translation: float = 0.3
    """Spread of the drawn centres, target widths and heights."""
    bbox_regression_scale: float = 10.0
    """Spread of the drawn sizes, exponents of scale_step."""
    bbox_regression_smaller: bool = True
    """Draw boxes smaller than the target as often as larger ones; False draws none smaller but by their aspect (MDNet).
    Where the features tell it little, a ridge regression answers with the mean of what it has learnt: with MDNet's
    draws that is a box a tenth smaller than the one that was found."""
    bbox_regression_iou: float = 0.6
    """A sample for the regressor overlaps the target by more."""
    bbox_regression_ridge: float = 1000.0
    """Weight of the ridge penalty, for features before the weights' ``feature_scale`` (MDNet)."""

    # First frame (paper 3.4, MDNet)
    first_shifts: int = 2
    """n: its samples are taken in turn from n x n copies of the frame, moved by n-ths of a feature cell to the right
    and down, so that the heads learn the target wherever it lies in the grid of cells; 1 takes the frame alone.
    MDNet, which crops each sample, has every sample lie differently; one convolved frame shows one way only."""
    first_positive_draws: int = 1_000
    first_positives: int = 500
    """Positives kept on the first frame, at most."""
    first_negative_draws: int = 10_000
    """Half of them around the target, half over the whole frame."""
    first_negatives: int = 5_000
    """Negatives kept on the first frame, at most."""
    first_negative_translation: float = 1.0
    """Spread of the centres drawn around the target, target sizes."""
    first_negative_scale: float = 10.0
    """Spread of their sizes, exponents of scale_step."""
    first_negative_iou: float = 0.5
    """A negative of the first frame overlaps the target by less."""
    first_iterations: int = 30
    first_learning_rate: float = 5e-4
    """Paper 3.4."""
    first_loss_threshold: float | None = None
    """Stop of the first frame's fine-tuning; None runs all iterations."""

    # Samples of every successful frame (MDNet)
    positive_draws: int = 100
    positives: int = 50
    positive_iou: float = 0.7
    """A positive overlaps the target by more (on the first frame too)."""
    positive_translation: float = 0.1
    """Spread of the positives' centres, target sizes (on the first frame too)."""
    positive_scale: float = 5.0
    """Spread of their sizes, exponents of scale_step."""
    negative_draws: int = 400
    negatives: int = 200
    negative_translation: float = 2.0
    """Spread of the negatives' centres, target sizes."""
    negative_scale: float = 5.0
    """Spread of their sizes, exponents of scale_step."""
    negative_iou: float = 0.3
    """A negative overlaps the target by less."""
    negatives_interval: int = 1
    """A target's frames from one whose negatives are remembered, if it is a success, to the next. On a CPU, features
    far around the target are computed for these only; on a GPU it saves nothing."""
    long_memory: int = 100
    """Successful frames whose positives are kept, and used by long-term updates."""
    short_memory: int = 20
    """Frames whose negatives are kept; successful ones whose positives short-term updates use."""

    # Update (paper 3.4)
    long_interval: int = 10
    """Frames between long-term updates."""
    update_iterations: int = 10
    """Iterations an update may take."""
    update_learning_rate: float = 1.5e-3
    """Paper 3.4."""
    loss_threshold: float | None = 0.01
    """l: an update ends with the iteration whose loss is below (paper 3.4, Table 1); None never stops early."""
    batch_positives: int = 32
    batch_negatives: int = 96
    mining_negatives: int = 1_024
    """Random negatives, of which the batch_negatives with the highest target score are used (paper 3.4)."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """On weights, not on biases."""
    fc6_rate: float = 10.0
    """Factor on the learning rate of the last layer."""
    bias_rate: float = 2.0
    """Factor on the learning rate of biases."""
    dropout: float = 0.5
    """In training steps only (paper 3.2)."""

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> TrackerConfig:
        """The named preset with some fields changed.

        Args:
            name: a key of :data:`PRESETS`.
            **changes: fields of this class or of :class:`NetworkConfig`.

        Raises:
            InputError: unknown preset or field (the valid ones are listed), or a value out of its range.
        """
        if name not in PRESETS:
            raise InputError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        network_names = {f.name for f in dataclasses.fields(NetworkConfig)}
        network_changes = {k: changes.pop(k) for k in list(changes) if k in network_names}
        base = PRESETS[name]
        network = _replace(changes.pop("network", base.network), network_changes)
        return _replace(base, {**changes, "network": network})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrackerConfig:
        """The inverse of ``dataclasses.asdict``; absent keys keep their defaults.

        Raises:
            InputError: unknown keys (the valid ones are listed), or a value out of its range.
        """
        values = dict(values)
        network = _replace(NetworkConfig(), values.pop("network", {}))
        return _replace(cls(), {**values, "network": network})

    def __post_init__(self) -> None:
        for config in (self.network, self):
            for field_ in dataclasses.fields(config):
                _check_value(field_.name, str(field_.type), getattr(config, field_.name))
        for name, bound in (
            ("top_k", "candidates"),
            ("batch_negatives", "mining_negatives"),
            ("short_side", "max_side"),
            ("search_translation", "search_translation_max"),
        ):
            value, most = getattr(self, name), getattr(self, bound)
            if value > most:
                raise InputError(f"{name} is {value}: it must not exceed {bound}, which is {most}")


_CHOICES: dict[str, tuple[Any, ...]] = {
    "conv_layers": (3, 5),
    "fc_layers": (2, 3),
    "roi_layer": ("align", "pool"),
    "sampling_ratio": ("auto", 1, 2, 3),
    "roi_grid": ("auto", "midpoint", "interior"),
    "conv_precision": ("auto", "half", "fp32", "fp16", "bf16"),
    "feature_precision": ("half", "fp32", "bf16"),
}
_ABOVE_ZERO = (
    "target_size",
    "least_target_size",
    "scale_step",
    "min_box_size",
    "search_growth",
    "bbox_regression_ridge",
)
_UNBOUNDED = ("score_threshold", "seed")
_MAY_BE_ZERO = ("first_iterations", "update_iterations")


def _check_value(name: str, annotation: str, value: Any) -> None:
    """Raise InputError unless the value is of its field's type and in its range."""
    if name in _CHOICES:
        if not any(value == choice and type(value) is type(choice) for choice in _CHOICES[name]):  # True equals 1
            raise InputError(f"{name} is {value!r}: choose one of {', '.join(map(str, _CHOICES[name]))}")
        return
    if annotation == "NetworkConfig" or (value is None and annotation.endswith("None")):
        return
    if annotation == "bool":
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}: it must be True or False")
        return
    whole = annotation == "int"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value != value:
        raise InputError(f"{name} is {value!r}: it must be a {'whole ' if whole else ''}number")
    if name == "seed" and not -(2**63) <= value < 2**64:
        raise InputError(f"seed is {value}: it must lie in [-2^63, 2^64)")
    if name == "dropout" and not 0 <= value < 1:
        raise InputError(f"dropout is {value}: it must lie in [0, 1)")
    if name == "search_size_refined" and not 0 <= value <= 1:
        raise InputError(f"search_size_refined is {value}: it must lie in [0, 1]")
    if name == "resize_step" and value <= 1:
        raise InputError(f"resize_step is {value}: it must be above 1")
    if name in _UNBOUNDED:
        return
    least = (2 if name == "first_negative_draws" else 1) if whole and name not in _MAY_BE_ZERO else 0
    if value < least or (value == 0 and name in _ABOVE_ZERO):
        raise InputError(
            f"{name} is {value}: it must be " + ("above 0" if name in _ABOVE_ZERO else f"at least {least}")
        )
    if not whole and value == math.inf:
        raise InputError(f"{name} is {value}: it must be finite")


_Config = TypeVar("_Config", NetworkConfig, TrackerConfig)


def _replace(base: _Config, changes: Mapping[str, Any]) -> _Config:
    valid = [f.name for f in dataclasses.fields(base)]
    unknown = [name for name in changes if name not in valid]
    if unknown:
        raise InputError(
            f"unknown configuration {'keys' if len(unknown) > 1 else 'key'} {', '.join(unknown)} in "
            f"{type(base).__name__}: the valid ones are {', '.join(valid)}"
        )
    return dataclasses.replace(base, **changes)


PresetName = Literal["paper", "release", "fast"]
"""The keys of :data:`PRESETS`."""

PRESETS: dict[str, TrackerConfig] = {
    "paper": TrackerConfig(),
    "release": TrackerConfig(
        network=NetworkConfig(sampling_ratio=2, roi_grid="interior", roi_extend=1.0),
        candidates=512,
        bbox_regression=False,
        bbox_regression_smaller=False,
        first_loss_threshold=0.01,
        first_shifts=1,
        target_size=None,
        least_target_size=None,
        resize_step=None,
        search_size_refined=0.0,
        round_boxes=True,
    ),
    "fast": TrackerConfig(
        conv_precision="half",
        feature_precision="half",
        negatives_interval=4,
        mining_negatives=512,
    ),
}
"""``paper`` computes what the paper states and what MDNet does where it is silent (the mean of the ``top_k`` best too),
with seven exceptions: ``first_shifts``, ``bbox_regression_smaller``, ``target_size``, ``least_target_size``,
``resize_step``, ``search_size_refined`` and, with weights that were trained otherwise, ``sampling_ratio``.
``release`` comes as close to the authors' MATLAB release as configuration goes. ``fast`` is for real time on two CPU
cores, chosen on videos that nothing is reported on (the README's table; ``perf/held_out.py``)."""
