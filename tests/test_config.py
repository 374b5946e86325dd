"""The configuration: the numbers of the paper and the release, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import pytest
import torch

from fdn_triton.config import PRESETS, NetworkConfig, PresetName, TrackerConfig
from fdn_triton.errors import InputError

# Written out by the step they belong to, from the description of the method and not from the code.
NETWORK = {
    "conv_layers": 3,
    "fc_layers": 3,
    "roi_layer": "align",
    "sampling_ratio": "auto",  # the paper: 2
    "roi_grid": "auto",
    "roi_extend": 0.0,
}
FRAME_SIZE = {
    "short_side": 600,
    "max_side": 1000,
    "target_size": 80.0,  # the paper: None
    "least_target_size": 64.0,  # the paper: None
    "resize_step": 1.1,  # the paper: None
    "conv_precision": "auto",
    "feature_precision": "fp32",
}
DRAWING = {"scale_step": 1.05, "min_box_size": 10.0, "round_boxes": False}
FIRST_FRAME = {
    "bbox_regression": True,
    "bbox_regression_draws": 10_000,
    "bbox_regression_iou": 0.6,
    "bbox_regression_samples": 1_000,
    "bbox_regression_ridge": 1000.0,
    "first_positive_draws": 1_000,
    "first_positives": 500,
    "first_negative_draws": 5_000 + 5_000,
    "first_negative_iou": 0.5,
    "first_negatives": 5_000,
    "first_shifts": 2,
    "first_iterations": 30,
    "first_learning_rate": 5e-4,
    "first_loss_threshold": None,
    "bbox_regression_translation": 0.3,
    "bbox_regression_scale": 10.0,
    "bbox_regression_smaller": True,  # MDNet: False
    "first_negative_translation": 1.0,
    "first_negative_scale": 10.0,
}
SEARCH = {
    "candidates": 256,
    "search_translation": 0.6,
    "search_scale": 1.0,
    "search_growth": 1.1,
    "search_translation_max": 1.5,
    "top_k": 5,
    "score_threshold": 0.0,
    "search_from_refined": False,
    "search_size_refined": 0.5,  # MDNet: 0
    "search_size_tolerance": 0.05,
}
EVERY_SUCCESS = {
    "positive_draws": 100,
    "positives": 50,
    "positive_iou": 0.7,
    "negative_draws": 400,
    "negatives": 200,
    "negative_iou": 0.3,
    "positive_translation": 0.1,
    "positive_scale": 5.0,
    "negative_translation": 2.0,
    "negative_scale": 5.0,
    "negatives_interval": 1,
    "long_memory": 100,
    "short_memory": 20,
}
UPDATES = {
    "long_interval": 10,
    "update_iterations": 10,
    "update_learning_rate": 1.5e-3,
    "loss_threshold": 0.01,
    "batch_positives": 32,
    "batch_negatives": 96,
    "mining_negatives": 1_024,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "fc6_rate": 10.0,
    "bias_rate": 2.0,
    "dropout": 0.5,
}
PAPER = {**FRAME_SIZE, **DRAWING, **FIRST_FRAME, **SEARCH, **EVERY_SUCCESS, **UPDATES, "seed": 0, "network": NETWORK}


def test_the_preset_paper_has_the_papers_numbers() -> None:
    assert dataclasses.asdict(PRESETS["paper"]) == PAPER


def test_the_defaults_are_the_preset_paper() -> None:
    assert TrackerConfig() == PRESETS["paper"] == TrackerConfig.from_preset("paper")


def test_the_preset_release_differs_in_what_the_release_does_differently() -> None:
    release = dataclasses.asdict(PRESETS["release"])
    network = release.pop("network")
    changed = {name: value for name, value in release.items() if value != PAPER[name]}
    assert changed == {
        "candidates": 512,
        "bbox_regression": False,
        "bbox_regression_smaller": False,
        "first_loss_threshold": 0.01,
        "first_shifts": 1,
        "target_size": None,
        "least_target_size": None,
        "resize_step": None,
        "search_size_refined": 0.0,
        "round_boxes": True,
    }
    assert {name: value for name, value in network.items() if value != NETWORK[name]} == {
        "sampling_ratio": 2,
        "roi_grid": "interior",
        "roi_extend": 1.0,
    }


def test_the_command_lines_know_every_preset() -> None:
    assert get_args(PresetName) == tuple(PRESETS)


def test_the_preset_fast_differs_in_what_costs_time() -> None:
    fast = dataclasses.asdict(PRESETS["fast"])
    assert {name: value for name, value in fast.items() if value != PAPER[name]} == {
        "conv_precision": "half",
        "feature_precision": "half",
        "negatives_interval": 4,
        "mining_negatives": 512,
    }


def test_from_preset_sorts_the_changes_into_both_dataclasses() -> None:
    config = TrackerConfig.from_preset("release", top_k=1, fc_layers=2, short_side=300, sampling_ratio=3)
    base = PRESETS["release"]
    network = dataclasses.replace(base.network, fc_layers=2, sampling_ratio=3)
    assert config == dataclasses.replace(base, top_k=1, short_side=300, network=network)
    assert PRESETS["release"].top_k == 5, "the preset itself must not change"


def test_from_preset_takes_a_whole_network_too() -> None:
    network = NetworkConfig(conv_layers=5)
    assert TrackerConfig.from_preset("release", network=network).network == network
    both = TrackerConfig.from_preset("release", network=network, roi_layer="pool")
    assert both.network == NetworkConfig(conv_layers=5, roi_layer="pool")


@pytest.mark.parametrize(
    "config",
    [
        PRESETS["paper"],
        PRESETS["release"],
        TrackerConfig.from_preset("paper", conv_layers=5, roi_layer="pool", loss_threshold=None, seed=3),
    ],
)
def test_from_dict_inverts_asdict_also_through_json(config: TrackerConfig) -> None:
    assert TrackerConfig.from_dict(dataclasses.asdict(config)) == config
    assert TrackerConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_from_dict_keeps_defaults_and_its_argument() -> None:
    values = {"top_k": 2, "network": {"fc_layers": 2}}
    assert TrackerConfig.from_dict(values) == TrackerConfig.from_preset("paper", top_k=2, fc_layers=2)
    assert values == {"top_k": 2, "network": {"fc_layers": 2}}
    assert TrackerConfig.from_dict({}) == TrackerConfig()


def test_unknown_keys_are_named_and_the_valid_ones_listed() -> None:
    with pytest.raises(InputError) as caught:
        TrackerConfig.from_preset("paper", top_k=1, topk=1, shortside=2)
    message = str(caught.value)
    assert "unknown configuration keys topk, shortside in TrackerConfig" in message
    valid = message.split("the valid ones are ")[1].split(", ")
    assert valid == [field.name for field in dataclasses.fields(TrackerConfig)]

    with pytest.raises(InputError, match=r"unknown configuration key candidate in TrackerConfig: .*candidates"):
        TrackerConfig.from_dict({"candidate": 1})
    with pytest.raises(
        InputError, match=r"unknown configuration key layers in NetworkConfig: .*conv_layers, fc_layers"
    ):
        TrackerConfig.from_dict({"network": {"layers": 3}})


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown preset 'papr': choose one of paper, release"):
        TrackerConfig.from_preset("papr")


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("conv_layers", 4, "3, 5"),
        ("fc_layers", 1, "2, 3"),
        ("roi_layer", "Align", "align, pool"),
        ("sampling_ratio", 0, "auto, 1, 2, 3"),
        ("sampling_ratio", True, "auto, 1, 2, 3"),
        ("conv_layers", 3.0, "3, 5"),
        ("roi_grid", "centre", "auto, midpoint, interior"),
    ],
)
def test_network_choices(name: str, value: Any, choices: str) -> None:
    with pytest.raises(InputError) as caught:
        TrackerConfig.from_preset("paper", **{name: value})
    assert str(caught.value) == f"{name} is {value!r}: choose one of {choices}"


@pytest.mark.parametrize(
    "name",
    [
        "short_side",
        "candidates",
        "top_k",
        "bbox_regression_draws",
        "bbox_regression_samples",
        "first_positive_draws",
        "first_positives",
        "first_negatives",
        "positive_draws",
        "positives",
        "negative_draws",
        "negatives",
        "long_memory",
        "short_memory",
        "long_interval",
        "batch_positives",
        "batch_negatives",
        "mining_negatives",
    ],
)
def test_counts_are_at_least_one(name: str) -> None:
    for value in (0, -3):
        with pytest.raises(InputError, match=f"^{name} is {value}: it must be at least 1$"):
            TrackerConfig.from_preset("paper", **{name: value})
    # The neighbours that bound a count are lowered with it.
    least = {name: 1, "top_k": 1, "batch_negatives": 1}
    assert getattr(TrackerConfig.from_preset("paper", **least), name) == 1


@pytest.mark.parametrize("name", ["scale_step", "min_box_size", "search_growth", "bbox_regression_ridge"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_some_numbers_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{name} is {value}: it must be above 0$"):
        TrackerConfig.from_preset("paper", **{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0])
def test_dropout_is_a_share_below_one(value: float) -> None:
    with pytest.raises(InputError, match=r"dropout is .*: it must lie in"):
        TrackerConfig(dropout=value)
    assert TrackerConfig(dropout=0).dropout == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_size_refined": 1.01}, "search_size_refined is 1.01: it must lie in [0, 1]"),
        ({"search_size_refined": -0.1}, "search_size_refined is -0.1: it must lie in [0, 1]"),
        ({"search_size_tolerance": -0.1}, "search_size_tolerance is -0.1: it must be at least 0"),
        ({"resize_step": 1.0}, "resize_step is 1.0: it must be above 1"),
        ({"resize_step": 0.9}, "resize_step is 0.9: it must be above 1"),
    ],
)
def test_numbers_by_which_sizes_are_followed(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        TrackerConfig(**changes)
    assert str(error.value) == message
    assert TrackerConfig(search_size_refined=1, search_size_tolerance=0, resize_step=None).resize_step is None


NUMBERS = [name for name, value in {**PAPER, **NETWORK}.items() if isinstance(value, float)] + ["first_loss_threshold"]


@pytest.mark.parametrize("name", NUMBERS)
def test_nothing_is_nan(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} is nan: it must be a number$"):
        TrackerConfig.from_preset("paper", **{name: float("nan")})


def test_half_of_the_first_negatives_are_drawn_in_each_way() -> None:
    with pytest.raises(InputError, match=r"^first_negative_draws is 1: it must be at least 2$"):
        TrackerConfig(first_negative_draws=1)
    assert TrackerConfig(first_negative_draws=2).first_negative_draws == 2


@pytest.mark.parametrize(("value", "must"), [(-1.0, "be at least 0"), (float("inf"), "be finite")])
def test_a_roi_is_extended_by_a_finite_length(value: float, must: str) -> None:
    with pytest.raises(InputError, match=f"^roi_extend is {value}: it must {must}$"):
        TrackerConfig(network=NetworkConfig(roi_extend=value))


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("candidates", 256.5, "a whole number"),
        ("candidates", "256", "a whole number"),
        ("candidates", True, "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("momentum", "0.9", "a number"),
        ("weight_decay", None, "a number"),
        ("round_boxes", 1, "True or False"),
        ("first_iterations", -3, "at least 0"),
        ("update_learning_rate", -1.0, "at least 0"),
        ("negative_translation", float("inf"), "finite"),
    ],
)
def test_values_are_of_their_type_and_range(name: str, value: Any, must: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} is {value!r}: it must be {must}$"):
        TrackerConfig(**{name: value})
    assert TrackerConfig(update_iterations=0, momentum=0, score_threshold=-float("inf")).momentum == 0


def test_a_seed_is_one_that_torch_takes() -> None:
    for seed in (-(2**63) - 1, 2**64):
        with pytest.raises(InputError, match=f"^seed is {seed}: it must lie in"):
            TrackerConfig(seed=seed)
    for seed in (-(2**63), 2**64 - 1):
        torch.Generator().manual_seed(TrackerConfig(seed=seed).seed)


def test_numbers_that_bound_each_other() -> None:
    with pytest.raises(InputError, match=r"^top_k is 6: it must not exceed candidates, which is 5$"):
        TrackerConfig(top_k=6, candidates=5)
    with pytest.raises(InputError, match=r"^short_side is 600: it must not exceed max_side, which is 599$"):
        TrackerConfig(max_side=599)
    with pytest.raises(InputError, match=r"^search_translation is 2.0: it must not exceed search_translation_max"):
        TrackerConfig(search_translation=2.0)
    with pytest.raises(InputError, match=r"^batch_negatives is 96: it must not exceed mining_negatives, which is 95$"):
        TrackerConfig(mining_negatives=95)
    TrackerConfig(top_k=5, candidates=5, short_side=600, max_side=600, mining_negatives=96)


def test_from_dict_checks_ranges_too() -> None:
    with pytest.raises(InputError, match=r"sampling_ratio is 4"):
        TrackerConfig.from_dict({"network": {"sampling_ratio": 4}})
    with pytest.raises(InputError, match=r"candidates is 0"):
        TrackerConfig.from_dict({"candidates": 0})


def test_configurations_cannot_be_changed_in_place_and_serve_as_keys() -> None:
    config = TrackerConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.top_k = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.network.fc_layers = 2  # type: ignore[misc]
    assert len({config, TrackerConfig(), TrackerConfig(seed=1)}) == 2
