# The tasks of this checkout. Each sets up what it needs; the second time that takes no time.
#
#   make demo      the whole loop without a screen; results in demo/
#   make app       napari with the dock and a sample
#   make test      all tests, fast and slow (`make fast`: only the fast ones)
#   make check     every static check
#   make format    put the code into shape
#   make pictures  make the pictures of the documentation anew
#   make benchmarks  compare speed and memory with other programs, half an hour; prints tables
#
# Another torch:        make TORCH="torch --index-url https://download.pytorch.org/whl/cu126" demo
# Another Python:       make PYTHON=python3.12 demo
# Another environment:  make VENV=/some/where demo

VENV ?= .venv
BENCHMARKS_VENV ?= .venv-bench
BENCHMARKS_OPTIONS ?=
TORCH ?= torch==2.13.0
PYTHON ?=

BIN := $(abspath $(VENV))/bin
READY := $(VENV)/.ready
BENCHMARKS_READY := $(BENCHMARKS_VENV)/.ready
BENCHMARK := $(abspath $(BENCHMARKS_VENV))/bin/python benchmarks
SCREEN := tools/with_screen.sh
# As many tests at once as there are cores, each process with a screen of its own (pytest-xvfb).
PYTEST := $(BIN)/python -m pytest -n logical --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo app test fast check format pictures benchmarks clean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): pyproject.toml hatch_build.py tools/make_venv.sh tools/system_packages.sh
	@tools/system_packages.sh
	@PYTHON="$(PYTHON)" tools/make_venv.sh "$(VENV)" "$(TORCH)"
	@touch $@

demo: $(READY)
	$(BIN)/napari-unet demo --out demo

app: $(READY)
	$(BIN)/napari-unet open --sample nuclei

test: $(READY)
	$(PYTEST) -m "not gpu"

fast: $(READY)
	$(PYTEST)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/numpydoc lint $$(find src -name '*.py')
	$(BIN)/python tools/check_docstrings.py
	cd / && $(abspath $(SCREEN)) $(BIN)/npe2 validate --imports napari-unet-interactive

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pictures: $(READY)
	$(SCREEN) $(BIN)/python docs/make_pictures.py

# What is compared with is heavy, and none of it is needed for anything else. To see whether all of
# it runs: make benchmarks BENCHMARKS_OPTIONS=--quick
benchmarks: $(BENCHMARKS_READY)
	@$(BENCHMARK)/inference.py $(BENCHMARKS_OPTIONS)
	@$(BENCHMARK)/inference.py $(BENCHMARKS_OPTIONS) --nets light-bn --sizes 2048 --allocator default
	@$(BENCHMARK)/memory.py $(BENCHMARKS_OPTIONS)
	@$(BENCHMARK)/labels.py $(BENCHMARKS_OPTIONS)

$(BENCHMARKS_READY): pyproject.toml hatch_build.py tools/make_venv.sh
	@PYTHON="$(PYTHON)" tools/make_venv.sh "$(BENCHMARKS_VENV)" "$(TORCH)" benchmarks
	@touch $@

clean:
	rm -rf "$(VENV)" "$(BENCHMARKS_VENV)" demo build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
