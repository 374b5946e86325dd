"""Command line: train the network's weights, ``python -m fdn_triton.train classify|domains ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from tqdm import tqdm

from .command_line import EXIT_OK, parse_flags, run_command
from .config import NetworkConfig
from .device import cpu_multiplies_bf16
from .errors import InputError
from .training.classification import Classification, ClassificationConfig
from .training.distributed import World, joined
from .training.domains import Domain, VideoDomain, read_domains
from .training.exclusion import Benchmark, refuse_test_videos
from .training.images import read_labelled_images
from .training.loop import WEIGHTS, Schedule, Task, run_training
from .training.multi_domain import MultiDomainConfig, MultiDomainTraining
from .training.stills import CHANGING, still_domains
from .training.synthetic import DRAWING, synthetic_domains
from .training.tracking_score import tracking_score
from .training.trunk import trunk_to_train
from .weights import NetworkWeights, load_weights


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What both trainings have."""

    out: Path
    """Folder of the run: checkpoint, log, loss plot, weights. The same command goes on where it was stopped."""
    track: tuple[Path, ...] = ()
    """Folders of videos, not trained on, that the weights are tried on: precision and AUC of tracking."""
    track_frames: int = 40
    """Frames of each that are tracked."""
    schedule: tyro.conf.OmitArgPrefixes[Schedule] = field(default_factory=Schedule)
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(RunOptions):
    """Train conv1 to conv3 by classifying images."""

    images: Path
    """Folder or zip archive with a folder of images per class."""
    config: tyro.conf.OmitArgPrefixes[ClassificationConfig] = field(default_factory=ClassificationConfig)


@dataclass(frozen=True, kw_only=True)
class DomainsOptions(RunOptions):
    """Train convolutions, fc4 and fc5 on videos, a branch of the last layer for each (paper 3.3)."""

    videos: tuple[Path, ...]
    """Annotated sequences, or folders of them, in OTB's, VOT's, GOT-10k's or LaSOT's layout."""
    weights: str
    """Name or path of the weights to start from, of train classify, or of train domains: then fc4 and fc5 go on too."""
    photographs: Path | None = None
    """Folder of images that synthetic domains are made from."""
    synthetic: int = 0
    """How many synthetic domains are added."""
    stills: Path | None = None
    """Folder of photographs with boxes, in PASCAL VOC's layout, for domains of still images."""
    still_domains: int = 0
    """How many of their objects become domains."""
    for_: Annotated[Benchmark, tyro.conf.arg(name="for")] = "otb"
    """The benchmark that the weights will be tested on: its videos are refused by name."""
    exclude: tuple[Path, ...] = ()
    """Folders of videos whose content is refused, whatever it is called."""
    config: tyro.conf.OmitArgPrefixes[MultiDomainConfig] = field(default_factory=MultiDomainConfig)


Options = Union[ClassifyOptions, DomainsOptions]  # noqa: UP007  read at run time

