"""This tracker beside others on the same cores, sequences and clock: ``python perf/peers.py --root OTB``.

Runs every tracker over each sequence, one after the other, and writes ``perf/results/peers-cpu.json``. Speed is of the
frames after the first, decoding included, in all. Those that would take too long run over a sequence's first frames,
and are held against the others over the same frames.

CSRT is in opencv-contrib, which does not go beside opencv-python::

    python -m venv csrt && csrt/bin/pip install opencv-contrib-python-headless numpy
    python perf/peers.py --root OTB --csrt-python csrt/bin/python
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peer_runs import CSRT, PEERS, Peer, Run, run_peer

from fdn_triton import InputError
from fdn_triton.config import PRESETS
from fdn_triton.evaluation.metrics import accuracy
from fdn_triton.report import run_environment
from fdn_triton.results import check_writable, write_json
from fdn_triton.sequence import Sequence, open_sequence
from fdn_triton.weights import DEFAULT_WEIGHTS, load_weights

RESULT = Path(__file__).parent / "results" / "peers-cpu.json"
SEQUENCES = ("DragonBaby", "Deer", "David", "Jogging-1")
GOALS = (  # how many times as fast the first must be; None where the ratio is only told
    ("fast", CSRT, None),
    ("fast", "RT-MDNet's scheme", 5.0),
    ("paper", "RT-MDNet's scheme", 1.5),
    ("paper", "MDNet's crops", 10.0),
    ("paper", "MDNet's crops, plain LRN", 10.0),
)
MORE_ACCURATE = (("fast", CSRT),)
Runs = dict[str, dict[str, list[Run]]]
"""Tracker -> sequence -> repetitions."""


def main() -> int:
    options = _options()
    try:
        peers = _peers(options)
        sequences = {name: open_sequence(options.root / name, options.frames) for name in options.sequences}
        for name, sequence in sequences.items():
            if sequence.ground_truth is None or len(sequence.images) < 2:
                raise InputError(f"{options.root / name} has no ground truth, or only one image: give OTB folders")
        check_writable(options.json)
        runs: Runs = {peer.name: {name: [] for name in sequences} for peer in peers}
        for _ in range(options.repeat):
            for name in sequences:
                for peer in peers:  # in turn, so that what else the machine does meets all of them
                    part = open_sequence(options.root / name, _frames(peer, options.frames))
                    run = run_peer(peer, part, options.seed, options.csrt_python)
                    runs[peer.name][name].append(run)
                    print(f"{name:<12}{peer.name:<28}{len(run.marks):>5} frames {run.fps():>8.2f} fps", flush=True)
        result = summarise(peers, sequences, runs, options)
        write_json(options.json, result)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*_in_words(result), f"wrote {options.json}", sep="\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of OTB's sequences")
    parser.add_argument("--sequences", nargs="+", default=SEQUENCES, metavar="NAME", help=f"of {' '.join(SEQUENCES)}")
    parser.add_argument("--trackers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help=str([*PEERS]))
    parser.add_argument("--frames", type=int, help="only so many frames of each sequence")
    parser.add_argument("--repeat", type=int, default=1, help="passes, of which the median speed counts")
    parser.add_argument("--csrt-python", type=Path, help="the interpreter that has opencv-contrib; without it, no CSRT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help=f"default {RESULT.name}")
    options = parser.parse_args()
    if options.repeat < 1 or (options.frames is not None and options.frames < 2):
        parser.error("--repeat must be at least 1, --frames at least 2")
    return options


def _peers(options: argparse.Namespace) -> list[Peer]:
    peers = []
    for name in options.trackers:
        peer = PEERS[name]
        if peer.preset is None and options.csrt_python is None:
            print(f"{name} is left out: give --csrt-python (see --help)", file=sys.stderr)
        else:
            peers.append(peer)
    return peers


def _frames(peer: Peer, frames: int | None) -> int | None:
    return min((n for n in (peer.frames, frames) if n is not None), default=None)


def summarise(
    peers: list[Peer], sequences: dict[str, Sequence], runs: Runs, options: argparse.Namespace
) -> dict[str, Any]:
    """The content of the JSON: medians over the repetitions, means over the sequences."""
    weights = load_weights(DEFAULT_WEIGHTS, PRESETS["paper"].network)
    trackers = {peer.name: _tracker_summary(peer, sequences, runs[peer.name]) for peer in peers}
    return {
        **run_environment(torch.device("cpu")),
        "weights": {"name": weights.name, "sha256": weights.sha256},
        "seed": options.seed,
        "repeat": options.repeat,
        "sequences": {name: len(sequence.images) for name, sequence in sequences.items()},
        "trackers": trackers,
        "ratios": list(_ratios(runs)),
        "gains": list(_gains(trackers)),
    }


def _tracker_summary(peer: Peer, sequences: dict[str, Sequence], runs: dict[str, list[Run]]) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for name, passes in runs.items():
        row: dict[str, Any] = {
            "frames": len(passes[0].marks),
            "fps": statistics.median(run.fps() for run in passes),
            "fps_of_passes": [run.fps() for run in passes],
        }
        if peer.first_frame:
            row["first_frame_s"] = statistics.median(run.first_frame_s for run in passes)
        truth = sequences[name].ground_truth
        assert truth is not None
        score = accuracy(passes[0].boxes_xywh, truth[0])
        if score is not None and len(passes[0].marks) == len(sequences[name].images):
            row |= {"precision": score.precision, "auc": score.auc}
        rows[name] = row
    means = {
        key: statistics.fmean(row[key] for row in rows.values())
        for key in ("fps", "first_frame_s", "precision", "auc")
        if all(key in row for row in rows.values())
    }
    known = next(iter(runs.values()))[0].known
    return {"about": peer.about, **known, **means, "sequences": rows}


def _ratios(runs: Runs) -> Iterator[dict[str, Any]]:
    """Mean speeds over the frames that both have seen, divided."""
    for ours, theirs, at_least in GOALS:
        if ours in runs and theirs in runs:
            speeds = [_common_fps(runs[one], runs[theirs]) for one in (ours, theirs)]
            yield {"of": ours, "to": theirs, "ratio": speeds[0] / speeds[1], "fps": speeds, "at_least": at_least}


def _gains(trackers: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """How much more accurate the first must be than the second: more at all."""
    for ours, theirs in MORE_ACCURATE:
        if all("auc" in trackers.get(name, {}) for name in (ours, theirs)):
            yield {"of": ours, "to": theirs, "auc": trackers[ours]["auc"] - trackers[theirs]["auc"]}


def _common_fps(runs: dict[str, list[Run]], other: dict[str, list[Run]]) -> float:
    return statistics.fmean(
        statistics.median(run.fps(len(other[name][0].marks)) for run in passes) for name, passes in runs.items()
    )


def _in_words(result: dict[str, Any]) -> Iterator[str]:
    for name, row in result["trackers"].items():
        accuracy_text = f", precision {row['precision']:.3f}, AUC {row['auc']:.3f}" if "auc" in row else ""
        yield f"{name}: mean {row['fps']:.2f} fps{accuracy_text}"
    for row in result["ratios"]:
        asked = "" if row["at_least"] is None else f" (asked: {row['at_least']:g})"
        yield f"{row['of']} is {row['ratio']:.2f} times as fast as {row['to']}{asked}"
    for row in result["gains"]:
        yield f"{row['of']} has {row['auc']:+.3f} AUC beside {row['to']} (asked: more)"


if __name__ == "__main__":
    sys.exit(main())
