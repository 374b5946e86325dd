"""A GPU's way through a frame, on a CPU: the same boxes as the other way, in fixed shapes, waiting only to decide."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from recorded_graphs import recorded_graphs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fdn_triton import Tracker, TrackerConfig, TrackResult
from fdn_triton.backbone import Backbone
from fdn_triton.frame_features import FrameFeatures
from fdn_triton.sequence import open_sequence

PACKAGE = Path(__file__).resolve().parents[1] / "fdn_triton"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SMALL = {  # frames as large as the images: shrinking rounds differently on the two ways
    "short_side": 240, "max_side": 320, "least_target_size": None, "first_iterations": 3, "bbox_regression_draws": 2000,
    "bbox_regression_samples": 200, "first_negatives": 1000, "long_interval": 4,
    "seed": 2,  # with 0 and 1, two numbers that decide are the same up to rounding
}  # fmt: skip


class WholeFrame(FrameFeatures):
    """All features of a frame at once, as on a GPU."""

    def __init__(self, backbone: Backbone, frame_hw: tuple[int, int], mean: Tensor, capture: bool) -> None:
        super().__init__(backbone, frame_hw, mean)
        self._stages, self._capture = [], capture


def clip(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    sequence = open_sequence(PACKAGE / "demo/clip", max_frames=count)
    assert sequence.ground_truth is not None
    images = [frame.image for frame in sequence.frames() if frame.image is not None]
    box = sequence.ground_truth[0, 0]
    return images, np.stack((box, box + (25, 10, -5, 5)))


def tracker_as_on_a_gpu(capture: bool, **changes: Any) -> Tracker:
    tracker = Tracker(
        TrackerConfig(**(SMALL | changes)),
        device="cpu",
        features=lambda *arguments: WholeFrame(*arguments, capture=capture),
    )
    tracker._targets._together = True
    tracker._targets._capture = capture
    return tracker


def follow(tracker: Tracker, images: list[np.ndarray], boxes: np.ndarray) -> list[TrackResult]:
    tracker.init(images[0], boxes)
    return [tracker.update(image) for image in images[1:]]


def assert_same(results: list[TrackResult], others: list[TrackResult]) -> None:
    for one, other in zip(results, others, strict=True):
        np.testing.assert_array_equal(one.success, other.success)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0.01, atol=0.01)
        np.testing.assert_allclose(one.boxes_xywh, other.boxes_xywh, rtol=0, atol=0.1)
        assert [u and (u.kind, u.iterations) for u in one.updates] == [
            u and (u.kind, u.iterations) for u in other.updates
        ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"round_boxes": True, "search_from_refined": True, "score_threshold": 1.5},
        {"negatives_interval": 2, "search_size_refined": 0.0},
    ],
    ids=["paper", "rounded and failing", "negatives of every other frame, as large as found"],
)
def test_boxes_are_those_of_the_other_way(changes: dict[str, Any]) -> None:
    """Captured: trunk, search and the iteration are replayed; a failed frame's samples are not remembered."""
    images, boxes = clip(5)
    tracker = Tracker(TrackerConfig(**(SMALL | changes)), device="cpu")
    expected = follow(tracker, images, boxes)
    with recorded_graphs() as graphs:
        results = follow(captured := tracker_as_on_a_gpu(True, **changes), images, boxes)
    assert_same(results, expected)
    for target, other in zip(captured._targets._targets, tracker._targets._targets, strict=True):
        assert torch.equal(target.generator.get_state(), other.generator.get_state())
        for memory, expected_memory in ((target.positives, other.positives), (target.negatives, other.negatives)):
            rows, expected_rows = memory.of_last(100), expected_memory.of_last(100)
            assert (len(memory), memory.next_row) == (len(expected_memory), expected_memory.next_row)
            torch.testing.assert_close(memory.pool[rows], expected_memory.pool[expected_rows], rtol=1e-3, atol=1e-2)
    if "score_threshold" in changes:
        assert not all(result.success.all() for result in results), "some frame must fail"
    replays = [graph.replays for graph in graphs]
    assert replays.count(len(images) - 1) == 2, "the trunk and the search, on every frame but the first"


def test_frames_sized_anew_are_those_of_the_other_way() -> None:
    """Every time that the targets have shrunk by a step, trunk and search are captured anew."""
    images, boxes = clip(1)
    shrinking = [
        cv2.warpAffine(images[0], np.array([[f, 0, 0], [0, f, 0]]), (320, 240)).astype(np.uint8)
        for f in 0.97 ** np.arange(7)
    ]
    changes = {"resize_step": 1.03, "search_size_refined": 0.7, "search_size_tolerance": 0.0}
    tracker = Tracker(TrackerConfig(**(SMALL | changes)), device="cpu")
    expected = follow(tracker, shrinking, boxes)
    with recorded_graphs() as graphs:
        captured = tracker_as_on_a_gpu(True, **changes)
        assert_same(follow(captured, shrinking, boxes), expected)
    sizes = [one._view.frame_wh for one in (tracker, captured) if one._view is not None]
    assert sizes[0] == sizes[1] > (320, 240)
    assert len([graph for graph in graphs if graph.replays]) > 4, (
        "trunk and search, of the first size and of a later one"
    )
    growth = [[target.growth for target in one._targets._targets] for one in (tracker, captured)]
    assert growth[0] == pytest.approx(growth[1], abs=1e-3)


