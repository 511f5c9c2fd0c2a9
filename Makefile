# Licensed under the Apache License, Version 2.0 (see LICENSE).
# Every target builds what it needs: Python 3.11 or newer and pip are enough to begin with.
# PYTHON=/path/to/python chooses the interpreter of a new environment; PYTEST="-k name" adds options to the tests.

PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
PYTEST ?=
RUN := .venv/bin/python
READY := .venv/.ready
LABEL := .venv/.label

.PHONY: help demo test test-all lint format clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(READY)  ## outline structures in the pictures of demo/ and make a page to look at
	$(RUN) -m monai_effsam.cli demo

test: $(LABEL)  ## the tests, a few minutes on two cores
	$(RUN) -m pytest -m "not slow" $(PYTEST)

test-all: $(LABEL)  ## all tests, also the slow ones
	$(RUN) -m pytest $(PYTEST)

lint: $(LABEL)  ## ruff and mypy, changing nothing
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)  ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove caches and outputs, keep the environment
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo/out
	find monai_effsam tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found. Name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@echo "Installing into .venv; the first time takes a few minutes."
	$(RUN) -m pip install -q -c constraints.txt torch
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev,train,export]'
	@touch $@

# monailabel: some of what it needs is built from source, which must see the torch that is there
$(LABEL): $(READY)
	@echo "Installing MONAI Label, for its tests; a few minutes more."
	$(RUN) -m pip install -q -c constraints.txt setuptools wheel hatchling editables
	$(RUN) -m pip install -q -c constraints.txt --no-build-isolation -e '.[label]'
	@touch $@
