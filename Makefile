# The tasks of this checkout. Each sets up what it needs; the second time that takes no time.
#
#   make demo      the whole loop without a screen; results in demo/
#   make app       napari with the dock and a sample
#   make test      all tests, fast and slow (`make fast`: only the fast ones)
#   make check     every static check
#   make format    put the code into shape
#   make pictures  make the pictures of the documentation anew
#
# Another torch:        make TORCH="torch --index-url https://download.pytorch.org/whl/cu126" demo
# Another Python:       make PYTHON=python3.12 demo
# Another environment:  make VENV=/some/where demo

VENV ?= .venv
TORCH ?= torch==2.13.0
PYTHON ?=

BIN := $(abspath $(VENV))/bin
READY := $(VENV)/.ready
SCREEN := tools/with_screen.sh
# The screen comes from with_screen.sh, not from pytest-xvfb, should that be installed.
PYTEST := $(SCREEN) $(BIN)/python -m pytest -p no:xvfb

.DEFAULT_GOAL := help
.PHONY: help setup demo app test fast check format pictures clean

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

clean:
	rm -rf "$(VENV)" demo build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
