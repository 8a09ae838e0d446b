# Only Python 3.11+ and make are needed: everything else is installed into .venv, pinned and hashed.
PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := requirements.txt
# A file's tests stay together, so that what they share is made once. Two processes of two threads would fight for two cores.
CORE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-cluster check format lock docs clean

help:  ## Show what there is to make.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: .venv/installed  ## Build .venv with the pinned requirements and transferlib itself.

.venv/installed: $(REQUIREMENTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "transferlib needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(REQUIREMENTS)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: .venv/installed  ## Run the main job offline: train a source model on digits 0-5, compare strategies on 6-9.
	@$(BIN)/python jobs/write_digits.py demo/digits
	@$(BIN)/submit train --spec jobs/demo_source.yaml
	@$(BIN)/submit compare --spec jobs/demo_target.yaml --weights "$$(ls -d demo/runs/*-train-* | tail -n 1)"

test: .venv/installed  ## Run the tests (core in two processes, then Ray; GPU tests skip with their reason).
	@core=0; $(CORE) -m "not cluster and not ray" || core=$$?; [ $$core -ne 2 ] || exit 2; \
	$(BIN)/python -m pytest -m "ray and not cluster" && exit $$core

test-fast: .venv/installed  ## Run the core tests that are not slow, for the work at hand.
	$(CORE) -m "not cluster and not ray and not slow"

test-cluster: .venv/installed  ## Run the tests that need Debian's packages or several nodes.
	$(BIN)/python -m pytest -m cluster

check: .venv/installed  ## Lint, types, import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Pin all requirements anew, with hashes.
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --upgrade -o $(REQUIREMENTS)

docs: .venv/installed  ## Write docs/cli.md from the command line's own help.
	$(BIN)/python docs/generate_cli.py

clean:  ## Remove what make built; runs are kept.
	rm -rf .venv build dist demo/digits