def test_a_captured_search_follows_what_it_is_about() -> None:
    """Another size of frames, a target that goes, one that comes: each is captured anew."""
    images, boxes = clip(4)
    half = images[2][::2, ::2].copy()

    def run(tracker: Tracker) -> list[TrackResult]:
        tracker.init(images[0], boxes)
        results = [tracker.update(images[1]), tracker.update(half)]
        tracker.remove(0)
        results.append(tracker.update(images[3]))
        tracker.add(images[3], boxes[0])
        return [*results, tracker.update(images[3])]

    with recorded_graphs():
        assert_same(run(tracker_as_on_a_gpu(True)), run(tracker_as_on_a_gpu(False)))


# Waiting for the device

# What copies values to the host on a GPU; masks as an index do so too, for the shape depends on them.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "allclose")


class WaitsForNothing(TorchDispatchMode):
    """Raises where an operation would wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if name in WAITS:
            raise AssertionError(f"{name} waits for the device")
        if name.startswith(("index", "_index")):
            indices = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
            masks = [i for i in indices if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def reads_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Raises where the device is waited for, except by the reads of whole tensors, which are listed."""
    reads: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("tolist", "cpu", "numpy"):
            original = getattr(Tensor, name)

            def counted(tensor: Tensor, *args: Any, name: str = name, original: Any = original) -> Any:
                # What .cpu() returned is on the host: numpy() on it is no read of the device.
                if name != "numpy":
                    reads.append(name)
                with torch._C._DisableTorchDispatch():
                    return original(tensor, *args)

            patch.setattr(Tensor, name, counted)
        # On a CPU alone the batch indices are looked at.
        patch.setattr(sys.modules["fdn_triton.kernels.max_roi_align"], "check_roi_arguments", lambda *_: (3, 3))
        with WaitsForNothing():
            yield reads


def test_a_frame_waits_only_for_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the scores and all beside them, and once for the losses of each iteration."""
    images, boxes = clip(5)
    tracker = tracker_as_on_a_gpu(False)
    iterated = 0
    with recorded_graphs():
        tracker.init(images[0], boxes)
        for image in images[1:]:
            with reads_counted(monkeypatch) as reads:
                result = tracker.update(image)
            iterations = max([update.iterations for update in result.updates if update], default=0)
            assert reads == ["cpu"] + ["tolist"] * iterations
            iterated += iterations
    assert iterated > 0, "some frame must learn"


def test_waits_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    three = torch.ones(3)
    for wait in (lambda: three[three > 0], lambda: three.nonzero(), lambda: float(three[0])):
        with pytest.raises(AssertionError, match="waits for the device"), reads_counted(monkeypatch):
            wait()


@pytest.mark.parametrize(
    "module",
    ["device_search", "heads", "fine_tuning", "online", "cuda_graph", "backbone", "frame", "targets", "noise",
     "target_sampling", "bbox_regression"],
)  # fmt: skip
def test_no_tensor_is_made_from_the_hosts_numbers(module: str) -> None:
    """``torch.tensor(..., device=...)`` waits for a GPU, which a CPU cannot show; ``upload`` does not."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            made = node.func.attr in ("tensor", "as_tensor", "new_tensor", "from_numpy")
            on_a_device = any(k.arg == "device" and ast.unparse(k.value) != "'cpu'" for k in node.keywords)
            assert not (made and on_a_device) and node.func.attr != "new_tensor", f"line {node.lineno}"


@needs_gpu
def test_a_gpu_is_waited_for_only_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    images, boxes = clip(6)
    tracker = Tracker(TrackerConfig(**SMALL), device="cuda")
    for image in (images[0], images[1]):  # the second frame captures
        tracker.update(image) if image is images[1] else tracker.init(image, boxes)
    allowed = {name: getattr(Tensor, name) for name in ("tolist", "cpu")}
    with monkeypatch.context() as patch:
        for name, original in allowed.items():

            def reading(tensor: Tensor, *args: Any, original: Any = original) -> Any:
                torch.cuda.set_sync_debug_mode("default")
                try:
                    return original(tensor, *args)
                finally:
                    torch.cuda.set_sync_debug_mode("error")

            patch.setattr(Tensor, name, reading)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for image in images[2:4]:  # no update: its graph is captured on the frame after
                tracker.update(image)
        finally:
            torch.cuda.set_sync_debug_mode("default")
