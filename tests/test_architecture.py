"""The rules of the house, read from the sources: who imports whom, and what library code leaves alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "fdn_triton"

# A module imports modules of the layers above its own only. "" is the package itself, fdn_triton/__init__.py.
LAYERS = (
    {
        "kernels.boxes",
        "errors",
        "rectangle",
        "timing",
        "cuda_graph",
        "kernels",
        "roi_pool",
        "scratch",
        "demo",
        "demo.scenery",
    },
    {"config", "device", "frame", "frame_source", "ground_truth", "winograd"},
    {"noise", "evaluation", "evaluation.metrics", "demo.generate"},
    {"sampling", "sequence", "foreign_weights", "results", "window", "command_line"},
    {"weights", "backbone", "target_sampling"},
    {"frame_features", "heads"},
    {"ranking", "bbox_regression"},
    {"fine_tuning"},
    {"online", "view"},
    {"target"},
    {"host_search", "device_search"},
    {"targets"},
    {"tracker"},
    {""},
    {"run"},
    {"report"},
    {"track"},
    {"demo.__main__"},
    # How well trackers did: facts and rules, then units of work, then what they add up to, then the pages about it.
    {"evaluation.attributes", "evaluation.profiles", "evaluation.protocols", "evaluation.report"},
    {"evaluation.otb", "evaluation.report.markup", "evaluation.vot_region"},
    {"evaluation.published", "evaluation.report.sortable_table", "evaluation.worker", "evaluation.cropping"},
    {"evaluation.work", "evaluation.engines", "evaluation.vot_supervised"},
    {"evaluation.going_on", "evaluation.summary"},
    {"evaluation.report.plots", "evaluation.report.numbers", "evaluation.vot_workspace"},
    {"evaluation.report.page_plots", "evaluation.ablation", "vot"},
    {"evaluation.report.strips", "evaluation.ablation_weights"},
    {"evaluation.report.tables", "evaluation.report.ablation_table"},
    {"evaluation.report.page"},
    {"evaluation.otb_command", "evaluation.vot_command", "evaluation.ablation_command"},
    {"evaluate"},
    # Training: data, then networks, then what tells whether they are good.
    {"training", "training.images", "training.augmentation", "training.windows", "training.distributed"},
    {"training.domains", "training.synthetic", "training.stills", "training.loss_plot", "training.trunk"},
    {"training.loop", "training.exclusion", "training.tracking_score"},
    {"training.classification", "training.batches"},
    {"training.multi_domain"},
    {"train"},
)
USE_KERNELS = {
    "backbone",
    "frame",
    "frame_features",
    "heads",
    "sampling",
    "target_sampling",
    "device_search",
    "training.multi_domain",
}
PRINT = {"track", "command_line", "report", "demo.__main__", "demo.generate"}
PRINT |= {"evaluate", "train", "vot", "evaluation.going_on", "evaluation.otb_command", "evaluation.vot_command"}
PRINT |= {"evaluation.ablation_command"}
READ_ENVIRONMENT = {"window"}  # whether there is a display

MODULES = {
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    if (ROOT / PACKAGE / "kernels") not in path.parents
}
KERNELS = {
    path.relative_to(ROOT / "kernels").with_suffix("").as_posix(): path
    for path in sorted((ROOT / "kernels").rglob("*.py"))
}
LIBRARY = [*MODULES.values(), *KERNELS.values()]


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Every import of a file, also inside functions: its level, its module, the name taken from it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Modules of the package that a module imports; of kernels/ boxes.py, and all the others as one."""
    path = MODULES[module]
    here = path.relative_to(ROOT).parent.parts
    found = set()
    for level, name, taken in imported(path):
        parts = tuple(name.split(".")) if name else ()
        if level:
            parts = here[: len(here) - level + 1] + parts
        if parts[:1] != (PACKAGE,):
            continue
        inside = ".".join(parts[1:])
        submodule = f"{inside}.{taken}".strip(".")
        target = submodule if taken and submodule in MODULES else inside
        if target != "kernels.boxes" and (target.split(".")[0] == "kernels" or submodule == "kernels"):
            target = "kernels"
        found.add(target)
    return found


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an expression of names and attributes; what precedes a call or index is left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_every_module_has_its_place_in_the_order() -> None:
    placed = [module for layer in LAYERS for module in layer]
    assert len(placed) == len(set(placed))
    assert set(placed) - {"kernels", "kernels.boxes"} == set(MODULES), (
        "give a new module its layer in LAYERS, by what may import it"
    )


