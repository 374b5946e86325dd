"""The wheel: complete, usable where the repository is not, light to import, and its operations can be copied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "fdn_triton", "kernels")

# A tracker that takes all its steps in milliseconds.
_QUICK = (
    "--short-side 100 --max-side 200 --candidates 16 --no-bbox-regression --first-positives 20 --first-negatives 40 "
    "--first-iterations 2 --positives 10 --negatives 20 --batch-positives 8 --batch-negatives 8 --mining-negatives 16"
)
QUICK = _QUICK.split()


def python(*arguments: str, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a Python of its own that finds packages in ``path`` first, without a display."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "PYTHONPATH", "TRITON_INTERPRET")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env |= {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def said(code: str, *, path: Path, cwd: Path) -> list[str]:
    """What a script prints, after it ended well."""
    done = python("-c", code, path=path, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: the repository gets no build folder, and none there gets into the wheel."""
    pytest.importorskip("pip")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    flags = ["--no-build-isolation"] if _has_setuptools() else []
    command = ["-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", *flags, ".", "-w", str(out)]
    done = python(*command, path=source / "nothing", cwd=source)
    if done.returncode and not flags:
        pytest.skip(f"no setuptools >= 77 here, and none could be fetched: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installation beside nothing of the repository."""
    target = tmp_path_factory.mktemp("site")
    command = ["-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check", "--target"]
    done = python(*command, str(target), str(wheel), path=target / "nothing", cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {"fdn_triton/py.typed"}
    for path in (ROOT / "fdn_triton").rglob("*"):
        if (
            path.suffix in (".py", ".jpg", ".txt", ".css", ".js", ".md", ".safetensors")
            and ROOT / "fdn_triton/kernels" not in path.parents
        ):
            expected.add(path.relative_to(ROOT).as_posix())
    kernels = [path for path in (ROOT / "kernels").rglob("*") if path.suffix in (".py", ".md")]
    expected |= {f"fdn_triton/{path.relative_to(ROOT).as_posix()}" for path in kernels}
    assert {"fdn_triton/kernels/README.md", "fdn_triton/demo/clip/groundtruth_rect.txt"} < expected
    assert expected <= inside, f"missing in the wheel: {sorted(expected - inside)}"
    surplus = {name for name in inside - expected if ".dist-info/" not in name}
    assert not surplus, f"in the wheel for no reason: {sorted(surplus)}"
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_no_top_level_name_but_the_package_s(installed: Path) -> None:
    found = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert found - {"bin", "__pycache__"} == {"fdn_triton"}  # "kernels" belongs to another package


def test_the_installation_is_used_and_tracks_the_clip(installed: Path, tmp_path: Path) -> None:
    where = said(
        "import fdn_triton, fdn_triton.kernels, fdn_triton.demo\n"
        "from fdn_triton.sequence import open_sequence\n"
        "clip = open_sequence(fdn_triton.demo.clip_path())\n"
        "print(fdn_triton.__file__, fdn_triton.kernels.__file__, fdn_triton.demo.clip_path())\n"
        "print(clip.length, clip.ground_truth.shape[1], fdn_triton.__version__)",
        path=installed,
        cwd=tmp_path,
    )
    package = installed / "fdn_triton"
    assert where[:3] == [str(package / "__init__.py"), str(package / "kernels/__init__.py"), str(package / "demo/clip")]
    assert where[3] == where[4] and int(where[3]) == len(list((ROOT / "fdn_triton/demo/clip/img").iterdir()))
    assert f"fdn_triton-{where[5]}.dist-info" in {path.name for path in installed.iterdir()}

    flags = ["--seq", str(package / "demo/clip"), "--max-frames", "3", *QUICK]
    done = python("-m", "fdn_triton.track", *flags, path=installed, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "results/clip.txt").read_text().count("\n") == 3


def test_the_installed_command(installed: Path, tmp_path: Path) -> None:
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "fdn-track = fdn_triton.track:main" in points.read_text().splitlines()
    script = installed / "bin/fdn-track"
    if not script.exists():
        pytest.skip("pip has put no script beside the packages")
    done = python(str(script), "--seq", "nowhere", path=installed, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: nowhere does not exist")


RESULTS = """
import torch

def results(ops):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 13, 11, generator=generator)
    boxes = torch.tensor([[0, 3.0, 5.0, 90.0, 120.0], [1, -20.0, 30.0, 60.0, 300.0]])
    layers = [torch.randn(3, o, i, generator=generator) for o, i in ((7, 8), (2, 7))]
    biases = [torch.randn(3, o, generator=generator) for o in (7, 2)]
    return [
        ops.max_roi_align(x, boxes, 3, 1 / 16),
        ops.roi_align_ada_max(x, boxes, 3, 1 / 16),
        ops.lrn_max_pool(x),
        ops.score_heads(torch.randn(5, 8, generator=generator), layers, biases),
    ]
"""


def test_a_copy_of_the_operations_beside_the_original(installed: Path, tmp_path: Path) -> None:
    """Under other names, at the top level and deep in a package: the same results in one process."""
    for copy in ("copied_operations", "other_tracker/vendored/operations"):
        shutil.copytree(installed / "fdn_triton/kernels", installed / copy)
    printed = said(
        RESULTS + "import copied_operations as top, fdn_triton.kernels as original\n"
        "from other_tracker.vendored import operations as deep\n"
        "assert len({ops.max_roi_align for ops in (top, original, deep)}) == 3\n"
        "assert 'other_tracker/vendored' in deep.__file__\n"
        "for one, two, three in zip(results(original), results(top), results(deep)):\n"
        "    assert one.abs().sum() > 0 and torch.equal(one, two) and torch.equal(one, three)\n"
        "    print(tuple(one.shape))",
        path=installed,
        cwd=tmp_path,
    )
    assert len(printed) > 3


def test_a_copy_of_the_operations_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kernels", tmp_path / "site/operations")
    printed = said(
        "import sys\nsys.modules['fdn_triton'] = None\n"
        + RESULTS
        + "import operations\nprint(sum(bool(r.isfinite().all()) for r in results(operations)))",
        path=tmp_path / "site",
        cwd=tmp_path,
    )
    assert printed == ["4"]


def test_copies_of_the_triton_kernels_coexist(tmp_path: Path) -> None:
    """Two copies launch their own kernels in one process, here interpreted, with equal results and gradients."""
    for copy in ("site/operations", "site/other_tracker/vendored/operations"):
        shutil.copytree(ROOT / "kernels", tmp_path / copy)
    printed = said(
        "import os\nos.environ['TRITON_INTERPRET'] = '1'\nimport torch\n"
        "from operations.gpu import max_roi_align as top\n"
        "from operations.roi_sampling import Sampling\n"
        "from other_tracker.vendored.operations.gpu import max_roi_align as deep\n"
        "assert top._max_roi_align_fwd_kernel is not deep._max_roi_align_fwd_kernel\n"
        "rule = Sampling(1 / 16, 0.0, 0.0, 1.0, (6, 6), 2, 2, 0.5, 'clamped')\n"
        "boxes = torch.tensor([[0, 3.0, 5.0, 90.0, 120.0]])\n"
        "results = []\n"
        "for copy in (top, deep):\n"
        "    x = torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()\n"
        "    out = copy.max_roi_align(x, boxes, (3, 3), rule)\n"
        "    out.sum().backward()\n"
        "    results.append((out, x.grad))\n"
        "assert all(torch.equal(one, two) for one, two in zip(*results))\n"
        "print(bool((results[0][1] != 0).any()))",
        path=tmp_path / "site",
        cwd=tmp_path,
    )
    assert printed == ["True"]


HEAVY = ("triton", "matplotlib", "scipy", "onnxruntime", "onnx", "tyro", "cv2")


def test_importing_is_light(installed: Path, tmp_path: Path) -> None:
    """What torch imports itself is torch's affair; with torch 2.13 on a CPU that is none of these."""
    printed = said(
        "import sys, torch\nbefore = set(sys.modules)\nimport fdn_triton, fdn_triton.kernels\n"
        f"print('end', *(name for name in {HEAVY} if name in set(sys.modules) - before))",
        path=installed,
        cwd=tmp_path,
    )
    assert printed == ["end"]


def test_it_works_without_triton_and_without_a_display(installed: Path, tmp_path: Path) -> None:
    printed = said(
        "import sys\n"
        "for name in ('triton', 'matplotlib', 'scipy', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"  # an import of it fails
        "import numpy as np, fdn_triton, fdn_triton.track\n"
        "config = fdn_triton.TrackerConfig(short_side=100, max_side=200, first_iterations=1, first_negatives=40,\n"
        "    least_target_size=None, first_positives=20, bbox_regression=False, candidates=16)\n"
        "image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)\n"
        "tracker = fdn_triton.Tracker(config, device='cpu')\n"
        "tracker.init(image, [20, 15, 30, 25])\n"
        "print(np.isfinite(tracker.update(image).boxes_xywh).all())",
        path=installed,
        cwd=tmp_path,
    )
    assert printed == ["True"]
