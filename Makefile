# `make` alone lists the targets. Everything happens in .venv; nothing outside this folder changes, but for the
# binaries of the local control plane, which go to the user's cache folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint crds bench clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with vrampack and what development needs; once.

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'vrampack needs Python 3.11 or newer; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	@echo 'Setting up $(VENV) (once) …'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Models on a simulated fleet in a real Kubernetes; ARGS=--exit ends it when all is ready.
	@$(BIN)/vrampack demo $(ARGS)

test: $(STAMP) ## All tests; ARGS='-k words' some of them.
	@$(BIN)/pytest $(ARGS)

lint: $(STAMP) ## Lint, format, types, layers.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

crds: $(STAMP) ## Generate the CustomResourceDefinitions from operator/vrampack/api.
	$(BIN)/vrampack crds --output-dir crds
	$(BIN)/vrampack crds --output-dir charts/vrampack/crds

bench: $(STAMP) ## Placement rate and latency against kube-scheduler's own; ARGS='-o json' for scripts.
	@$(BIN)/python -m benchmarks.control_loop $(ARGS)

clean: ## Remove .venv and all caches of this folder.
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find operator tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
