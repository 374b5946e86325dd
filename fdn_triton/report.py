"""What a run is summed up to: the JSON summary, the table on the terminal, the row per frame of ``--log-updates``."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from . import __version__
from .device import cpu_multiplies_bf16
from .evaluation.metrics import accuracy
from .run import STAGES, RunStatistics, Step
from .tracker import Tracker

PAPER_FPS = 7.0
"""Frames per second that the paper reports on a Tesla P40 (Table 2)."""


def summarise(
    tracker: Tracker,
    statistics: RunStatistics,
    sequence_name: str,
    preset: str,
    truth_xywh: NDArray[np.float64] | None,
) -> dict[str, Any]:
    """The content of ``--json``. Times are of the frames after the first; see the README for every key."""
    tracks = statistics.tracks()
    summary: dict[str, Any] = {
        "sequence": sequence_name,
        "frames": statistics.frames,
        "targets": len(tracks),
        **run_environment(tracker.device),
        "backend": "torch",
        "preset": preset,
        "seed": tracker.config.seed,
        "weights": {"name": tracker.weights.name, "sha256": tracker.weights.sha256},
        "first_frame_s": statistics.first_frame_s,
        "fps": statistics.fps(),
        "stages_ms": statistics.stages_ms(),
        "updates": statistics.updates(),
    }
    if truth_xywh is not None:
        scores = [accuracy(track, truth) for track, truth in zip(tracks, truth_xywh, strict=True)]
        scored = [score for score in scores if score is not None]
        if scored:
            for key in ("precision", "auc", "mean_iou"):
                summary[key] = float(np.mean([getattr(score, key) for score in scored]))
            summary["scored_frames"] = sum(score.frames for score in scored)
        if len(tracks) > 1:
            summary["per_target"] = [
                {"precision": score.precision, "auc": score.auc, "mean_iou": score.mean_iou} if score else None
                for score in scores
            ]
    return summary


def run_environment(device: torch.device) -> dict[str, Any]:
    """What figures depend on besides the code: date, device, processor, versions."""
    cpu = {"name": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {
        "date": datetime.date.today().isoformat(),
        "device": _device_name(device),
        "cpu": {**cpu, "bf16": cpu_multiplies_bf16()},  # what half precision is
        "versions": _versions(),
    }


def table(summary: Mapping[str, Any], written: Iterable[Path]) -> str:
    """The summary as a table for the terminal, with the files that were written."""
    lines = [
        f"{summary['sequence']}: {_count(summary['frames'], 'frame')}, {_count(summary['targets'], 'target')}, "
        f"{summary['device']}, preset {summary['preset']}, weights {summary['weights']['name']}"
    ]
    fps = summary["fps"]
    if fps["tracking"] is not None:
        means = {stage: summary["stages_ms"][stage]["mean"] for stage in STAGES}
        medians = {stage: summary["stages_ms"][stage]["median"] for stage in STAGES}
        total = sum(means.values())
        lines += ["", f"{'stage':<10}{'ms/frame':>10}{'median':>10}{'share':>8}{'fps alone':>12}"]
        for stage in STAGES:
            share = means[stage] / total if total else 0.0
            alone = f"{1000 / means[stage]:.1f}" if means[stage] > 0 else "-"
            lines.append(f"{stage:<10}{means[stage]:>10.1f}{medians[stage]:>10.1f}{share:>8.0%}{alone:>12}")
        updates = summary["updates"]
        lines += [
            "",
            f"first frame {summary['first_frame_s']:.2f} s; then {fps['end_to_end']:.2f} fps end to end, "
            f"{fps['tracking']:.2f} fps tracking ({fps['tracking'] / PAPER_FPS:.2f} x the paper's {PAPER_FPS:.0f} fps)",
            f"updates: {updates['short']} short-term, {updates['long']} long-term, "
            f"{_count(updates['iterations'], 'iteration')}",
        ]
    if "precision" in summary:
        lines.append(
            f"accuracy over {_count(summary['scored_frames'], 'frame')}: precision {summary['precision']:.3f}, "
            f"AUC {summary['auc']:.3f}, mean IoU {summary['mean_iou']:.3f}"
        )
    lines += [f"wrote {path}" for path in written]
    return "\n".join(lines)


def update_header() -> str:
    """Column names of :func:`update_rows`."""
    return f"{'frame':>6}{'target':>8}{'score':>10}{'loss':>10}{'iterations':>12}"


def update_rows(step: Step) -> str:
    """A row per target as in the paper's Table 1: score, last loss and iterations; dashes where nothing was learnt."""
    rows = []
    for k, (score, update) in enumerate(zip(step.scores, step.updates, strict=True)):
        score_text = "-" if math.isnan(score) else f"{score:.3f}"
        loss, iterations = (f"{update.loss:.4f}", str(update.iterations)) if update else ("-", "-")
        rows.append(f"{step.number:>6}{k + 1:>8}{score_text:>10}{loss:>10}{iterations:>12}")
    return "\n".join(rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _device_name(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def _cpu_name() -> str:
    try:  # Linux says the model here; platform.processor() is often empty there
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    return {
        "fdn_triton": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "numba": _version("numba"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
