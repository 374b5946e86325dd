"""``python -m fdn_triton.evaluate ablation``: variants, their weights, orderings, and a command that goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from example_evaluation import boxes, scored, truth
from small_otb import QUICK_FLAGS, add_sequence

from fdn_triton import evaluate
from fdn_triton.config import NetworkConfig, TrackerConfig
from fdn_triton.errors import InputError
from fdn_triton.evaluation import work
from fdn_triton.evaluation.ablation import METHOD, VARIANTS, VariantName, compare
from fdn_triton.evaluation.ablation_weights import NoWeights, choose_weights, trained_files
from fdn_triton.evaluation.profiles import Curves
from fdn_triton.evaluation.report.ablation_table import Ablation, VariantResult, terminal_table, verdict
from fdn_triton.evaluation.summary import SequenceScore, TrackerScore
from fdn_triton.weights import NetworkWeights, load_weights, save_weights, tensor_shapes, untrained_weights

NETWORK = NetworkConfig()
FRAMES = 20


def score(errors: dict[str, float], iterations: int = 20, fps: float = 4.0) -> TrackerScore:
    """A made-up score, sequence -> pixels that it is off in the end."""
    sequences = {
        name: SequenceScore(
            curves=scored(boxes(FRAMES, error), truth(FRAMES)),
            seeds={0: (1.0, 0.5)},
            fps=fps,
            updates={"short": 1, "long": 1, "iterations": iterations},
        )
        for name, error in errors.items()
    }
    return TrackerScore("", sequences, Curves.mean([each.curves for each in sequences.values()]))


def result(name: VariantName, own: TrackerScore) -> VariantResult:
    return VariantResult(VARIANTS[name], None, own, None, {})


# Orderings


def test_a_comparison_is_over_the_common_sequences() -> None:
    scores = {METHOD: score({"a": 2.0, "b": 4.0, "only": 90.0}), "roi-pool": score({"b": 8.0, "a": 7.0, "other": 0.0})}
    found = compare("roi-pool", scores)
    assert found is not None and (found.baseline, found.sequences, found.ours["accuracy"]) == (METHOD, 2, "below")
    differences = [
        scores["roi-pool"].sequences[name].curves.auc - scores[METHOD].sequences[name].curves.auc for name in "ab"
    ]
    assert found.auc == pytest.approx(sum(differences) / 2)
    assert found.auc_error == pytest.approx(abs(differences[0] - differences[1]) / 2)
    assert verdict(result("roi-pool", scores["roi-pool"]), found) == "as the paper"


def test_a_baseline_without_results_is_passed_over() -> None:
    scores = {METHOD: score({"a": 2.0}), "untrained": score({"a": 9.0})}
    assert (found := compare("untrained", scores)) is not None and found.baseline == METHOD
    found = compare("untrained", {**scores, "classification": score({"a": 4.0})})
    assert found is not None and found.baseline == "classification"
    assert compare(METHOD, scores) is None and compare("fc-2", scores) is None
    assert compare("fc-2", {"fc-2": score({"a": 1.0})}) is None


def test_an_ordering_that_is_not_the_papers_is_named() -> None:
    better, worse = score({"a": 2.0, "b": 3.0}), score({"a": 8.0, "b": 8.5})
    found = compare("roi-pool", {METHOD: worse, "roi-pool": better})
    assert verdict(result("roi-pool", better), found) == "differs in accuracy"
    found = compare("samples-3", {METHOD: better, "samples-3": better})
    assert verdict(result("samples-3", better), found) == "as the paper"
    once = score({"a": 8.0})
    found = compare("roi-pool", {METHOD: better, "roi-pool": once})
    assert verdict(result("roi-pool", once), found) == "as the paper; one sequence only"
    chance = score({"a": 0.0, "b": 8.0})
    found = compare("roi-pool", {METHOD: better, "roi-pool": chance})
    assert verdict(result("roi-pool", chance), found).endswith("accuracy within the noise")
    slow = score({"a": 0.0, "b": 8.0}, fps=1.0)
    found = compare("crops", {"whole-frame": better, "crops": slow})
    assert found is not None and found.is_uncertain
    assert verdict(result("crops", slow), found) == "as the paper", "which compares speed only"


def test_the_threshold_is_judged_by_iterations_speed_and_accuracy() -> None:
    on, off = score({"a": 2.0}, iterations=10, fps=5.0), score({"a": 2.0}, iterations=40, fps=4.0)
    found = compare("no-threshold", {METHOD: on, "no-threshold": off})
    assert found is not None and (found.iterations, found.fps) == (pytest.approx(4.0), pytest.approx(0.8))
    assert found.ours == VARIANTS["no-threshold"].paper
    assert verdict(result("no-threshold", off), found) == "as the paper"
    swapped = compare("no-threshold", {METHOD: off, "no-threshold": on})
    assert verdict(result("no-threshold", on), swapped) == "differs in iterations, fps"


def test_what_was_not_measured_is_said() -> None:
    """Without any update after the first frame there are no iterations to compare."""
    on, off = score({"a": 2.0}, fps=5.0), score({"a": 2.0}, fps=4.0)
    for each in (*on.sequences.values(), *off.sequences.values()):
        each.updates.update(short=0, long=0, iterations=0)
    results = [result(METHOD, on), result("no-threshold", off)]
    row = terminal_table(Ablation(results, {}, [])).splitlines()[2]
    assert "iterations not measured, slower (x 0.8)" in row and "differs in iterations" in row


def test_variants_change_what_they_say() -> None:
    method = TrackerConfig.from_preset("paper", candidates=99)
    for name, variant in VARIANTS.items():
        config = variant.config(method)
        assert config.candidates == 99
        network = {key: value for key, value in vars(config.network).items() if vars(NETWORK)[key] != value}
        assert (network, config.loss_threshold is None) == (variant.network, name == "no-threshold")


# Weights


def whole(network: NetworkConfig = NETWORK) -> NetworkWeights:
    """Weights with FC layers."""
    start = untrained_weights(network)
    shapes = {name: shape for name, shape in tensor_shapes(network).items() if name.startswith("fc")}
    tensors = {
        **start.tensors,
        **{name: start.tensors["conv1.bias"].new_zeros(shape) for name, shape in shapes.items()},
    }
    return dataclasses.replace(start, tensors=tensors, provenance="made up")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "trained.safetensors"
    save_weights(path, whole())
    return path


def test_weights_that_fit_are_the_methods(trained: Path, tmp_path: Path) -> None:
    for name, fair in ((METHOD, True), ("no-threshold", True), ("crops", True), ("roi-pool", False)):
        chosen = choose_weights(VARIANTS[name], NETWORK, str(trained), {}, tmp_path / name)  # type: ignore[index]
        assert (chosen.name, chosen.fair) == (str(trained), fair)
    assert not list(tmp_path.iterdir())


def test_two_fc_layers_take_the_convolutions(trained: Path, tmp_path: Path) -> None:
    variant = VARIANTS["fc-2"]
    chosen = choose_weights(variant, NETWORK, str(trained), {}, tmp_path / "fc-2")
    assert not chosen.fair and "random FC" in chosen.label
    loaded = load_weights(chosen.name, dataclasses.replace(NETWORK, fc_layers=2))
    assert set(loaded.tensors) == {f"conv{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")}
    assert "without the FC layers" in loaded.provenance
    own = tmp_path / "own.safetensors"
    save_weights(own, whole(dataclasses.replace(NETWORK, fc_layers=2)))
    chosen = choose_weights(variant, NETWORK, str(trained), {"fc-2": own}, tmp_path)
    assert chosen.fair and chosen.name == str(own) and "made up" in chosen.label


@pytest.mark.parametrize("name, needs", [("conv-5", "--conv-layers 5"), ("classification", "train classify")])
def test_a_variant_without_weights_says_how_to_get_them(
    name: VariantName, needs: str, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoWeights, match=f"{needs}.*--trained {name}=FILE"):
        choose_weights(VARIANTS[name], NETWORK, str(trained), {}, tmp_path)


def test_everything_but_classification_runs_untrained(tmp_path: Path) -> None:
    chosen = choose_weights(VARIANTS["conv-5"], NETWORK, "untrained", {}, tmp_path)
    assert chosen.fair and "conv5.weight" in chosen.loaded.tensors
    with pytest.raises(NoWeights, match="--weights"):
        choose_weights(VARIANTS["untrained"], NETWORK, "untrained", {}, tmp_path)


def test_trained_files_are_refused_with_what_can_be_given() -> None:
    assert trained_files(("fc-2=a=b.pth", "conv-5=c.mat")) == {"fc-2": Path("a=b.pth"), "conv-5": Path("c.mat")}
    for words in (("fc-2",), ("crops=x",), ("nothing=x",), ("fc-2=",)):
        with pytest.raises(InputError, match=r"roi-pool.*classification"):
            trained_files(words)
    with pytest.raises(InputError, match="twice"):
        trained_files(("fc-2=a", "fc-2=b"))


# The command


def call(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    fixed = ["ablation", "--root", "root", "--out", "out", "--device", "cpu", *QUICK_FLAGS, "--crop-frames", "2"]
    code = evaluate.main([*fixed, *flags])
    return code, *capsys.readouterr()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    add_sequence(tmp_path / "root", "owl", 1, 4)
    add_sequence(tmp_path / "root", "Bird2", 30, 4)
    return tmp_path / "root"


def table() -> dict[str, Any]:
    return json.loads(Path("out/ablation.json").read_text())


def test_all_variants_on_trained_weights(root: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "--weights", str(trained), "--seed", "4", "--max-frames", "3")
    assert code == 0, err
    content = table()
    variants = content["variants"]
    assert list(variants) == list(VARIANTS) and content["problems"] == []
    left_out = {name for name, variant in variants.items() if variant["left_out"]}
    assert left_out == {"conv-5", "classification"}
    for name in set(variants) - left_out:
        variant = variants[name]
        assert set(variant["sequences"]) == {"owl", "Bird2"} and set(variant["seeds"]) == {"4"}
        assert variant["fps"] > 0 and variant["frames"] == (4 if name in ("crops", "whole-frame") else 6)
    assert variants["fc-2"]["weights"]["own"] is False and variants["untrained"]["weights"]["name"] == "untrained"
    assert variants["crops"]["comparison"]["against"] == "whole-frame"
    # Learnt on the same frames with the same draws: only the updates differ, and they all run to the end.
    per_update = variants["no-threshold"]["iterations_per_update"]
    assert per_update == 2 >= variants[METHOD]["iterations_per_update"]
    record = json.loads(Path("out/roi-pool/results/seed4/ope/owl.json").read_text())
    assert record["settings"]["roi_layer"] == "pool"
    text = Path("out/ablation.md").read_text()
    assert "| owl | " in text and "| Bird2 | " in text, "the loss threshold on each sequence"
    for name, variant in VARIANTS.items():
        assert any(line.startswith(f"{name} ") for line in out.splitlines()) and f"| {name} | " in text
        assert variant.about in out and variant.about in text
    assert "left out" in out and "less accurate (Fig. 7)" in out and "not on weights of its own" in out
    assert "note: conv-5 is left out" in err


def test_it_goes_on_where_it_stopped(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--sequences", "owl", "--max-frames", "2", "--variants", "samples-1"]
    assert call(capsys, *flags)[0] == 0
    assert list(table()["variants"]) == [METHOD, "samples-1"], "with what it is compared with"
    first = table()
    tracked: list[str] = []
    really = work.run_tracker

    def run_tracker(tracker: Any, *args: Any) -> Any:
        tracked.append(tracker.config.network.roi_layer)
        return really(tracker, *args)

    monkeypatch.setattr(work, "run_tracker", run_tracker)
    assert call(capsys, *flags)[0] == 0
    assert (tracked, table()) == ([], first)
    assert call(capsys, *flags, "roi-pool")[0] == 0
    assert tracked == ["pool"]


def test_a_variant_that_fails_is_reported_and_the_rest_go_on(
    root: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    really = work.run_tracker

    def run_tracker(tracker: Any, *args: Any) -> Any:
        if tracker.config.network.roi_layer == "pool":
            raise RuntimeError("the layer broke")
        return really(tracker, *args)

    monkeypatch.setattr(work, "run_tracker", run_tracker)
    variants = ["--variants", "roi-pool", "conv-5", "samples-3"]
    code, out, err = call(
        capsys, "--sequences", "owl", "--max-frames", "2", "--trained", f"conv-5={trained}", *variants
    )
    assert code == 3
    assert "the layer broke" in err and "conv-5: " in err and "missing conv4.weight" in err
    assert table()["variants"]["samples-3"]["fps"] > 0 and "auc" not in table()["variants"]["roi-pool"]
    assert any("the layer broke" in line for line in table()["problems"])
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert rows["roi-pool"].endswith("failed") and rows["conv-5"].endswith("failed")
    assert "the layer broke" in Path("out/ablation.md").read_text()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--crop-frames", "1"], "--crop-frames is 1"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--trained", "full=x"], "VARIANT=FILE"),
        (["--weights", "nowhere.mat"], "nowhere.mat"),
        (["--variants", "conv-7"], "conv-7"),
        (["--sequences", "nowhere"], "no sequence"),
    ],
)
def test_bad_input_costs_one_line(flags: list[str], said: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, *flags)
    *_, last = err.splitlines()
    assert code == 2 and last.startswith("error: ") and said in last
