# Every target bootstraps what it needs: a bare machine with Python 3.11, git and make is enough.
# "make demo-once ARGS='--json --assets 5000'" passes options on.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-once test lint format e2e soak bench lock clean

help: ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make .venv from requirements.lock.

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is missing: install Python 3.11, or run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep ^uv== requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Start everything on a demo landing zone, until Ctrl-C.
	@exec $(BIN)/python -m demo up $(ARGS)

demo-once: $(STAMP) ## One full sync of a demo landing zone, as a table or as JSON.
	@exec $(BIN)/python -m demo once $(ARGS)

test: $(STAMP) ## Run every test that needs nothing but this machine.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## Check style, types, SQL, workflows and who imports whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows deploy/github/*.yml
	$(BIN)/zizmor --offline --quiet --persona pedantic deploy/github/*.yml
	$(BIN)/sqlfluff lint --disable-progress-bar dbt_project/models dbt_project/tests

format: $(STAMP) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

e2e: $(STAMP) ## Run the tests of pages and processes (needs Chromium: apt-get install chromium).
	$(BIN)/python -m pytest --override-ini addopts= --import-mode=importlib tests/e2e $(ARGS)

soak: $(STAMP) ## Run the long versions of the randomized tests.
	SOAK=1 $(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)
	SOAK=1 $(BIN)/python -m pytest --override-ini addopts= --import-mode=importlib -m soak -s --timeout 3600 tests/e2e $(ARGS)

bench: $(STAMP) ## Measure against references, and fail if a target is missed.
	@for name in git inventory queries; do $(BIN)/python -m bench $$name $(ARGS) || exit 1; done

lock: $(STAMP) ## Resolve requirements.lock anew from pyproject.toml.
	$(BIN)/uv pip compile pyproject.toml --group dev --upgrade --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock --quiet

clean: ## Remove what the targets made.
	rm -rf $(VENV) .demo .lz_sync build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
