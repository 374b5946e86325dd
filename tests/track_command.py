"""The ``track`` command for its tests: called in an empty folder on pieces of the demo clip, its files read back."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from small_otb import add_sequence

from fdn_triton import track
from fdn_triton.demo import clip_path

ROOT = Path(__file__).resolve().parents[1]
INIT = "120,80,40,50"

# A tracker that follows nothing for long, but takes all its steps in milliseconds.
_QUICK = (
    "--short-side 100 --max-side 200 --candidates 16 --bbox-regression-draws 300 --bbox-regression-samples 30 "
    "--first-positive-draws 60 --first-positives 20 --first-negative-draws 100 --first-negatives 40 "
    "--first-iterations 2 --positive-draws 20 --positives 10 --negative-draws 40 --negatives 20 "
    "--batch-positives 8 --batch-negatives 8 --mining-negatives 16 --update-iterations 2"
)
QUICK = _QUICK.split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder of its own, without a display."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path


@dataclasses.dataclass
class Said:
    """What a call of the command line left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of a refusal, which is one line and says nothing of Python."""
        assert self.code == 2, (self.code, self.out, self.err)
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        others = [line for line in lines if not line.startswith(("error: ", "note: ", "warning: "))]
        assert len(errors) == 1 and not others, self.err
        return errors[0].removeprefix("error: ")


Call = Callable[..., Said]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*flags: object, main: Callable[[list[str]], int] = track.main) -> Said:
        capsys.readouterr()
        code = main([*QUICK, *map(str, flags)])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


def otb(frames: int = 4, name: str = "owl") -> Path:
    """The demo clip's beginning as an OTB folder."""
    return add_sequence(Path(), name, frames=frames)


def rows(path: Path | str) -> NDArray[np.float64]:
    """[N, 4] of a result file, every line of which is whole."""
    text = Path(path).read_text()
    assert re.fullmatch(r"(-?\d+\.\d{4}(,-?\d+\.\d{4}){3}\n)*", text), text
    return np.array([[float(number) for number in line.split(",")] for line in text.splitlines()]).reshape(-1, 4)


def summary(path: Path | str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def write_video(path: str, frames: int = 4) -> Path:
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (320, 240))
    for number in range(1, frames + 1):
        image = cv2.imread(str(clip_path() / "img" / f"{number:04d}.jpg"))
        assert image is not None
        writer.write(image)
    writer.release()
    return Path(path)
