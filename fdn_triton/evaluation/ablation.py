"""The paper's ablations: the variants of the method, what the paper found of each, and what is found here.

The paper prints its comparisons as plots (Fig. 7 to 9) without numbers in its text, so that what can be held against
ours is the ordering. A *measure* is the accuracy (AUC), the iterations of an update, or the frames per second.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..config import TrackerConfig
from ..frame_features import FeatureProvider, FrameFeatures
from .cropping import CroppedFeatures
from .report.numbers import added_updates, frame_rate, iterations_per_update
from .summary import TrackerScore

Measure = Literal["accuracy", "iterations", "fps"]
Relation = Literal["below", "level", "above"]
VariantName = Literal[
    "full", "no-threshold", "roi-pool", "samples-1", "samples-3", "conv-5", "fc-2", "classification", "untrained",
    "whole-frame", "crops",
]  # fmt: skip
METHOD: VariantName = "full"

LEVEL_AUC = 0.005
"""Mean AUC that differs by no more is level."""
LEVEL_RATIO = 0.05
"""Iterations and speed that differ by no greater share are level."""


@dataclass(frozen=True)
class Variant:
    """One way to run the tracker.

    Attributes:
        name: of its row and its folder.
        about: what it is, or differs in from the method.
        network, changes: fields of NetworkConfig and TrackerConfig that are not the method's.
        baselines: variants that it is compared with: the first one that has results.
        paper: how it stands to its baseline in the paper; empty where the paper does not compare.
        source: where in the paper, with its numbers.
        training: flags of ``python -m fdn_triton.train`` that give its own weights; None: the method's are its own.
        features: what the tracker takes the features of boxes from.
        short: run over a few frames only.
    """

    name: VariantName
    about: str
    network: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    baselines: tuple[VariantName, ...] = (METHOD,)
    paper: Mapping[Measure, Relation] = field(default_factory=dict)
    source: str = "not in the paper"
    training: str | None = None
    features: FeatureProvider = FrameFeatures
    short: bool = False

    def config(self, method: TrackerConfig) -> TrackerConfig:
        """Its numbers, from the method's."""
        return replace(method, network=replace(method.network, **self.network), **self.changes)


VARIANTS: dict[VariantName, Variant] = {
    variant.name: variant
    for variant in (
        Variant(METHOD, "the method: max-RoIAlign, as its weights were trained, 3 conv and 3 FC layers", baselines=()),
        Variant(
            "no-threshold",
            "all iterations of each update, no loss threshold",
            changes={"loss_threshold": None},
            paper={"accuracy": "level", "iterations": "above", "fps": "below"},
            source="Table 1: 50 iterations instead of 16",
        ),
        Variant(
            "roi-pool",
            "RoIPool instead of max-RoIAlign",
            network={"roi_layer": "pool"},
            paper={"accuracy": "below"},
            source="Fig. 7",
            training="domains --roi-layer pool",
        ),
        Variant(
            "samples-1",
            "1x1 samples a bin",
            network={"sampling_ratio": 1},
            paper={"accuracy": "below"},
            source="3.2: slightly",
            training="domains --sampling-ratio 1",
        ),
        Variant(
            "samples-3",
            "3x3 samples a bin",
            network={"sampling_ratio": 3},
            paper={"accuracy": "level"},
            source="3.2",
            training="domains --sampling-ratio 3",
        ),
        Variant(
            "conv-5",
            "5 convolution layers",
            network={"conv_layers": 5},
            paper={"accuracy": "below"},
            source="Fig. 8",
            training="classify --conv-layers 5, then domains --conv-layers 5",
        ),
        Variant(
            "fc-2",
            "2 FC layers",
            network={"fc_layers": 2},
            paper={"accuracy": "below"},
            source="Fig. 8",
            training="domains --fc-layers 2",
        ),
        Variant(
            "classification",
            "convolutions of the classification, random FC layers",
            paper={"accuracy": "below"},
            source="Fig. 9",
            training="classify",
        ),
        Variant("untrained", "random weights", baselines=("classification", METHOD)),
        Variant("whole-frame", "the method, over the frames that crops is run over", baselines=(), short=True),
        Variant(
            "crops",
            "each candidate and sample cropped, resized and convolved on its own, as MDNet",
            changes={"first_shifts": 1},  # crops lie differently by themselves
            baselines=("whole-frame",),
            paper={"fps": "below"},
            source="Table 2: MDNet 1 fps, FDN 7",
            features=CroppedFeatures,
            short=True,
        ),
    )
}


@dataclass(frozen=True)
class Comparison:
    """A variant beside its baseline, over the sequences that both have.

    Attributes:
        baseline: its name.
        sequences: how many.
        auc, precision: mean over the sequences of what the variant has more.
        auc_error: standard error of ``auc``, over the sequences; None of a single one.
        iterations, fps: the variant's, divided by the baseline's; None where there are none.
        ours: how it stands to its baseline here.
    """

    baseline: VariantName
    sequences: int
    auc: float
    precision: float
    auc_error: float | None
    iterations: float | None
    fps: float | None
    ours: Mapping[Measure, Relation]

    @property
    def is_uncertain(self) -> bool:
        """Whether the difference in accuracy could be chance: within two standard errors, or of one sequence."""
        return self.auc_error is None or abs(self.auc) < 2 * self.auc_error

    def differs(self, paper: Mapping[Measure, Relation]) -> list[Measure]:
        """The measures whose ordering is not the paper's, or not measured."""
        return [measure for measure, relation in paper.items() if self.ours.get(measure) != relation]


def compare(name: VariantName, scores: Mapping[VariantName, TrackerScore]) -> Comparison | None:
    """The variant beside the first of its baselines that has results; None where there is none."""
    if name not in scores:
        return None
    for baseline in VARIANTS[name].baselines:
        common = [each for each in scores[name].sequences if baseline in scores and each in scores[baseline].sequences]
        if common:
            return _compare(baseline, scores[name], scores[baseline], common)
    return None


def _compare(baseline: VariantName, score: TrackerScore, base: TrackerScore, common: list[str]) -> Comparison:
    ours, theirs = ([one.sequences[name] for name in common] for one in (score, base))
    auc = [a.curves.auc - b.curves.auc for a, b in zip(ours, theirs, strict=True)]
    precision = [a.curves.precision_20 - b.curves.precision_20 for a, b in zip(ours, theirs, strict=True)]
    iterations = _ratio(*(iterations_per_update(added_updates(scores)) for scores in (ours, theirs)))
    fps = _ratio(frame_rate(ours), frame_rate(theirs))
    relations: dict[Measure, Relation] = {"accuracy": _relation(statistics.fmean(auc), LEVEL_AUC)}
    ratios: dict[Measure, float | None] = {"iterations": iterations, "fps": fps}
    relations |= {measure: _relation(ratio - 1, LEVEL_RATIO) for measure, ratio in ratios.items() if ratio is not None}
    return Comparison(
        baseline=baseline,
        sequences=len(common),
        auc=statistics.fmean(auc),
        precision=statistics.fmean(precision),
        auc_error=statistics.stdev(auc) / math.sqrt(len(auc)) if len(auc) > 1 else None,
        iterations=iterations,
        fps=fps,
        ours=relations,
    )


def _relation(difference: float, margin: float) -> Relation:
    if abs(difference) <= margin:
        return "level"
    return "above" if difference > 0 else "below"


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
