"""The ablation as a table: for the terminal, as Markdown, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ablation import LEVEL_AUC, LEVEL_RATIO, METHOD, Comparison, Measure, Relation, Variant, VariantName, compare
from ..ablation_weights import VariantWeights
from ..summary import SequenceScore, TrackerScore, spread
from .numbers import added_updates, frame_rate, iterations_per_update

_WORDS: dict[tuple[Measure, Relation], str] = {
    ("accuracy", "below"): "less accurate",
    ("accuracy", "level"): "as accurate",
    ("accuracy", "above"): "more accurate",
    ("iterations", "below"): "fewer iterations",
    ("iterations", "level"): "as many iterations",
    ("iterations", "above"): "more iterations",
    ("fps", "below"): "slower",
    ("fps", "level"): "as fast",
    ("fps", "above"): "faster",
}
_HEADER = (
    "variant",
    "sequences",
    "precision",
    "AUC",
    "iterations/update",
    "fps",
    "against",
    "ours",
    "paper",
    "verdict",
)


@dataclass(frozen=True, eq=False)
class VariantResult:
    """A variant as it was run.

    Attributes:
        variant: which.
        weights: it ran on; None where it has none.
        score: None where nothing was scored.
        left_out: why it was not run, or None.
        settings: what it was run with, in words.
    """

    variant: Variant
    weights: VariantWeights | None
    score: TrackerScore | None
    left_out: str | None
    settings: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Ablation:
    """All variants, in order, and what was run with how many seeds and frames, in words."""

    results: Sequence[VariantResult]
    settings: Mapping[str, str]
    problems: Sequence[str]

    @property
    def scores(self) -> dict[VariantName, TrackerScore]:
        """Of the variants that have one."""
        return {result.variant.name: result.score for result in self.results if result.score is not None}


def terminal_table(ablation: Ablation) -> str:
    """The table in columns, below it what each variant is and which weights it ran on."""
    rows = [_HEADER, *_rows(ablation)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *(f"{name}: {said}" for name, said in _about(ablation))])


def markdown(ablation: Ablation) -> str:
    """The table, what is in it, and the loss threshold on each sequence, as ``ablation.md``."""
    parts = [
        "# Ablation",
        "; ".join(f"{key}: {value}" for key, value in ablation.settings.items()) + ".",
        _markdown_table(_HEADER, _rows(ablation)),
        "*ours* is the variant beside the one it is compared *against*, over the sequences of both: the mean "
        "difference of AUC with its standard error over the sequences, and the ratios of iterations per update and of "
        f"speed. Level is AUC to within {LEVEL_AUC:g}, iterations and speed to within {LEVEL_RATIO:.0%}. Speed is "
        "wall-clock time: it compares only where the machine did nothing else.",
        "\n".join(f"- **{name}**: {_escaped(said)}" for name, said in _about(ablation)),
    ]
    if rows := _threshold_rows(ablation.scores):
        header = ("sequence", *(f"{what}, {kind}" for what in ("iterations/update", "fps", "precision", "AUC")
                                for kind in ("threshold", "none")))  # fmt: skip
        parts += ["## The loss threshold on each sequence", _markdown_table(header, rows)]
    if ablation.problems:
        parts += ["## Problems", "\n".join(f"- {_escaped(line)}" for line in ablation.problems)]
    return "\n\n".join(parts) + "\n"


def to_json(ablation: Ablation) -> dict[str, Any]:
    """The content of ``ablation.json``."""
    return {
        "settings": dict(ablation.settings),
        "problems": list(ablation.problems),
        "variants": {result.variant.name: _variant_json(result, ablation.scores) for result in ablation.results},
    }


def verdict(result: VariantResult, comparison: Comparison | None) -> str:
    """Whether ours is as in the paper, and what speaks against relying on it."""
    paper = result.variant.paper
    if comparison is None or not paper:
        return "–"
    differs = comparison.differs(paper)
    said = [f"differs in {', '.join(differs)}" if differs else "as the paper"]
    accuracies = {paper.get("accuracy"), comparison.ours["accuracy"]}
    if "accuracy" in paper and comparison.is_uncertain and accuracies != {"level"}:
        said.append("one sequence only" if comparison.auc_error is None else "accuracy within the noise")
    if result.weights is not None and not result.weights.fair:
        said.append("not on weights of its own")
    return "; ".join(said)


def _rows(ablation: Ablation) -> list[tuple[str, ...]]:
    rows = []
    for result in ablation.results:
        variant, score = result.variant, result.score
        if score is None:
            said = "left out" if result.left_out else "failed"
            rows.append((variant.name, *["–"] * 7, _paper(variant), said))
            continue
        comparison = compare(variant.name, ablation.scores)
        deviation = spread(score.seeds)
        precision, auc = (f" ± {value:.3f}" for value in deviation) if deviation else ("", "")
        sequences = list(score.sequences.values())
        rows.append((
            variant.name,
            str(len(sequences)),
            f"{score.curves.precision_20:.3f}{precision}",
            f"{score.curves.auc:.3f}{auc}",
            _number(iterations_per_update(added_updates(sequences))),
            _number(frame_rate(sequences)),
            "–" if comparison is None else comparison.baseline,
            "–" if comparison is None else _ours(variant, comparison),
            _paper(variant),
            verdict(result, comparison),
        ))  # fmt: skip
    return rows


def _ours(variant: Variant, comparison: Comparison) -> str:
    measures = list(variant.paper) or ["accuracy"]
    said = []
    if "accuracy" in measures:
        error = "" if comparison.auc_error is None else f" ± {comparison.auc_error:.3f}"
        said.append(f"{_said(comparison.ours, ['accuracy'])[0]} (AUC {comparison.auc:+.3f}{error})")
    ratios: dict[Measure, float | None] = {"iterations": comparison.iterations, "fps": comparison.fps}
    for measure, ratio in ratios.items():
        if measure in measures:
            times = "" if ratio is None else f" (x {ratio:.3g})"
            said.append(f"{_said(comparison.ours, [measure])[0]}{times}")
    return ", ".join(said)


def _paper(variant: Variant) -> str:
    return (
        ", ".join(_said(variant.paper, variant.paper)) + f" ({variant.source.partition(':')[0]})"
        if variant.paper
        else "–"
    )


def _said(relations: Mapping[Measure, Relation], measures: Iterable[Measure]) -> list[str]:
    return [_WORDS[each, relations[each]] if each in relations else f"{each} not measured" for each in measures]


def _about(ablation: Ablation) -> list[tuple[str, str]]:
    """Name and nature of each variant."""
    said: list[tuple[str, str]] = []
    for result in ablation.results:
        weights = f"; weights: {result.weights.label}" if result.weights else ""
        left_out = f"; left out: {result.left_out}" if result.left_out else ""
        paper = f"; paper: {result.variant.source}" if ":" in result.variant.source else ""
        said.append((result.variant.name, f"{result.variant.about}{paper}{weights}{left_out}"))
    return said


def _threshold_rows(scores: Mapping[VariantName, TrackerScore]) -> list[tuple[str, ...]]:
    """A row for each sequence that was run with and without the threshold: Table 1's argument on every sequence."""
    pair = [scores.get(METHOD), scores.get("no-threshold")]
    on, off = (score.sequences if score is not None else {} for score in pair)
    rows = []
    for name in (name for name in on if name in off):
        both = on[name], off[name]
        rows.append((
            name,
            *(_number(iterations_per_update(score.updates)) for score in both),
            *(_number(score.fps) for score in both),
            *(f"{score.curves.precision_20:.3f}" for score in both),
            *(f"{score.curves.auc:.3f}" for score in both),
        ))  # fmt: skip
    return rows


