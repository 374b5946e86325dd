"""``python -m fdn_triton.evaluate otb``: track what is not on disk yet, score everything, write the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from ..command_line import EXIT_OK, EXIT_SOME_FAILED
from ..config import PresetName, TrackerConfig
from ..errors import InputError
from ..results import check_writable, write_json
from ..weights import DEFAULT_WEIGHTS, load_weights
from .engines import Where, settle_device
from .going_on import Problems, run_missing
from .otb import chosen_names, open_dataset
from .profiles import PROFILES
from .protocols import ProtocolName
from .published import LAYOUTS, result_path, write_results
from .report.numbers import fps
from .report.page import write_report
from .summary import OURS, Evaluation, Track, attributes_of, score_ours, score_published, spread, to_json
from .work import Task, Unit, plan, read_run
from .worker import Settings, fingerprint


@dataclass(frozen=True)
class OtbOptions:
    """Track and score the sequences of OTB (Wu, Lim, Yang, PAMI 2015), or of a folder like it.

    What is done is not done again: the same command goes on where it was stopped.
    """

    root: Path
    """Folder with a folder for each sequence."""
    out: Path
    """Folder for the results, summary.json and report.html."""
    sequences: tuple[str, ...] = ()
    """Names of sequences; without them and --list all that are in --root."""
    list: str | None = None
    """otb2013, otb50, otb100, or a text file with a name a line."""
    protocol: ProtocolName = "ope"
    """One pass (ope), temporal (tre) or spatial robustness (sre)."""
    profile: Literal["otb", "got10k", "pysot"] = "got10k"
    """The toolkit by whose rules the boxes are scored; got10k takes all frames and boxes as they stand."""
    compare: Path | None = None
    """Folder of published one-pass results, a folder for each tracker."""
    seeds: int = 1
    """Runs of everything with so many seeds: --seed and those after it."""
    max_frames: int | None = None
    """Use only so many frames of each sequence."""
    export: Literal["otb", "pysot", "got10k", "pytracking"] | None = None
    """Also write our one-pass boxes (of the first seed) as this toolkit names and reads them, to OUT/<toolkit>/FDN/."""
    score_only: bool = False
    """Track nothing, score what is in --out, whatever settings it was made with."""
    where: tyro.conf.OmitArgPrefixes[Where] = field(default_factory=Where)
    lockstep: int = 1
    """Runs that advance together, frame by frame, in this process: on a GPU their heads learn in shared
    launches. The boxes are those of each alone (on a CPU to the last bit), each run's own fps is lower."""
    device: str = "auto"
    """auto (a GPU if there is one; local workers share all of them), cpu, cuda or cuda:N."""
    weights: str = DEFAULT_WEIGHTS
    """Name or path (.safetensors, .mat, .pth) of the network's weights."""
    preset: PresetName = "paper"
    """The numbers to start from: the paper's, as close to the authors' release as possible, or fast on a CPU."""
    config: tyro.conf.OmitArgPrefixes[TrackerConfig] = field(default_factory=TrackerConfig)


