# Millhand. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
export MILLHAND_DATA_DIR ?= $(CURDIR)/.millhand

.PHONY: help setup run up test test-all check golden bench build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## the virtual environment with everything in it; again only when pyproject.toml changes

run: setup ## deploy the scripts of examples/, run each on a worker, show logs, results and a table
	@$(BIN)/python -m millhand.cli.demo examples

up: setup ## the whole stack in the foreground until Ctrl-C (running jobs finish)
	@exec $(BIN)/millhand up

test: setup ## every test
	@$(BIN)/python -m pytest -n auto --dist loadgroup

quick: setup ## the tests that start no processes of ours: seconds
	@$(BIN)/python -m pytest tests/core tests/worker tests/store -m 'not system' -q

check: setup ## what CI checks: format, lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) test

golden: setup ## write the golden files anew and show what changed
	@GOLDEN=write $(BIN)/python -m pytest -q -k golden
	@git --no-pager diff --stat -- tests/golden

bench: setup ## measure, at most 15 minutes; table here, JSON in bench/results
	@$(BIN)/python -m bench

build: setup ## the wheel and the source archive, in dist/
	@rm -rf dist && $(BIN)/uv build --quiet && ls dist

clean: ## remove what was built; the data directory stays
	rm -rf dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find src tests bench examples -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/ready: pyproject.toml $(wildcard uv.lock) .ci/setup
	@.ci/setup $(VENV)
	@touch $@
