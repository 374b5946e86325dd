"""The TraX server: what it answers, and vot-toolkit's own run of it from beginning to end."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from vot_clips import QUICK, TRUTH, vot_folder

from fdn_triton import vot
from fdn_triton.command_line import preset_config
from fdn_triton.config import PRESETS, NetworkConfig, TrackerConfig
from fdn_triton.demo import clip_path
from fdn_triton.evaluation.vot_supervised import Repetition
from fdn_triton.evaluation.vot_workspace import (
    open_vot_sequence,
    results_folder,
    score,
    write_trackers_ini,
    write_workspace,
)
from fdn_triton.evaluation.worker import Settings
from fdn_triton.frame_source import image_frames
from fdn_triton.tracker import Tracker
from fdn_triton.vot import ServerOptions, server_command
from fdn_triton.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "OMP_NUM_THREADS": "1",  # as in these tests: sums of another order are other tracks
}
OPTIONS = ServerOptions(device="cpu", config=QUICK)
WEIGHTS = load_weights("fdn", QUICK.network)


def parsed(flags: list[str]) -> ServerOptions:
    return vot.parse_flags(flags, ServerOptions, "vot", default=ServerOptions(config=preset_config(flags)))


@pytest.mark.parametrize(
    "options",
    [
        ServerOptions(),
        OPTIONS,
        ServerOptions(preset="release", config=replace(PRESETS["release"], round_boxes=False, seed=-5)),
        ServerOptions(
            device="cuda:1",
            config=TrackerConfig(
                network=NetworkConfig(conv_layers=5, roi_layer="pool"),
                bbox_regression=False,
                search_from_refined=True,
                loss_threshold=None,
                first_loss_threshold=0.5,
                score_threshold=-0.25,
            ),
        ),
    ],
)
def test_the_command_says_all_that_was_chosen(options: ServerOptions) -> None:
    python, module, name, *flags = shlex.split(server_command(options))
    assert (python, module, name) == (sys.executable, "-m", "fdn_triton.vot")
    assert parsed(flags) == options


def test_weights_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my weights.mat").touch()
    flags = shlex.split(server_command(replace(OPTIONS, weights="my weights.mat")))[3:]
    assert parsed(flags).weights == str(tmp_path / "my weights.mat")


def test_trackers_ini_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trackers.ini"
    assert vot.main(["--write-trackers-ini", str(path), "--seed", "3", "--preset", "release"]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    parser = configparser.ConfigParser()
    parser.read(path)
    options = parsed(shlex.split(parser["FDN"]["command"])[3:])
    assert options == ServerOptions(preset="release", config=replace(PRESETS["release"], seed=3))


def test_without_trax_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "trax", None)
    assert vot.main([]) == 2
    assert capsys.readouterr().err == "error: vot-trax is not installed: pip install 'fdn-triton[vot]'\n"


# Over TraX


class Client:
    """The other end of the connection: the lines that vot-toolkit writes, and reads."""

    def __init__(self, *more: str) -> None:
        command = [*shlex.split(server_command(OPTIONS)), *more]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT, text=True)

    def ask(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"@@TRAX:{words[0]} " + " ".join(f'"{word}"' for word in words[1:]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> tuple[str, str]:
        """The word behind ``@@TRAX:``, and what follows."""
        assert self.process.stdout is not None
        line = re.fullmatch(r"@@TRAX:(\w+) (.*)\n", self.process.stdout.readline())
        assert line is not None
        return line[1], line[2]

    def boxes(self, region: list[float]) -> NDArray[np.float64]:
        """[2, 4]: on the first image, where the target is told, and on the second one."""
        self.ask("initialize", ",".join(f"{number:.4f}" for number in region))
        found = []
        for number in (1, 2):
            self.ask("frame", f"file://{image(number)}")
            word, rest = self.answer()
            assert word == "state"
            found.append([float(number) for number in rest.strip(' "').split(",")])
        return np.array(found)

    def end(self) -> tuple[int, list[str]]:
        """Exit code and the lines on standard error."""
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err.splitlines()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    pytest.importorskip("trax", reason="the extra vot is not installed")
    clients = []

    def start(*more: str) -> Client:
        clients.append(Client(*more))
        word, rest = clients[-1].answer()
        assert word == "hello" and '"trax.region=rectangle;polygon;"' in rest and '"trax.image=path;"' in rest
        return clients[-1]

    yield start
    for client in clients:
        client.process.kill()
        client.process.communicate()


def image(number: int) -> Path:
    return clip_path() / "img" / f"{number:04d}.jpg"


def expected(seed: int) -> NDArray[np.float64]:
    first, second = (frame.image for frame in image_frames([image(1), image(2)]))
    tracker = Tracker(replace(QUICK, seed=seed), weights=WEIGHTS, device="cpu")
    tracker.init(first, TRUTH[0])
    return np.array([TRUTH[0], tracker.update(second).boxes_xywh[0]])


def test_boxes_are_the_trackers(connect: Callable[..., Client]) -> None:
    client = connect("--seed", "4")
    np.testing.assert_allclose(client.boxes(TRUTH[0].tolist()), expected(seed=4), atol=1e-2)
    client.ask("initialize")  # forget this target
    # A new start, from a polygon with the same bounding box and with the next seed.
    x, y, w, h = TRUTH[0].tolist()
    diamond = [x, y + h / 2, x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h]
    np.testing.assert_allclose(client.boxes(diamond), expected(seed=5), atol=1e-2)
    assert np.abs(expected(seed=4) - expected(seed=5)).max() > 0.1
    client.ask("quit")
    code, err = client.end()
    assert (code, err) == (0, [])


def test_trouble_is_told_to_both_sides(connect: Callable[..., Client]) -> None:
    client = connect()
    client.ask("initialize", "10,10,20,20")
    client.ask("frame", "file:///nowhere.jpg")
    word, rest = client.answer()
    assert word == "quit" and "/nowhere.jpg cannot be read" in rest
    code, err = client.end()
    assert code == 2 and err == ["error: /nowhere.jpg cannot be read: No such file or directory: repair it"]


def test_a_toolkit_that_is_gone_ends_it(connect: Callable[..., Client]) -> None:
    code, err = connect().end()  # closes the server's input
    assert code == 2 and len(err) == 1 and err[0].startswith("error: the connection to the toolkit broke")


def test_vot_toolkit_runs_it_from_beginning_to_end(tmp_path: Path) -> None:
    pytest.importorskip("vot", reason="the extra vot is not installed")
    folders = [vot_folder(tmp_path / "data" / "box", 6), vot_folder(tmp_path / "data" / "corners", 4, polygon=True)]
    sequences = [open_vot_sequence(folder) for folder in folders]
    write_workspace(tmp_path, sequences, 2, (2, 4))
    write_trackers_ini(tmp_path / "trackers.ini", server_command(OPTIONS))
    run = subprocess.run(
        [sys.executable, "-m", "vot", "evaluate", "--workspace", str(tmp_path), "FDN"],
        env={**ENVIRONMENT, "VOT_RESULTS_BINARY": "0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    settings = Settings(QUICK, "paper", "untrained", "cpu", tmp_path)
    tracker = Tracker(QUICK, weights=WEIGHTS, device="cpu")
    for sequence in sequences:
        for number in (1, 2):
            # Where nothing fails, repetition k is the k-th start, as in the runner of this package.
            theirs = results_folder(tmp_path, sequence.name) / f"{sequence.name}_{number:03d}.txt"
            ours = Repetition(sequence.name, sequence.images, sequence.regions, number, number - 1, tmp_path / "ours")
            for _ in ours.run(settings, tracker.beside(ours.seed)):
                pass
            assert boxes(theirs) == pytest.approx(boxes(ours.path(".txt")), abs=1e-2)
    assert score(tmp_path).robustness == 0


def boxes(path: Path) -> list[float]:
    first, *rows = path.read_text().split()
    assert first == "1"
    numbers = [float(number) for row in rows for number in row.split(",")]
    assert len(numbers) == 4 * len(rows)  # no codes
    return numbers
