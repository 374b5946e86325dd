"""Several processes train as one: shares and means, and ``torchrun`` with two of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from small_training import CLASSIFY_FLAGS, DOMAINS_FLAGS, class_folders, start_weights, video_folders
from torch import nn

from fdn_triton import train
from fdn_triton.training.distributed import World, joined
from fdn_triton.training.loop import LOG, WEIGHTS

ROOT = Path(__file__).resolve().parents[1]


def test_without_torchrun_there_is_one_process() -> None:
    with joined("cpu") as world:
        assert world == World(0, 1, torch.device("cpu"))
        assert world.share(10) == slice(0, 10)
        net = nn.Linear(2, 2)
        net(torch.ones(1, 2)).sum().backward()
        world.average_gradients(net)
        assert torch.equal(net.weight.grad, torch.ones(2, 2)) and float(world.average(torch.tensor(3.0))) == 3


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_a_partition(size: int) -> None:
    parts = [list(range(10))[World(rank, size, torch.device("cpu")).share(10)] for rank in range(size)]
    assert list(chain(*parts)) == list(range(10)) and max(map(len, parts)) - min(map(len, parts)) <= 1


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / LOG).read_text().splitlines()]


def launch(flags: list[str]) -> str:
    """Two processes, each with one thread; what they print."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fdn_triton.train"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *flags], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not dist.is_available(), reason="torch has no torch.distributed")
def test_multi_domain_training_is_that_of_one_process(tmp_path: Path) -> None:
    videos, start = video_folders(tmp_path / "videos"), start_weights(tmp_path / "start.safetensors")
    flags = ["domains", "--videos", str(videos), "--weights", str(start), "--cycles", "4", "--log-every", "2"]
    printed = launch([*flags, *DOMAINS_FLAGS, "--out", str(tmp_path / "two")])
    assert printed.count("2 domains; left out: nothing") == 1, "one process speaks"
    assert train.main([*flags, *DOMAINS_FLAGS, "--out", str(tmp_path / "one")]) == 0
    one = losses(tmp_path / "one")
    assert len(one) == 4 and losses(tmp_path / "two") == pytest.approx(one, rel=1e-3)
    weights, other = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    for name in weights:
        torch.testing.assert_close(other[name], weights[name], rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not dist.is_available(), reason="torch has no torch.distributed")
def test_classification_in_two_processes(tmp_path: Path) -> None:
    """Each normalises its part of the batch; the exported statistics are those of both."""
    flags = ["classify", "--images", str(class_folders(tmp_path / "images")), "--log-every", "2", *CLASSIFY_FLAGS]
    launch([*flags, "--out", str(tmp_path / "run")])
    falling = losses(tmp_path / "run")
    assert len(falling) == 6 and falling[-1] < 0.8 * falling[0]
    final = json.loads((tmp_path / "run" / LOG).read_text().splitlines()[-1])
    assert final["top1"] == 1.0
