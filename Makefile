# Everything a newcomer needs: make demo, make test. Each target sets up what it needs in .venv first.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Tests wait for processes as much as they compute.
WORKERS ?= 3

.PHONY: help demo test test-slow test-all lint format docs bench spark frameworks constraints setup clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(READY) ## make .venv with everything in it

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mlp-ci needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@command -v git >/dev/null || { echo "mlp-ci needs git: install it and run make again"; exit 2; }
	@echo "Setting up .venv (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@awk '/^uv==/ {pin = 1} pin {print} pin && !/\\$$/ {exit}' constraints.txt > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement .venv/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY) ## watch a real model go round the whole loop (ARGS="--keep" leaves it running)
	@$(BIN)/mlp-ci sandbox demo $(ARGS)

test: $(READY) ## the tests, under ten minutes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(ARGS)

test-slow: $(READY) ## only the slow tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m slow $(ARGS)

test-all: $(READY) ## the tests with the slow ones
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: $(READY) ## ruff, mypy, the linters for workflows and actions, and our rules for templates
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tools/lint_workflows.py
	@$(BIN)/python -m pytest -p no:cacheprovider tests/templates/test_templates.py -k "not all_linters"

format: $(READY) ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(READY) ## write the reference pages and the JSON Schemas anew
	@$(BIN)/python tools/reference.py

bench: $(READY) ## every figure that decides, next to its rival
	@$(BIN)/python -m bench $(ARGS)

spark: $(READY) ## also install Spark (half a gigabyte), so that its tests run; needs Java
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,spark]'

# pip and not uv, because pip looks in PIP_FIND_LINKS, where a machine without a GPU may keep a build of PyTorch for
# processors alone; from the index comes the one with everything for GPUs, several gigabytes.
frameworks: $(READY) ## also install PyTorch, XGBoost, LightGBM and ONNX, so that their examples are tried
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.*'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,frameworks]'

ray: $(READY) ## also install Ray (two hundred megabytes), so that its tests run
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,ray]'

constraints: $(READY) ## resolve every dependency anew
	@$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --all-extras --universal --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --output-file constraints.txt
	@sed -i '1i # Every version that mlp-ci is tested with, with hashes. Made by `make constraints`; holds no index address.' constraints.txt

clean: ## remove what make made
	rm -rf .venv .cache .mypy_cache .ruff_cache .hypothesis demo
