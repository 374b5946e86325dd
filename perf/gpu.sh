#!/usr/bin/env bash
# Tests the kernels on this machine's GPU, then times them and the whole tracker: perf/gpu.sh, 13 minutes at most.
# A command that may run for ten minutes: TEST_SECONDS=90 BENCHMARK_SECONDS=200 TRACKING_SECONDS=280 perf/gpu.sh
# On a machine that has torch, triton and pytest, and fetches nothing: PYTHON=python3 perf/gpu.sh
# More words go to perf/gpu.py: perf/gpu.sh --json FILE
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "${PYTHON:-}" ]; then
  make .venv/.ready || exit 1
  PYTHON=.venv/bin/python
fi
"$PYTHON" -c '
import sys
try:
    import pytest, torch, triton
except ImportError as missing:
    sys.exit(f"error: {missing}")
sys.exit(None if torch.cuda.is_available() else "error: torch sees no GPU here")' || exit 1

shopt -s nullglob
tests=(tests/test_*max_roi_align*.py tests/test_*rt_mdnet*.py tests/test_*lrn_pool*.py tests/test_*resize*.py tests/test_*score_heads*.py
  tests/test_target_boxes.py tests/test_ring_rows.py tests/test_noise.py
  tests/test_heads.py tests/test_*fine_tun*.py tests/test_cuda_graph*.py tests/test_device_search.py
  tests/test_conv_precision.py tests/test_tracker_*.py tests/test_timing.py tests/test_add_remove.py tests/test_lockstep.py)
"$PYTHON" -c 'import xdist' 2>/dev/null && tests+=(-n 4)
timeout --signal=INT --kill-after=10 "${TEST_SECONDS:-180}" "$PYTHON" -m pytest -q --maxfail=30 -p no:cacheprovider "${tests[@]}"
tested=$?
[ $tested -eq 124 ] && echo "the tests were stopped after ${TEST_SECONDS:-180} s"

"$PYTHON" perf/gpu.py --seconds "${BENCHMARK_SECONDS:-270}" "$@"
timed=$?
"$PYTHON" perf/gpu_tracking.py --seconds "${TRACKING_SECONDS:-300}"
tracked=$?
echo "tests: exit code $tested, benchmarks: exit code $timed, tracking: exit code $tracked"
[ $tested -eq 0 ] && [ $timed -eq 0 ] && [ $tracked -eq 0 ]
