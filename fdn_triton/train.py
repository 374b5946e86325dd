"""Command line: train the network's weights, ``python -m fdn_triton.train classify|domains ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro
from tqdm import tqdm

from .command_line import EXIT_OK, parse_flags, run_command
from .training.classification import Classification, ClassificationConfig
from .training.distributed import joined
from .training.images import read_labelled_images
from .training.loop import WEIGHTS, run_training


@dataclass(frozen=True)
class ClassifyOptions:
    """Train conv1 to conv3 by classifying images."""

    images: Path
    """Folder or zip archive with a folder of images per class."""
    out: Path
    """Folder of the run: checkpoint, log, loss plot, weights. The same command goes on where it was stopped."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    config: tyro.conf.OmitArgPrefixes[ClassificationConfig] = field(default_factory=ClassificationConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after input that cannot be used (one line on standard error says why); 130 after Ctrl-C. The last
        checkpoint is on disk in all cases.
    """
    return run_command(lambda flags: _classify(parse_flags(flags, ClassifyOptions, "python -m fdn_triton.train")), argv)


def _classify(options: ClassifyOptions) -> int:
    with joined(options.device) as world:
        with tqdm(unit="image", desc="reading", disable=None if world.rank == 0 else True) as progress:
            images = read_labelled_images(options.images, options.config.image_side, lambda *_: progress.update())
        if images.unreadable and world.rank == 0:
            print(f"note: {len(images.unreadable)} images cannot be read and are left out", file=sys.stderr)
        task = Classification(images, options.config, world)
        identity = {**asdict(options.config), "images": len(images.labels), "processes": world.size}
        results = run_training(task, options.out, identity, world, validate_every=500)
    if world.rank == 0:
        print(f"{options.out / WEIGHTS}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
