# `make study` and `make test` set up all they need in .venv; they want Python >= 3.11 and pip only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=

N := 1000

.PHONY: study test test-all faults gpu-check lint docs constraints clean

study: $(VENV)/installed
	$(BIN)/python -m study.ablation $(STUDY)

test: $(VENV)/installed-dev
	$(BIN)/pytest -m "not slow"

# Three at once on two cores: many of these tests wait, for processes to start and for the dead to be noticed.
test-all: $(VENV)/installed-dev
	$(BIN)/pytest -n 3

# Random schedules of faults with a checker: an hour for a thousand. Run again, it resumes.
faults: $(VENV)/installed-dev
	$(BIN)/python -m tests.faults --runs $(N)

# What only a GPU can show. Without one it fails: a check that checked nothing is none. A missed goal ends nothing.
gpu-check: $(VENV)/installed-dev
	$(BIN)/python -c 'from trainables.devices import usable_gpu; usable_gpu()'
	$(BIN)/pytest -n 0 tests/gpu tests/test_memory.py::test_a_gpu_without_room
	-$(BIN)/python -m benchmarks.step --device cuda
	-$(BIN)/python -m benchmarks.packing --device cuda
	-$(BIN)/python -m benchmarks.inputs --device cuda

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The pages of all keys and of all JSON answers are made from code; the tests want them current.
docs: $(VENV)/installed
	$(BIN)/python -m study.pages docs

$(VENV)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Pins what is installed now: to be run after an upgrade that was tested.
constraints: $(VENV)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,dashboard,cluster]'
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' > constraints.txt

clean:
	rm -rf $(VENV) results
