# Everything runs in .venv, which is made here, with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
# Named after what goes into it: a change of the dependencies, or a moved checkout, gets
# a clean environment; anything else reuses the one that is there.
INSTALLED := .venv/installed-$(shell (pwd; cat pyproject.toml constraints.txt) | cksum | cut -d ' ' -f 1)

.PHONY: demo test lint types ci
.DEFAULT_GOAL := test

demo: $(INSTALLED)
	$(BIN)/python benchmarks/compare_agents.py --env markov --quick --out results/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell

types: $(INSTALLED)
	$(BIN)/mypy

ci:
	PYTHON="$(PYTHON)" .ci/run

$(INSTALLED):
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[render,agents,benchmarks,dev]'
	@touch $@
