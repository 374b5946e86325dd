"""Track the embedded clip: ``python -m fdn_triton.demo [flags of fdn_triton.track]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import track
from . import clip_path

FOLDER = Path("results")
FOLLOWED_IOU = 0.6


def main(argv: Sequence[str] | None = None) -> int:
    """Track the clip and say whether the target was followed; flags are passed on. Results go to ``results/demo.*``.

    Returns:
        What :func:`fdn_triton.track.main` returns, or 1 if the mean overlap is at most 0.6.
    """
    summary_path = FOLDER / "demo.json"
    flags = ["--seq", str(clip_path()), "--out", str(FOLDER / "demo.txt"), "--save-video", str(FOLDER / "demo.mp4")]
    flags += sys.argv[1:] if argv is None else argv
    code = track.main([*flags, "--json", str(summary_path)])
    if code != track.EXIT_OK:
        return code
    mean_iou = json.loads(summary_path.read_text()).get("mean_iou")
    if mean_iou is None:  # the flags chose other frames or targets, without ground truth
        return track.EXIT_OK
    followed = mean_iou > FOLLOWED_IOU
    print(f"the target was {'followed' if followed else 'lost'}: mean IoU {mean_iou:.3f}")
    return track.EXIT_OK if followed else 1


if __name__ == "__main__":
    sys.exit(main())
