"""``python -m fdn_triton.evaluate vot``: run the reset-based experiment, and let VOT's toolkit score it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from ..command_line import EXIT_OK, EXIT_SOME_FAILED
from ..config import PresetName, TrackerConfig
from ..errors import InputError
from ..results import check_writable, write_json
from ..vot import ServerOptions, server_command
from ..weights import DEFAULT_WEIGHTS, load_weights
from .engines import Where, settle_device
from .going_on import Problems, run_missing
from .vot_supervised import Counts, Repetition
from .vot_workspace import (
    TOOLKIT_VERSION,
    TRACKER,
    Scores,
    VotSequence,
    check_toolkit,
    eao_range,
    find_sequences,
    open_vot_sequence,
    results_folder,
    score,
    write_trackers_ini,
    write_workspace,
)
from .worker import Settings, fingerprint


@dataclass(frozen=True)
class VotOptions:
    """Run VOT's reset-based experiment, and let vot-toolkit score it (needs the extra "vot").

    --out becomes a workspace of the toolkit. What is done is not done again: the same command goes on where it was
    stopped.
    """

    root: Path
    """Folder with a folder for each sequence: groundtruth.txt, and images in color/ or beside it."""
    out: Path
    """Folder for the workspace, the results and summary.json."""
    sequences: tuple[str, ...] = ()
    """Names of sequences; without them those of --root's list.txt, or all that are in --root."""
    repetitions: int = 15
    """Runs of each sequence, with --seed and the seeds after it."""
    eao_range: tuple[int, int] | None = None
    """First and last length over which EAO averages; without it they are fit to those of the sequences.
    The challenges' are 108 371 (2015, 2016), 100 356 (2017, 2018) and 46 291 (2019)."""
    score_only: bool = False
    """Track nothing, score what is in --out, whatever settings it was made with."""
    where: tyro.conf.OmitArgPrefixes[Where] = field(default_factory=Where)
    device: str = "auto"
    """auto (a GPU if there is one; local workers share all of them), cpu, cuda or cuda:N."""
    weights: str = DEFAULT_WEIGHTS
    """Name or path (.safetensors, .mat, .pth) of the network's weights."""
    preset: PresetName = "paper"
    """The numbers to start from: the paper's, as close to the authors' release as possible, or fast on a CPU."""
    config: tyro.conf.OmitArgPrefixes[TrackerConfig] = field(default_factory=TrackerConfig)


def evaluate_vot(options: VotOptions) -> int:
    """Run the command.

    Returns:
        0, or 3 where something failed and the scores are of the rest.

    Raises:
        InputError: nothing can be tracked or scored, the toolkit is not installed or fails, or --out cannot be written.
    """
    _check(options)
    problems = Problems()
    sequences = _open(options, problems)
    summary_path = options.out / "summary.json"
    check_writable(summary_path)
    # Before hours of tracking: it fails where --out holds other frames.
    average_over = options.eao_range or eao_range(len(sequence.images) for sequence in sequences)
    write_workspace(options.out, sequences, options.repetitions, average_over)
    server = ServerOptions(device=options.device, weights=options.weights, preset=options.preset, config=options.config)
    write_trackers_ini(options.out / "trackers.ini", server_command(server))
    runs = {sequence: _repetitions(options, sequence) for sequence in sequences}
    wanted = None if options.score_only else _track(options, runs, problems)
    outcomes = _read(runs, wanted, problems)
    if not outcomes:
        raise InputError("there is nothing to score")
    write_workspace(options.out, list(outcomes), options.repetitions, average_over)
    scores = score(options.out)
    if scores.eao is None:
        problems.add(f"EAO is undefined: the target was never held for {average_over[0]} frames: see --eao-range")
    write_json(summary_path, _summary(options, scores, average_over, outcomes, problems))
    print(_table(scores, average_over, outcomes))
    print(f"wrote {summary_path}")
    return EXIT_SOME_FAILED if problems else EXIT_OK


def _check(options: VotOptions) -> None:
    check_toolkit()
    options.where.check()
    if options.repetitions < 1:
        raise InputError(f"--repetitions is {options.repetitions}: it must be at least 1")
    if options.eao_range is not None and not 1 <= options.eao_range[0] <= options.eao_range[1]:
        low, high = options.eao_range
        raise InputError(f"--eao-range is {low} {high}: give the first and the last length, at least 1")
    if (options.out / "sequences").resolve() == options.root.resolve():
        raise InputError(f"--out {options.out} would write into --root {options.root}: give another folder")