def _variant_json(result: VariantResult, scores: Mapping[VariantName, TrackerScore]) -> dict[str, Any]:
    variant, weights, score = result.variant, result.weights, result.score
    comparison = compare(variant.name, scores)
    return {
        "about": variant.about,
        "left_out": result.left_out,
        "weights": weights and {
            "name": weights.loaded.name,
            "sha256": weights.loaded.sha256,
            "provenance": weights.loaded.provenance,
            "label": weights.label,
            "own": weights.fair,
        },
        "settings": dict(result.settings),
        **({} if score is None else _score_json(list(score.sequences.values()), score)),
        "paper": {"ordering": dict(variant.paper), "source": variant.source} if variant.paper else None,
        "comparison": comparison and {
            "against": comparison.baseline,
            "sequences": comparison.sequences,
            "auc_difference": comparison.auc,
            "auc_standard_error": comparison.auc_error,
            "precision_difference": comparison.precision,
            "iterations_ratio": comparison.iterations,
            "fps_ratio": comparison.fps,
            "ordering": dict(comparison.ours),
            "differs": comparison.differs(variant.paper),
            "verdict": verdict(result, comparison),
        },
    }  # fmt: skip


def _score_json(sequences: Sequence[SequenceScore], score: TrackerScore | SequenceScore) -> dict[str, Any]:
    content: dict[str, Any] = {
        "precision": score.curves.precision_20,
        "auc": score.curves.auc,
        "frames": score.curves.frames,
        "seeds": {str(seed): {"precision": p, "auc": auc} for seed, (p, auc) in score.seeds.items()},
        "iterations_per_update": iterations_per_update(added_updates(sequences)),
        "fps": frame_rate(sequences),
    }
    if isinstance(score, TrackerScore):
        content["sequences"] = {name: _score_json([each], each) for name, each in score.sequences.items()}
    return content


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, cells))} |" for cells in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