def test_the_order_is_the_documented_one() -> None:
    place = {module: i for i, layer in enumerate(LAYERS) for module in layer}
    chain = (
        ("kernels.boxes", "config", "errors", "rectangle", "timing"),
        ("sampling", "sequence"),
        ("backbone",),
        ("frame_features", "heads"),
        ("online", "bbox_regression"),
        ("tracker",),
        ("run",),
        ("report",),
        ("track",),
    )
    for before, after in pairwise(chain):
        assert max(place[module] for module in before) < min(place[module] for module in after)
    assert place["kernels"] < place["backbone"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    layer = next((i for i, names in enumerate(LAYERS) if module in names), None)
    assert layer is not None, f"{module} has no layer"
    allowed = set().union(*LAYERS[:layer])
    if module.startswith("demo."):
        allowed.add("demo")  # clip_path
    assert own_imports(module) <= allowed, f"{module} imports {sorted(own_imports(module) - allowed)}"


def test_the_graph_is_read_correctly() -> None:
    """Imports of every spelling, so that the rule above is not kept by being blind."""
    assert {"report", "config", "sequence", "tracker"} <= own_imports("track")
    assert {"", "evaluation.metrics", "run"} <= own_imports("report")
    assert own_imports("demo.__main__") == {"track", "demo"}
    assert own_imports("demo.generate") == {"demo", "demo.scenery"}
    assert own_imports("") == {"config", "errors", "tracker"}


def test_few_modules_know_the_kernels() -> None:
    assert {module for module in MODULES if "kernels" in own_imports(module)} == USE_KERNELS


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_import_nothing_but_torch_triton_and_numba(name: str) -> None:
    allowed = {"torch", "triton", "numba", "numpy", *sys.stdlib_module_names}
    depth = name.count("/")
    for level, module, taken in imported(KERNELS[name]):
        if level:
            # No more dots than folders: the folder can be copied anywhere, and its files know each other only.
            assert level <= depth + 1, f"{name} imports {'.' * level}{module} from outside the folder"
            folder = name.split("/")[0] + "/" if depth and level == 1 else ""
            target = folder + (module or taken or "").replace(".", "/")
            assert target in KERNELS, f"{name} imports {'.' * level}{module}, which is not there"
        else:
            assert module.split(".")[0] in allowed, f"{name} imports {module}"


@pytest.mark.parametrize("name", KERNELS)
def test_triton_and_numba_are_only_imported_where_they_are_used(name: str) -> None:
    """At the top of a module: so that the operations run, and import fast, where there is neither."""
    at_the_top = [node for node in tree(KERNELS[name]).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {alias.name for node in at_the_top if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in at_the_top if isinstance(node, ast.ImportFrom)}
    not_here = {"triton", "gpu", "numba", "numpy", "cpu"}
    if name.startswith(("gpu/", "cpu/")):
        not_here = {"numba", "cpu"} if name.startswith("gpu/") else {"triton", "gpu"}
    assert not {module.split(".")[0] for module in modules} & not_here


def test_the_kernels_in_the_package_are_the_folder() -> None:
    link = ROOT / PACKAGE / "kernels"
    assert link.is_symlink() and link.readlink() == Path("../kernels")


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_only_the_command_lines_print(path: Path) -> None:
    if path in [MODULES[module] for module in PRINT]:
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            assert dotted(node.func) not in ("print", "pprint.pprint"), f"line {node.lineno} prints"
        if isinstance(node, ast.Attribute):
            assert dotted(node) not in ("sys.stdout", "sys.stderr"), f"line {node.lineno} writes to the terminal"


GLOBAL_STATE = (
    "torch.manual_seed",
    "torch.seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.cuda.set_device",
    "torch.set_default_dtype",
    "torch.set_default_device",
    "torch.set_default_tensor_type",
    "torch.set_num_threads",
    "torch.set_num_interop_threads",
    "torch.set_grad_enabled",
    "torch.set_float32_matmul_precision",
    "torch.use_deterministic_algorithms",
    "random.seed",
    "np.random.seed",
    "cv2.setNumThreads",
    "cv2.setRNGSeed",
    "os.chdir",
    "os.putenv",
)
# A worker process is its own: nobody else's threads are counted there, nobody else's paths looked up.
OWN_PROCESS = {
    "evaluation.engines": ("torch.set_num_threads", "cv2.setNumThreads", "os.chdir"),
    "training.batches": ("cv2.setNumThreads",),
}
# What another library has changed is put back.
PUTS_BACK = {ROOT / "kernels/cpu/threads.py": ("torch.set_num_threads",)}
GLOBAL_RANDOMNESS = ("np.random.", "random.")
OWN_GENERATORS = ("np.random.default_rng", "np.random.SeedSequence", "np.random.Generator", "random.Random")


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_no_global_state_is_touched(path: Path) -> None:
    own = {MODULES[module]: names for module, names in OWN_PROCESS.items()}
    allowed = (own | PUTS_BACK).get(path, ())
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            assert name not in GLOBAL_STATE or name in allowed, f"line {node.lineno} calls {name}"
            assert not name.startswith(GLOBAL_RANDOMNESS) or name in OWN_GENERATORS, f"line {node.lineno}: {name}"
            assert not (isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"), f"line {node.lineno}: .cuda"
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                assert not dotted(target).startswith("torch."), f"line {node.lineno} sets {dotted(target)}"
        elif isinstance(node, ast.Global):
            raise AssertionError(f"line {node.lineno}: global {', '.join(node.names)}")


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_no_environment_variable_is_read(path: Path) -> None:
    if path in [MODULES[module] for module in READ_ENVIRONMENT]:
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert dotted(node) not in ("os.environ", "os.environb", "os.getenv"), f"line {node.lineno}"
    assert not [1 for _, module, taken in imported(path) if module == "os" and taken in ("environ", "getenv")]


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "the module has none"
    missing = [node.name for node in public(tree(path).body) if not ast.get_docstring(node)]
    assert not missing, f"no docstring: {', '.join(missing)}"