_NO_BF16 = (
    "this CPU has no instructions for bf16, which takes it many times as long: stop this and give --precision fp32 and "
    "another --out"
)
_LEAST = {
    0: ("seed", "synthetic", "still_domains", "mined", "embedding", "light", "grey", "turn", "blur"),
    1: (
        *("log_every", "validate_every", "track_every", "track_frames", "cycles", "positives", "negatives"),
        *("image_side", "window", "target_size_min"),
    ),
}
_MOST = {1: ("light", "grey", "blur"), 180: ("turn",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after input that cannot be used (one line on standard error says why); 130 after Ctrl-C. The last
        checkpoint is on disk in all cases.
    """
    return run_command(lambda flags: _train(_parse(flags)), argv)


def _parse(argv: Sequence[str]) -> Options:
    form = Union[  # noqa: UP007  the parts are values
        Annotated[ClassifyOptions, tyro.conf.subcommand("classify")],
        Annotated[DomainsOptions, tyro.conf.subcommand("domains")],
    ]
    return parse_flags(argv, form, "python -m fdn_triton.train", description="Train the network's weights.")


def _train(options: Options) -> int:
    _check(options)
    with joined(options.device) as world:
        held_out = _read_videos(options.track, "videos to track", world) if options.track else []
        if torn := [video.name for video in held_out if video.frame(0) is None]:
            raise InputError(f"{', '.join(torn)}: the first frame cannot be read: take it out of --track")
        videos: list[VideoDomain] = []
        if isinstance(options, ClassifyOptions):
            task, identity, network = _classification(options, world)
        else:
            videos = _training_videos(options, held_out, world)
            task, identity, network = _multi_domain(options, videos, world)

        def tracking(weights: NetworkWeights) -> dict[str, float]:
            return tracking_score(weights, held_out, options.track_frames, network, str(world.device))

        slow = options.config.precision == "bf16" and world.device.type == "cpu" and not cpu_multiplies_bf16()
        if slow and world.rank == 0:
            print(f"note: {_NO_BF16}", file=sys.stderr)
        identity |= {**asdict(options.config), "processes": world.size}
        results = run_training(task, options.out, identity, world, options.schedule, tracking if held_out else None)
        if damaged := [f"{video.name}: {path} cannot be read" for video in videos for path in sorted(video.unreadable)]:
            _tell(world, "frames that were asked for", damaged)
        if world.rank == 0:
            print(f"{options.out / WEIGHTS}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))
    return EXIT_OK


def _check(options: Options) -> None:
    numbers = {**vars(options), **asdict(options.schedule), **asdict(options.config)}
    for least, names in _LEAST.items():
        for name in names:
            if name in numbers and not numbers[name] >= least:  # NaN too
                raise InputError(f"--{name.replace('_', '-')} is {numbers[name]}: it must be at least {least}")
    for most, names in _MOST.items():
        for name in names:
            if name in numbers and numbers[name] > most:
                raise InputError(f"--{name} is {numbers[name]}: it must be at most {most}")


def _classification(options: ClassifyOptions, world: World) -> tuple[Task, dict[str, Any], NetworkConfig]:
    config = options.config
    with _progress(world, "image", "reading") as progress:
        images = read_labelled_images(options.images, config.image_side, lambda *_: progress.update())
    _tell(world, f"{len(images.labels)} images of {len(images.classes)} classes", images.unreadable)
    network = NetworkConfig(conv_layers=config.conv_layers)
    return Classification(images, config, world), {"images": len(images.labels)}, network


def _training_videos(options: DomainsOptions, held_out: Sequence[VideoDomain], world: World) -> list[VideoDomain]:
    videos = _read_videos(options.videos, "domains", world)
    with _progress(world, "video", "comparing with excluded ones") as progress:
        not_compared = refuse_test_videos(videos, options.for_, options.exclude, progress.update)
    if not_compared:
        _tell(world, "excluded ones that were not compared", not_compared)
    if twice := {video.name for video in videos} & {video.name for video in held_out}:
        raise InputError(f"{', '.join(sorted(twice))}: in both the training set and --track, take it out of one")
    return videos


def _multi_domain(
    options: DomainsOptions, videos: Sequence[VideoDomain], world: World
) -> tuple[Task, dict[str, Any], NetworkConfig]:
    config = options.config
    domains: list[Domain] = list(videos)
    if options.synthetic:
        if options.photographs is None:
            raise InputError("--synthetic needs images to make videos from: give --photographs FOLDER")
        domains += synthetic_domains(options.photographs, options.synthetic, config.seed)
    if (options.stills is None) != (options.still_domains == 0):
        raise InputError("--stills FOLDER says where photographs are, --still-domains N how many of them: give both")
    if options.stills is not None:
        stills, left_out = still_domains(options.stills, options.still_domains, config.seed)
        _tell(world, f"{len(stills)} domains of photographs", left_out)
        domains += stills
    network = NetworkConfig(
        conv_layers=config.conv_layers,
        fc_layers=config.fc_layers,
        roi_layer=config.roi_layer,
        sampling_ratio=config.sampling_ratio,
    )
    start = load_weights(options.weights, network)
    first_frames = [frame[0] for domain in domains[:3] if (frame := domain.frame(0)) is not None]
    trunk = trunk_to_train(start, network, first_frames)
    identity: dict[str, Any] = {
        "domains": [domain.name for domain in domains],
        "start": start.sha256,
        "for": options.for_,
    }
    if options.synthetic:
        identity["drawing"] = DRAWING
    if options.stills is not None:
        identity["changing"] = CHANGING
    return MultiDomainTraining(domains, trunk, start, config, world), identity, network


def _read_videos(places: Sequence[Path], what: str, world: World) -> list[VideoDomain]:
    videos, left_out = read_domains(places)
    _tell(world, f"{len(videos)} {what}", left_out)
    return videos


def _progress(world: World, unit: str, what: str) -> tqdm[Any]:
    return tqdm(unit=unit, desc=what, disable=None if world.rank == 0 else True)


def _tell(world: World, what: str, left_out: Sequence[str]) -> None:
    if world.rank == 0:
        print(f"{what}; left out: {len(left_out) or 'nothing'}")
        for line in left_out[:10]:
            print(f"note: left out: {line}", file=sys.stderr)
        if len(left_out) > 10:
            print(f"note: left out: {len(left_out) - 10} more", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
