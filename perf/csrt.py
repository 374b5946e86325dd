"""OpenCV's CSRT over one sequence, for ``perf/peers.py``: opencv-contrib needs an environment of its own.

Reads a job as JSON from standard input: ``images`` (paths), ``box`` (x, y, w, h, 0-based pixels). Writes to standard
output: ``boxes`` per frame, ``first_frame_s``, ``marks`` (seconds at the end of each frame), ``opencv``, ``python``,
``threads``. Needs cv2 and nothing of this repository; frames are decoded ahead in a thread, as ours are.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2

_AHEAD = 4  # frames decoded before they are asked for


def main() -> None:
    job = json.load(sys.stdin)
    paths, box = job["images"], tuple(round(value) for value in job["box"])
    tracker = cv2.TrackerCSRT_create()
    boxes, marks, first_frame_s = [list(job["box"])], [], 0.0
    with ThreadPoolExecutor(1) as decoder:
        decoding = [decoder.submit(cv2.imread, path) for path in paths[:_AHEAD]]
        for i in range(len(paths)):
            image = decoding.pop(0).result()
            if i + _AHEAD < len(paths):
                decoding.append(decoder.submit(cv2.imread, paths[i + _AHEAD]))
            if i == 0:
                started = time.perf_counter()
                tracker.init(image, box)
                first_frame_s = time.perf_counter() - started
            else:
                found, new = tracker.update(image)
                boxes.append(list(new) if found else boxes[-1])
            marks.append(time.perf_counter())
    result = {
        "boxes": boxes,
        "first_frame_s": first_frame_s,
        "marks": marks,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "threads": cv2.getNumThreads(),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
