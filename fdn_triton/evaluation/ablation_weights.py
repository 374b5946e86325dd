"""Which weights a variant of the ablation runs on: its own, the method's, or what of the method's fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import NetworkConfig
from ..errors import InputError
from ..results import unwritable
from ..weights import UNTRAINED, NetworkWeights, check_weights, load_weights, save_weights
from .ablation import METHOD, VARIANTS, Variant, VariantName


class NoWeights(InputError):
    """There are none that the variant could run on; the message says what would give some."""


@dataclass(frozen=True, eq=False)
class VariantWeights:
    """Weights with their standing.

    Attributes:
        name: what ``load_weights`` takes.
        loaded: the weights.
        label: whose they are.
        fair: they are the variant's own, so that it is the variant that is compared and not foreign weights.
    """

    name: str
    loaded: NetworkWeights
    label: str
    fair: bool


def trained_files(words: tuple[str, ...]) -> dict[VariantName, Path]:
    """``VARIANT=FILE`` for each variant that has weights of its own.

    Raises:
        InputError: no such variant, or a variant twice.
    """
    own: list[VariantName] = [name for name, variant in VARIANTS.items() if variant.training]
    files: dict[VariantName, Path] = {}
    for word in words:
        given, equals, path = word.partition("=")
        name = next((name for name in own if name == given), None)
        if name is None or not equals or not path:
            raise InputError(f"--trained {word}: give VARIANT=FILE, VARIANT one of {', '.join(own)}")
        if name in files:
            raise InputError(f"--trained gives {name} twice: give one file for a variant")
        files[name] = Path(path)
    return files


def choose_weights(
    variant: Variant, network: NetworkConfig, method: str, trained: Mapping[VariantName, Path], folder: Path
) -> VariantWeights:
    """The weights that the variant runs on.

    Args:
        variant: which.
        network: of the method.
        method: the weights of the method, as ``load_weights`` takes them.
        trained: files of variants that have their own.
        folder: of the variant; gets the part of the method's weights that fits, where not all do.

    Raises:
        NoWeights: there are none.
        InputError: its own cannot be used.
    """
    own_network = replace(network, **variant.network)
    if variant.name == UNTRAINED:
        if method == UNTRAINED:
            raise NoWeights("the method itself runs on untrained weights: give others with --weights")
        return VariantWeights(UNTRAINED, load_weights(UNTRAINED, own_network), UNTRAINED, fair=True)
    if path := trained.get(variant.name):
        loaded = load_weights(path, own_network)
        return VariantWeights(str(path), loaded, f"its own, {loaded.name}: {loaded.provenance}", fair=True)
    missing = (
        f"it needs weights of its own: python -m fdn_triton.train {variant.training}, --trained {variant.name}=FILE"
    )
    if variant.name == "classification":
        raise NoWeights(missing)
    whole = load_weights(method, network)
    label = f"{whole.name}: {whole.provenance}" if variant.name == METHOD else f"the method's, {whole.name}"
    try:
        loaded = load_weights(method, own_network)
    except InputError:
        convolutions = {name: tensor for name, tensor in whole.tensors.items() if name.startswith("conv")}
        loaded = replace(whole, tensors=convolutions, provenance=f"{whole.provenance}; without the FC layers")
        try:
            check_weights(loaded, own_network)
        except InputError:
            raise NoWeights(missing) from None
        path = folder / "convolutions.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        save_weights(path, loaded)
        return VariantWeights(
            str(path), load_weights(path, own_network), f"{label}: its convolutions, random FC layers", fair=False
        )
    return VariantWeights(method, loaded, label, fair=variant.training is None or method == UNTRAINED)
