"""``python -m fdn_triton.evaluate ablation``: run the paper's variants side by side, hold the orderings against it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..command_line import EXIT_OK, EXIT_SOME_FAILED
from ..config import PresetName, TrackerConfig
from ..errors import InputError
from ..results import check_writable, unwritable, write_json
from ..weights import DEFAULT_WEIGHTS, load_weights, network_as_trained
from .ablation import VARIANTS, Variant, VariantName
from .ablation_weights import NoWeights, VariantWeights, choose_weights, trained_files
from .engines import Where, settle_device
from .going_on import Problems, run_missing
from .otb import chosen_names, open_dataset
from .profiles import PROFILES
from .report.ablation_table import Ablation, VariantResult, markdown, terminal_table, to_json
from .summary import OurResults, score_ours
from .work import Task, Unit, plan, read_run
from .worker import Settings, fingerprint

_PROFILE = PROFILES["got10k"]


@dataclass(frozen=True)
class AblationOptions:
    """Run the variants that the paper compares over the same sequences, and hold the orderings against the paper's.

    What is done is not done again: the same command goes on where it was stopped. Speeds mean something on a machine
    that does nothing else, with one worker.

    A variant that needs weights of its own gets them with --trained VARIANT=FILE. Without, it runs on what fits of the
    method's weights, which the table says, or is left out. These flags of python -m fdn_triton.train make them, all
    with the schedule that the method's own --weights had:

    - classification: classify
    - conv-5: classify --conv-layers 5, then domains --conv-layers 5
    - fc-2: domains --fc-layers 2
    - roi-pool: domains --roi-layer pool
    - samples-1, samples-3: domains --sampling-ratio 1, 3 (the paper's method has 2)

    All but the last two want the method's own --sampling-ratio.
    """

    root: Path
    """Folder with a folder for each sequence, as OTB's."""
    out: Path
    """Folder for the results, ablation.json and ablation.md."""
    sequences: tuple[str, ...] = ()
    """Names of sequences; without them and --list all that are in --root."""
    list: str | None = None
    """otb2013, otb50, otb100, or a text file with a name a line."""
    variants: tuple[VariantName, ...] = ()
    """Only these, and those that they are compared with; without it all."""
    seeds: int = 1
    """Runs of everything with so many seeds: --seed and those after it."""
    max_frames: int | None = None
    """Use only so many frames of each sequence."""
    crop_frames: int = 5
    """Frames of each sequence over which cropping, ten times slower or more, is compared with the whole frame."""
    where: tyro.conf.OmitArgPrefixes[Where] = field(default_factory=Where)
    device: str = "auto"
    """auto (a GPU if there is one; local workers share all of them), cpu, cuda or cuda:N."""
    weights: str = DEFAULT_WEIGHTS
    """Name or path (.safetensors, .mat, .pth) of the method's weights."""
    trained: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="VARIANT=FILE")] = ()
    """Weights that a variant was trained with; repeat it for several variants."""
    preset: PresetName = "paper"
    """The numbers to start from: the paper's, as close to the authors' release as possible, or fast on a CPU."""
    config: tyro.conf.OmitArgPrefixes[TrackerConfig] = field(default_factory=TrackerConfig)


def evaluate_ablation(options: AblationOptions) -> int:
    """Run the command.

    Returns:
        0, or 3 where something failed and the table is of the rest.

    Raises:
        InputError: nothing can be tracked, the method's weights cannot be used, or --out cannot be written.
    """
    _check(options)
    trained, problems = trained_files(options.trained), Problems()
    method = load_weights(options.weights, options.config.network)
    # Every variant samples as the method does, whatever its own weights were trained with.
    network = network_as_trained(options.config.network, method)
    options = replace(options, config=replace(options.config, network=network))
    device = settle_device(options.device, options.where)
    seeds = range(options.config.seed, options.config.seed + options.seeds)
    entries = open_dataset(options.root, chosen_names(options.list, options.sequences))
    tasks, unusable = plan(entries, "ope", seeds, _PROFILE, options.max_frames)
    problems.add(*unusable)
    if not tasks:
        raise InputError(f"no sequence in {options.root} can be used")
    few = min(options.crop_frames, options.max_frames or options.crop_frames)
    short_tasks, _ = plan([task.entry for task in tasks], "ope", seeds, _PROFILE, few)
    table, text = options.out / "ablation.json", options.out / "ablation.md"
    check_writable(table)

    results = []
    for variant in _chosen(options.variants):
        run_over = short_tasks if variant.short else tasks
        results.append(_run(options, variant, trained, run_over, device, problems))
    settings = {
        "preset": options.preset,
        "method's weights": options.weights,
        "seeds": ", ".join(map(str, seeds)),
        "frames of each sequence": "all" if options.max_frames is None else f"the first {options.max_frames}",
        "frames for cropping": f"the first {few}",
        **next(({key: each.settings[key] for key in ("device", "cpu", "date")} for each in results if each.score), {}),
    }
    ablation = Ablation(results, settings, problems.lines)
    if not ablation.scores:
        raise InputError("no variant could be run")
    write_json(table, to_json(ablation))
    try:
        text.write_text(markdown(ablation), encoding="utf-8")
    except OSError as error:
        raise unwritable(text, error) from None
    print(terminal_table(ablation))
    print(f"wrote {table}\nwrote {text}")
    return EXIT_SOME_FAILED if problems else EXIT_OK


def _check(options: AblationOptions) -> None:
    for name in ("seeds", "max_frames", "crop_frames"):
        value, least = getattr(options, name), 2 if name == "crop_frames" else 1
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at least {least}")
    options.where.check()


def _chosen(names: Sequence[VariantName]) -> list[Variant]:
    """The variants to run, with those that they are compared with, in the table's order."""
    if not names:
        return list(VARIANTS.values())
    needed = {*names, *(baseline for name in names for baseline in VARIANTS[name].baselines)}
    return [variant for name, variant in VARIANTS.items() if name in needed]


def _run(
    options: AblationOptions,
    variant: Variant,
    trained: dict[VariantName, Path],
    tasks: Sequence[Task],
    device: str,
    problems: Problems,
) -> VariantResult:
    """Track what the variant lacks, and score it; what goes wrong is said and the other variants go on."""
    out, weights = options.out / variant.name, None
    print(f"{variant.name}: {variant.about}", file=sys.stderr)
    try:
        weights = choose_weights(variant, options.config.network, options.weights, trained, out)
        ours = _track(options, variant, weights, tasks, device, out, problems)
    except NoWeights as error:
        print(f"note: {variant.name} is left out: {error}", file=sys.stderr)
        return VariantResult(variant, None, None, str(error), {})
    except InputError as error:
        problems.add(f"{variant.name}: {error}")
        return VariantResult(variant, weights, None, None, {})
    problems.add(*(f"{variant.name}: {line}" for line in ours.problems))
    return VariantResult(variant, weights, ours.score, None, ours.settings)


def _track(
    options: AblationOptions,
    variant: Variant,
    weights: VariantWeights,
    tasks: Sequence[Task],
    device: str,
    out: Path,
    problems: Problems,
) -> OurResults:
    config = variant.config(options.config)
    wanted = fingerprint(config, weights.loaded, device.partition(":")[0])
    settings = Settings(config, options.preset, weights.name, device, out, variant.features)

    def is_done(unit: Unit) -> bool:
        return read_run(unit, out, wanted) is not None

    run_missing([unit for task in tasks for unit in task.units], is_done, settings, options.where, problems)
    return score_ours(tasks, out, _PROFILE, wanted)
