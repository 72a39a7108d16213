# Everything runs in .venv, which is made here, with the versions of constraints.txt:
# what the demo needs first, and what tests and checks need beside it when they are run.

PYTHON ?= python3
BIN := .venv/bin
# Named after what goes into it: a change of the dependencies, or a moved checkout, gets
# a clean environment; anything else reuses the one that is there.
VERSION := $(shell (pwd; cat pyproject.toml constraints.txt) | cksum | cut -d ' ' -f 1)
RUNS := .venv/runs-$(VERSION)
INSTALLED := .venv/installed-$(VERSION)
PIP := $(BIN)/python -m pip install -c constraints.txt

.PHONY: demo environment test lint types docs ci
.DEFAULT_GOAL := test

demo: $(RUNS)
	$(BIN)/python benchmarks/compare_agents.py --env markov --quick --out results/demo

environment: $(INSTALLED) # .venv alone, for the hooks

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

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
