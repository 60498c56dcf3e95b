# Each target sets up .venv when it is missing or out of date; that costs nothing when it is there.
PYTHON ?= python3
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

demo: .venv/.ready ## distill a small graph, export it, predict and measure
	$(PY) -m graph2mlp.demo

test: .venv/.ready ## run the tests
	$(PY) -m pytest

lint: .venv/.ready ## check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

typecheck: .venv/.ready ## check types (strict)
	$(PY) tests/typecheck.py

clean: ## remove caches and builds; .venv/ and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "graph2mlp needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt -e '.[distill,tables,ray,dev]'
	@touch $@
