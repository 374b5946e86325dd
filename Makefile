# The two commands of a fresh clone: make demo, make test. They need Python >= 3.10 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench clean

demo: $(VENV)/.ready
	$(BIN)/python -m fdn_triton.demo

test: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest perf --benchmark-disable --quiet
	$(BIN)/python -m pytest tests -n auto --dist loadfile

bench: $(VENV)/.ready
	$(BIN)/python -m pytest perf --benchmark-only

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

# OpenCV's full build links against a desktop's libraries; where they are missing, the headless build takes its place.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[eval,test,dev]'
	for extra in vot cluster; do \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$$extra]" \
	    || echo "the extra '$$extra' cannot be installed on this machine: its tests are skipped"; \
	done
	$(BIN)/python -c 'import cv2' 2>/dev/null || { $(BIN)/python -m pip uninstall --quiet -y opencv-python && \
	  $(BIN)/python -m pip install --quiet opencv-python-headless; }
	touch $@
