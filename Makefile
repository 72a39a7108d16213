# Everything runs in .venv, with the versions of constraints.txt. The demo installs what
# it needs; tests and checks add their tools when they first run.

PYTHON ?= python3
BIN := .venv/bin
# The name depends on the dependencies and on the folder: if either changes, .venv is
# made again from scratch.
VERSION := $(shell (pwd; cat pyproject.toml constraints.txt) | cksum | cut -d ' ' -f 1)
RUNS := .venv/runs-$(VERSION)
INSTALLED := .venv/installed-$(VERSION)
PIP := $(BIN)/python -m pip install -c constraints.txt

.PHONY: demo environment test lint types docs ci
.DEFAULT_GOAL := test

demo: $(RUNS)
	$(BIN)/python benchmarks/compare_agents.py --env markov --quick --out results/demo

environment: $(INSTALLED) # .venv alone, for the hooks

test: $(INSTALLED) # one worker process per core
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

ci:
	PYTHON="$(PYTHON)" .ci/run

$(RUNS):
	$(PYTHON) -m venv --clear .venv
	$(PIP) -e '.[render,agents,benchmarks]'
	@touch $@

$(INSTALLED): $(RUNS)
	$(PIP) -e '.[render,agents,benchmarks,dev]'
	@touch $@