def _open(options: VotOptions, problems: Problems) -> list[VotSequence]:
    sequences = []
    for name in find_sequences(options.root, options.sequences):
        try:
            sequences.append(open_vot_sequence(options.root / name))
        except InputError as error:
            problems.add(f"{name}: {error}")
    if not sequences:
        raise InputError(f"no sequence in {options.root} can be used")
    return sequences


def _repetitions(options: VotOptions, sequence: VotSequence) -> list[Repetition]:
    folder, seed = results_folder(options.out, sequence.name), options.config.seed
    numbers = range(1, options.repetitions + 1)
    return [
        Repetition(sequence.name, sequence.images, sequence.regions, number, seed + number - 1, folder)
        for number in numbers
    ]


def _track(options: VotOptions, runs: dict[VotSequence, list[Repetition]], problems: Problems) -> dict[str, Any]:
    """Run what is not on disk yet, and take what fails out of ``runs``; returns the fingerprint of the settings."""
    device = settle_device(options.device, options.where)
    weights = load_weights(options.weights, options.config.network)
    wanted = fingerprint(options.config, weights, device.partition(":")[0])
    settings = Settings(options.config, options.preset, options.weights, device, options.out)

    def is_done(repetition: Repetition) -> bool:
        return repetition.read(wanted) is not None

    repetitions = [repetition for of_sequence in runs.values() for repetition in of_sequence]
    failed = run_missing(repetitions, is_done, settings, options.where, problems)
    for sequence in list(runs):
        if sequence.name in failed:
            del runs[sequence]
    return wanted


def _read(
    runs: dict[VotSequence, list[Repetition]], wanted: dict[str, Any] | None, problems: Problems
) -> dict[VotSequence, list[Counts]]:
    """The outcomes of the sequences all of whose repetitions are on disk."""
    outcomes = {}
    for sequence, repetitions in runs.items():
        try:
            found = [outcome for each in repetitions if (outcome := each.read(wanted)) is not None]
        except InputError as error:
            problems.add(f"{sequence.name}: {error}")
            continue
        if len(found) == len(repetitions):
            outcomes[sequence] = found
        else:
            problems.add(f"{sequence.name}: {len(found)} of {len(repetitions)} repetitions are there")
    return outcomes


def _summary(
    options: VotOptions,
    scores: Scores,
    average_over: tuple[int, int],
    outcomes: dict[VotSequence, list[Counts]],
    problems: Problems,
) -> dict[str, Any]:
    every = [outcome for of_sequence in outcomes.values() for outcome in of_sequence]
    return {
        "benchmark": "VOT",
        "profile": f"vot-toolkit {TOOLKIT_VERSION}, reset-based",
        "repetitions": options.repetitions,
        "eao_range": list(average_over),
        "trackers": {
            TRACKER: {
                "accuracy": scores.accuracy,
                "robustness": scores.robustness,
                "eao": scores.eao,
                "eao_curve": scores.eao_curve,
                "fps": _fps(every),
                "sequences": {
                    sequence.name: {
                        "accuracy": scores.sequences[sequence.name][0],
                        "robustness": scores.sequences[sequence.name][1],
                        "fps": _fps(of_sequence),
                        "frames": len(sequence.images),
                    }
                    for sequence, of_sequence in outcomes.items()
                },
            }
        },
        "settings": every[0].settings,
        "problems": problems.lines,
    }


def _table(scores: Scores, average_over: tuple[int, int], outcomes: dict[VotSequence, list[Counts]]) -> str:
    """The scores as a table for the terminal."""
    lines = [f"{'sequence':<20}{'frames':>8}{'accuracy':>10}{'failures a run':>16}{'fps':>8}"]
    for sequence, of_sequence in outcomes.items():
        accuracy, failures = scores.sequences[sequence.name]
        lines.append(
            f"{sequence.name:<20}{len(sequence.images):>8}{accuracy:>10.3f}{failures:>16.2f}{_fps(of_sequence):>8.2f}"
        )
    eao = "undefined" if scores.eao is None else f"{scores.eao:.3f}"
    lines.append(
        f"{TRACKER}: accuracy {scores.accuracy:.3f}, robustness {scores.robustness:.2f} failures a run, "
        f"EAO {eao} over lengths {average_over[0]} to {average_over[1]}"
    )
    return "\n".join(lines)


def _fps(outcomes: Iterable[Counts]) -> float:
    """Frames a second of the tracker; starts and reading are left out."""
    updates, seconds = zip(*((outcome.updates, outcome.seconds) for outcome in outcomes), strict=True)
    return sum(updates) / sum(seconds)
