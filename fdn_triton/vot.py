"""Command line: the tracker as a TraX server, which vot-toolkit starts and talks to, ``python -m fdn_triton.vot``.

TraX (Cehovin Zajc et al., "TraX: The visual Tracking eXchange Protocol", Neurocomputing 2017) goes over standard input
and output; needs the extra ``vot``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from .command_line import EXIT_OK, parse_flags, preset_config, run_command
from .config import PRESETS, NetworkConfig, PresetName, TrackerConfig
from .errors import InputError
from .evaluation.vot_region import bounding_box
from .evaluation.vot_workspace import TRACKER, write_trackers_ini
from .frame_source import image_frames
from .tracker import Tracker
from .weights import DEFAULT_WEIGHTS, UNTRAINED, UNTRAINED_WARNING

_PROG = "python -m fdn_triton.vot"


@dataclass(frozen=True)
class ServerOptions:
    """Wait for vot-toolkit (TraX) on standard input and output, and track what it sends.

    Each start draws with a seed of its own: --seed, --seed + 1, ... in the order of the starts.
    """

    write_trackers_ini: Path | None = None
    """Write the toolkit's entry that starts this server with the other flags, and end."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    weights: str = DEFAULT_WEIGHTS
    """Name or path (.safetensors, .mat, .pth) of the network's weights."""
    preset: PresetName = "paper"
    """The numbers to start from: the paper's, as close to the authors' release as possible, or fast on a CPU."""
    config: tyro.conf.OmitArgPrefixes[TrackerConfig] = field(default_factory=TrackerConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 once the toolkit has said that it is done; 2 after input that cannot be used (one line on standard error says
        why, and the toolkit is told); 130 after Ctrl-C.
    """
    return run_command(_vot, argv)


def server_command(options: ServerOptions) -> str:
    """A shell's line that starts the server with these options."""
    default, weights = PRESETS[options.preset], options.weights
    if Path(weights).is_file():
        weights = str(Path(weights).resolve())  # the toolkit starts trackers in a folder of their own
    flags = {
        "device": options.device,
        "weights": weights,
        "preset": options.preset,
        **_changed(options.config, default),
        **_changed(options.config.network, default.network),
    }
    return shlex.join([sys.executable, "-m", "fdn_triton.vot", *(_flag(*flag) for flag in flags.items())])


def _changed(config: TrackerConfig | NetworkConfig, default: TrackerConfig | NetworkConfig) -> dict[str, Any]:
    """The numbers that are not the default's."""
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "network"}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _flag(name: str, value: Any) -> str:
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={value}"


def _vot(argv: Sequence[str]) -> int:
    options = parse_flags(argv, ServerOptions, _PROG, default=ServerOptions(config=preset_config(argv)))
    if options.write_trackers_ini is not None:
        write_trackers_ini(options.write_trackers_ini, server_command(options))
        print(f"wrote {options.write_trackers_ini}")
        return EXIT_OK
    return _serve(options)


def _serve(options: ServerOptions) -> int:
    try:
        import trax
    except ImportError:
        raise InputError("vot-trax is not installed: pip install 'fdn-triton[vot]'") from None
    tracker = Tracker(options.config, weights=options.weights, device=options.device)
    if options.weights == UNTRAINED:
        print(f"warning: {UNTRAINED_WARNING}", file=sys.stderr)
    _warm_up(tracker)
    seed = options.config.seed
    formats = [trax.Region.RECTANGLE, trax.Region.POLYGON]
    server = trax.Server(formats, [trax.Image.PATH], tracker_name=TRACKER, tracker_description="FDN (ACML 2018)")
    try:
        while (request := server.wait()).type != trax.TraxStatus.QUIT:
            image = _read(Path(request.image[trax.ImageChannel.COLOR].path()))
            if request.type == trax.TraxStatus.INITIALIZE:
                box_xywh = _box(request.objects[0][0])
                tracker = Tracker(replace(options.config, seed=seed), weights=tracker.weights, device=options.device)
                tracker.init(image, box_xywh)
                seed += 1
            else:
                box_xywh = tracker.update(image).boxes_xywh[0]
            server.status([(trax.Rectangle.create(*box_xywh), {})])
    except InputError as error:
        server.quit(str(error))
        raise
    except trax.TraxException as error:  # the toolkit is gone, or does not keep to the protocol
        raise InputError(f"the connection to the toolkit broke: {error}") from None
    return EXIT_OK


def _warm_up(tracker: Tracker) -> None:
    """A step on a small image, so that no frame pays for what is loaded or compiled on first use."""
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    tracker.init(image, [60, 40, 40, 40])
    tracker.update(image)


def _read(path: Path) -> NDArray[np.uint8]:
    frame = next(image_frames([path]))
    if frame.image is None:
        raise InputError(f"{frame.problem}: repair it")
    return frame.image


def _box(region: Any) -> NDArray[np.float64]:
    """[4] ``x, y, w, h`` of a TraX rectangle or polygon."""
    return bounding_box(region.bounds() if region.type == region.RECTANGLE else [*chain.from_iterable(region)])


if __name__ == "__main__":
    sys.exit(main())