def evaluate_otb(options: OtbOptions) -> int:
    """Run the command.

    Returns:
        0, or 3 where something failed and the report is of the rest.

    Raises:
        InputError: nothing can be tracked or scored, or the report cannot be written.
    """
    _check(options)
    profile, problems = PROFILES[options.profile], Problems()
    seeds = range(options.config.seed, options.config.seed + options.seeds)
    entries = open_dataset(options.root, chosen_names(options.list, options.sequences))
    tasks, unusable = plan(entries, options.protocol, seeds, profile, options.max_frames)
    problems.add(*unusable)
    if not tasks:
        raise InputError(f"no sequence in {options.root} can be used")
    check_writable(options.out / "summary.json")
    fingerprint_ = None if options.score_only else _track(options, tasks, problems)

    ours = score_ours(tasks, options.out, profile, fingerprint_)
    problems.add(*ours.problems)
    trackers = [] if ours.score is None else [ours.score]
    names = [task.entry.name for task in tasks] if ours.score is None else list(ours.score.sequences)
    notes: list[str] = []
    if options.compare is not None:
        try:
            published, unreadable, notes = score_published(options.compare, tasks, names, profile)
        except InputError as error:  # ours are scored without
            published, unreadable = [], [str(error)]
        problems.add(*unreadable)
        trackers += published
    if not trackers:
        raise InputError("there is nothing to score")
    evaluation = Evaluation(
        benchmark="OTB",
        protocol=options.protocol,
        profile=profile.name,
        trackers={tracker.name: tracker for tracker in trackers},
        attributes=attributes_of(names),
        tracks=ours.tracks,
        problems=[*problems.lines, *notes],
        settings={
            "rules": profile.about,
            "seeds": ", ".join(map(str, seeds)),
            **({} if options.max_frames is None else {"frames": f"the first {options.max_frames} of each sequence"}),
            **ours.settings,
        },
    )
    summary = options.out / "summary.json"
    write_json(summary, to_json(evaluation))
    written = [summary, *write_report(evaluation, options.out)]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(_table(evaluation))
    if options.export is not None:
        written += _export(options.export, ours.tracks, options.out)
    for path in written:
        print(f"wrote {path}")
    return EXIT_SOME_FAILED if problems else EXIT_OK


def _check(options: OtbOptions) -> None:
    for name in ("seeds", "max_frames", "lockstep"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at least 1")
    options.where.check()
    if options.lockstep > 1 and (options.where.workers > 1 or options.where.engine != "local"):
        raise InputError(f"--lockstep {options.lockstep} is for one process: leave --workers and --engine out")
    if options.export is not None and options.protocol != "ope":
        raise InputError(f"--export writes one-pass results: leave it out with --protocol {options.protocol}")
    if options.compare is not None:
        if options.protocol != "ope":
            raise InputError(f"--compare holds one-pass results: leave it out with --protocol {options.protocol}")
        if not options.compare.is_dir():
            raise InputError(f"--compare {options.compare} is no folder: give one with a folder for each tracker")


def _track(options: OtbOptions, tasks: Sequence[Task], problems: Problems) -> dict[str, Any]:
    """Run what is not on disk yet; returns the fingerprint of the settings."""
    device = settle_device(options.device, options.where)
    weights = load_weights(options.weights, options.config.network)
    wanted = fingerprint(options.config, weights, device.partition(":")[0])
    settings = Settings(options.config, options.preset, options.weights, device, options.out, lockstep=options.lockstep)

    def is_done(unit: Unit) -> bool:
        return read_run(unit, options.out, wanted) is not None

    units = [unit for task in tasks for unit in task.units]
    run_missing(units, is_done, settings, options.where, problems)
    return wanted


def _export(toolkit: str, tracks: Mapping[str, Track], out: Path) -> list[Path]:
    """Write the boxes for another toolkit; returns the folder they are in."""
    for name, track in tracks.items():
        path = result_path(out / toolkit, OURS, name, LAYOUTS[toolkit])
        write_results(path, track.boxes_xywh, LAYOUTS[toolkit])
    return [out / toolkit / OURS] if tracks else []


def _table(evaluation: Evaluation) -> str:
    """The scores as a table for the terminal."""
    lines = [f"{'tracker':<20}{'precision':>16}{'AUC':>16}{'norm. prec.':>13}{'sequences':>11}"]
    for tracker in evaluation.trackers.values():
        deviation = spread(tracker.seeds)
        precision, auc = (f" ± {value:.3f}" for value in deviation) if deviation else ("", "")
        lines.append(
            f"{tracker.name:<20}{f'{tracker.curves.precision_20:.3f}{precision}':>16}"
            f"{f'{tracker.curves.auc:.3f}{auc}':>16}{tracker.curves.norm_precision_score:>13.3f}"
            f"{len(tracker.sequences):>11}"
        )
    rate = fps(evaluation)
    if rate is not None:
        lines.append(f"{OURS}: {rate:.2f} fps, {evaluation.settings['device']}")
    return "\n".join(lines)
