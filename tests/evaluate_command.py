"""The ``evaluate otb`` command for its tests: called on a small benchmark, its files read back, scores by hand."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_otb import QUICK_FLAGS, small_benchmark

from fdn_triton import evaluate
from fdn_triton.evaluation import otb_command
from fdn_triton.evaluation.summary import Evaluation

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass
class Said:
    """What a call of the command line left on the terminal."""

    code: int
    out: str
    err: str

    def lines(self, kind: str) -> list[str]:
        """The lines of a kind on standard error, which has lines of known kinds only."""
        lines = self.err.splitlines()
        assert all(line.startswith(("error: ", "warning: ", "note: ")) for line in lines), self.err
        return [line.partition(": ")[2] for line in lines if line.startswith(f"{kind}: ")]

    @property
    def error(self) -> str:
        """The message of a refusal."""
        assert self.code == 2, (self.code, self.err)
        (line,) = self.lines("error")
        return line


Call = Callable[..., Said]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder of its own with a benchmark ``root``."""
    monkeypatch.chdir(tmp_path)
    return small_benchmark(tmp_path / "root")


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """What the report would be made of, in place of the report."""
    seen: list[Evaluation] = []
    monkeypatch.setattr(otb_command, "write_report", lambda evaluation, _: seen.append(evaluation) or [])
    return seen


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], evaluations: list[Evaluation]) -> Call:
    def run(*flags: object, root: Path | str = "root", out: Path | str = "out") -> Said:
        capsys.readouterr()
        fixed = ["otb", "--root", str(root), "--out", str(out), "--device", "cpu", *QUICK_FLAGS]
        code = evaluate.main([*fixed, *map(str, flags)])
        return Said(code, *capsys.readouterr())

    return run


def summary(out: Path | str = "out") -> dict[str, Any]:
    return json.loads((Path(out) / "summary.json").read_text())


def rows(path: Path | str) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def truth_of(sequence: str) -> NDArray[np.float64]:
    return rows(f"root/{sequence}/groundtruth_rect.txt")


def by_hand(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Precision and AUC in plain words."""
    precise, areas = 0, []
    for (x, y, w, h), (u, v, a, b) in zip(boxes.tolist(), truth.tolist(), strict=True):
        precise += ((x + w / 2 - u - a / 2) ** 2 + (y + h / 2 - v - b / 2) ** 2) ** 0.5 <= 20
        common = max(0, min(x + w, u + a) - max(x, u)) * max(0, min(y + h, v + b) - max(y, v))
        overlap = min(1.0, common / (w * h + a * b - common))
        areas.append(sum(overlap > k / 20 for k in range(21)) / 21)
    return precise / len(boxes), statistics.fmean(areas)


def publish(tracker: str, sequence: str, boxes: NDArray[np.float64]) -> Path:
    path = Path("published") / tracker / f"{sequence}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, boxes, "%.4f", ",")
    return path
