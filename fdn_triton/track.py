"""Command line: track targets through a sequence, ``python -m fdn_triton.track --seq DIR``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from . import report
from .command_line import EXIT_OK, parse_flags, preset_config, run_command
from .config import PresetName, TrackerConfig
from .errors import InputError
from .frame import check_boxes
from .results import BoxWriter, OverlayVideo, check_writable, draw_boxes, write_json
from .run import BadFrame, OnBadFrame, RunStatistics, Step, decode_threads, run_tracker
from .sequence import DecodeAhead, Frame, open_camera, open_sequence
from .sequence import Sequence as FrameSequence
from .tracker import Tracker
from .weights import DEFAULT_WEIGHTS, UNTRAINED, UNTRAINED_WARNING
from .window import Window, select_boxes

_DEFAULT_VIDEO_FPS = 25.0


@dataclass(frozen=True)
class Options:
    """Track one or more targets through a sequence with FDN (MDNet with whole-frame convolution).

    The first box comes from the sequence's ground truth, from --init or from --select.
    """

    seq: str | None = None
    """OTB or VOT folder, folder or quoted glob of images, image or video file."""
    camera: int | None = None
    """Number of a camera, instead of --seq."""
    init: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="X,Y,W,H")] = ()
    """First box in 0-based pixels; repeat it for several targets; --init=-5,8,40,60 for a negative number."""
    select: bool = False
    """Draw the first boxes with the mouse."""
    out: Path | None = None
    """File for the boxes, a row x,y,w,h per frame; default results/SEQUENCE.txt; one file each for several targets."""
    json: Path | None = None
    """File for the summary: speed per stage, updates, accuracy."""
    save_video: Path | None = None
    """File for a video with the boxes drawn in (.mp4, .avi, .mov, .mkv)."""
    show: bool = False
    """Show the frames in a window; q or Escape ends the run."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    weights: str = DEFAULT_WEIGHTS
    """Name or path (.safetensors, .mat, .pth) of the network's weights."""
    preset: PresetName = "paper"
    """The numbers to start from: the paper's, as close to the authors' release as possible, or fast on a CPU."""
    max_frames: int | None = None
    """Track only so many frames."""
    on_bad_frame: OnBadFrame = "stop"
    """What a frame that cannot be read does: stop the run, or skip it and keep the last boxes."""
    log_updates: bool = False
    """Print a row per frame: score, loss and iterations, as in the paper's Table 1."""
    config: tyro.conf.OmitArgPrefixes[TrackerConfig] = field(default_factory=TrackerConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after input that cannot be used (one line on standard error says why); 130 after Ctrl-C. Whatever was
        tracked before is on disk in all cases.
    """
    return run_command(lambda flags: _track(_parse(flags)), argv)


def _parse(argv: Sequence[str]) -> Options:
    return parse_flags(argv, Options, "python -m fdn_triton.track", default=Options(config=preset_config(argv)))


def _track(options: Options) -> int:
    sequence = _open(options)
    for note in sequence.notes:
        print(f"note: {note}", file=sys.stderr)
    box_path = options.out or Path("results") / f"{sequence.name}.txt"
    _check_outputs(options, box_path)
    tracker = Tracker(options.config, weights=options.weights, device=options.device)
    statistics = RunStatistics()
    ended_by: BaseException | None = None
    with ExitStack() as stack:
        decoded = islice(sequence.frames(decode_threads(tracker.device)), options.max_frames)
        frames = stack.enter_context(DecodeAhead(decoded))
        first, boxes_xywh = _first_boxes(options, sequence, frames)
        truth = _comparable_truth(sequence, len(boxes_xywh))
        watchers = _watchers(options, sequence, truth, stack)
        # Last of what can fail before tracking, because it empties a file that is there.
        writer = stack.enter_context(BoxWriter(box_path, len(boxes_xywh), sequence.one_based))
        if options.weights == UNTRAINED:
            print(f"warning: {UNTRAINED_WARNING}", file=sys.stderr)
        if options.log_updates:
            print(report.update_header())
        progress = stack.enter_context(tqdm(total=_frame_count(options, sequence), unit="frame", disable=None))
        try:
            for step in run_tracker(tracker, chain([first], frames), boxes_xywh, options.on_bad_frame):
                writer.write(step.boxes_xywh)
                wishes = [watch(step) for watch in watchers]
                statistics.add(step)
                if step.problem:
                    tqdm.write(f"warning: frame {step.number} skipped: {step.problem}", file=sys.stderr)
                if options.log_updates:
                    tqdm.write(report.update_rows(step))
                progress.update()
                if not all(wishes):
                    break
        except BadFrame as error:
            ended_by = InputError(f"{error}, or go on with --on-bad-frame skip")
        except (InputError, OSError, KeyboardInterrupt) as error:
            ended_by = error  # raised again once what was tracked is summed up
    if statistics.frames:
        summary = report.summarise(tracker, statistics, sequence.name, options.preset, truth)
        written = [*writer.paths, *(path for path in (options.save_video, options.json) if path is not None)]
        if options.json is not None:
            write_json(options.json, summary)
        print(report.table(summary, written))
    if ended_by is not None:
        raise ended_by
    return EXIT_OK


def _open(options: Options) -> FrameSequence:
    if (options.seq is None) == (options.camera is None):
        raise InputError("give either --seq PATH or --camera N")
    if options.max_frames is not None and options.max_frames < 1:
        raise InputError(f"--max-frames is {options.max_frames}: it must be at least 1")
    if options.seq is None:
        assert options.camera is not None
        return open_camera(options.camera)
    return open_sequence(options.seq, options.max_frames)


def _check_outputs(options: Options, box_path: Path) -> None:
    """Outputs can be written, and overwrite neither each other nor what is read."""
    read = {Path(source).resolve() for source in (options.seq, options.weights) if source is not None}
    outputs = [path for path in (box_path, options.json, options.save_video) if path is not None]
    for path in outputs:
        annotation = options.seq is not None and path.resolve().parent == Path(options.seq).resolve()
        if path.resolve() in read or (annotation and path.name.startswith("groundtruth")):
            raise InputError(f"{path} would overwrite what is read: give another path")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise InputError("two outputs have the same path: give each of --out, --json and --save-video its own")
    for path in outputs[1:]:
        check_writable(path)


def _frame_count(options: Options, sequence: FrameSequence) -> int | None:
    return sequence.length if sequence.length is not None else options.max_frames


def _first_boxes(
    options: Options, sequence: FrameSequence, frames: Iterator[Frame]
) -> tuple[Frame, NDArray[np.float64]]:
    """The first frame and the [T, 4] boxes on it, 0-based pixels."""
    if options.init and options.select:
        raise InputError("--init and --select are both given: the first boxes can come from one of them")
    if not (options.init or options.select or sequence.ground_truth is not None):
        raise InputError("there is no first box: the sequence has no ground truth, so give --init X,Y,W,H or --select")
    boxes = np.array([_parse_box(text) for text in options.init])  # a mistake shows before anything is decoded
    first = next(frames, None)
    if first is None:
        raise InputError(f"{sequence.name} has no frames")
    if first.image is None:
        raise InputError(f"frame {first.number}: {first.problem}: the first frame is needed")
    if options.select:
        boxes = select_boxes(first.image)
    elif not options.init:
        assert sequence.ground_truth is not None
        boxes = sequence.ground_truth[:, 0]
        if not np.isfinite(boxes).all():
            raise InputError("the ground truth has no box on the first frame: give --init X,Y,W,H")
    return first, check_boxes(boxes, first.image.shape[1], first.image.shape[0])


def _parse_box(text: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise InputError(f"--init {text} is not a box: give four numbers X,Y,W,H")
    return numbers


def _comparable_truth(sequence: FrameSequence, targets: int) -> NDArray[np.float64] | None:
    """Ground truth [T, N, 4] if it is of as many targets as are tracked."""
    truth = sequence.ground_truth
    return truth if truth is not None and len(truth) == targets else None


def _watchers(
    options: Options, sequence: FrameSequence, truth: NDArray[np.float64] | None, stack: ExitStack
) -> list[Callable[[Step], bool]]:
    """What looks at every step: the overlay video and the window. Each returns whether to go on."""
    watchers: list[Callable[[Step], bool]] = []
    last_image: NDArray[np.uint8] | None = None

    def drawing(step: Step) -> NDArray[np.uint8]:
        nonlocal last_image
        last_image = last_image if step.image is None else step.image  # a skipped frame shows the one before
        assert last_image is not None
        index = step.number - 1
        truth_now = truth[:, index] if truth is not None and index < truth.shape[1] else None
        return draw_boxes(last_image, step.boxes_xywh, truth_now, f"#{step.number}")

    if options.save_video is not None:
        video = stack.enter_context(OverlayVideo(options.save_video, sequence.fps or _DEFAULT_VIDEO_FPS))

        def film(step: Step) -> bool:
            video.write(drawing(step))
            return True

        watchers.append(film)
    if options.show:
        window = stack.enter_context(Window(sequence.name))
        watchers.append(lambda step: window.show(drawing(step)))
    return watchers


if __name__ == "__main__":
    sys.exit(main())
