# Everything a developer or CI does. Each target does the set-up that it needs first; done set-up takes no time.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
CODE := api models schemas streams agents ops
PYTEST ?= $(BIN)/pytest
ARGS ?=

.PHONY: FORCE help setup setup-debezium lock demo test test-all lint bench test-debezium test-browser

help:
	@echo "make demo           set up, start everything, replay a marketplace week, check every number"
	echo "make setup          .venv with the packstream command, jars and caches; nothing outside this checkout"
	echo "make test           the suite on real parts (ARGS='-k name' for a part of it)"
	echo "make test-all       the same and the long ones: faults of the whole system, small demos"
	echo "make lint           ruff, mypy, import contracts, event schemas, migrations against models"
	echo "make bench          the benchmarks, ratios printed"
	echo "make test-debezium  the relay's contract, on Debezium"
	echo "make test-browser   the console in Chromium, which has to be there (or CHROMIUM names it)"

.venv/.made:
	@if [ -z "$(PYTHON)" ]; then echo "setup: Python 3.11 or newer is needed: install it, or set PYTHON" >&2; exit 1; fi
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	  echo "setup: making .venv with $(PYTHON)"
	  rm -rf .venv
	  $(PYTHON) -m venv .venv || { echo "setup: $(PYTHON) makes no venv: install python3-venv" >&2; exit 1; }
	fi
	touch $@

# The part of pyproject.toml that an installation depends on; rewritten only when it changed.
.venv/.project: .venv/.made FORCE
	@sed '/^\[tool\./,$$d' pyproject.toml | cmp -s - $@ || sed '/^\[tool\./,$$d' pyproject.toml > $@

FORCE:

# uv comes through pip at the version and hashes of the lock; the rest comes through uv.
.venv/.synced: .venv/.project requirements.lock
	@echo "setup: installing what requirements.lock pins"
	if [ ! -x $(BIN)/uv ]; then
	  sed -n '/^uv==/,/^[^ ]*[^\\]$$/p' requirements.lock > .venv/uv.lock
	  $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r .venv/uv.lock
	fi
	export VIRTUAL_ENV=$(CURDIR)/.venv
	$(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	touch $@

setup: .venv/.synced
	@$(BIN)/python -m ops.stack.install

demo: setup
	@$(BIN)/packstream demo $(ARGS)

test: setup
	@$(PYTEST) -m "not debezium and not browser and not slow" $(ARGS)

# Also the long ones: kills and standstills of the whole system, small demos, the benches' shapes.
test-all: setup
	@$(PYTEST) -m "not debezium and not browser" $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/python -m schemas.check
	$(BIN)/python -m ops.lint.migrations

# Locks name no index. After a change of dependencies in pyproject.toml.
lock: .venv/.synced
	@lock() { $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-index-url "$$@"; }
	lock --all-extras -o requirements.lock
	lock -c requirements.lock -o ops/image-requirements.lock
	$(BIN)/uv pip compile --group browser --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-index-url -c requirements.lock -o ops/browser-requirements.lock

bench: setup-debezium
	@$(BIN)/packstream bench all $(ARGS)

setup-debezium: setup
	@$(BIN)/python -m ops.stack.install debezium

test-debezium: setup-debezium
	@$(PYTEST) -m debezium $(ARGS)

test-browser: setup
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --require-hashes --no-deps -r ops/browser-requirements.lock
	$(PYTEST) -m browser tests/browser $(ARGS)
