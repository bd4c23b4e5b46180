# Every command that a person or CI runs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CODE := approvals bot commands jobs postgres sandbox store
ARGS ?=
UV_VERSION := 0.13.9

.PHONY: help setup lock demo test stress check bench format docs

help: ## What each command does
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16

setup: .venv/.ready ## Create .venv from the lock

.venv/.ready: uv.lock pyproject.toml tools/setup.sh
	@bash tools/setup.sh "$(PYTHON)" "$(UV_VERSION)"
	@touch $@

lock: .venv/.ready ## Resolve the dependencies again and write uv.lock
	$(BIN)/uv lock --upgrade
	$(BIN)/python -m tools.strip_lock uv.lock

demo: .venv/.ready ## Slack stand-in, bot, worker and PostgreSQL on this machine; ARGS=--tour plays the story
	@TWOKEY_HOME="$${TWOKEY_HOME:-$(CURDIR)/.demo}" exec $(BIN)/twokey demo $(ARGS)

# Many tests wait for servers: on as many processes as there are cores 40 % of those are idle.
CORES = $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell expr $(CORES) + $(CORES) / 2)

test: .venv/.ready ## All tests, in parallel; WORKERS=2 says in how many processes
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

stress: .venv/.ready ## 600 rounds of each race, and 50,000 histories against the simple model
	@STRESS=full $(BIN)/pytest -s tests/approvals/test_race_shapes.py tests/approvals/test_simple_model.py $(ARGS)

check: .venv/.ready ## Format, lint, types, contracts (tests: make test)
	$(BIN)/ruff format --check $(CODE) tests bench tools
	$(BIN)/ruff check $(CODE) tests bench tools
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pyright

bench: .venv/.bench ## Measure, and print the table
	@$(BIN)/python -m bench $(ARGS)

.venv/.bench: .venv/.ready
	@bash tools/setup.sh "$(PYTHON)" "$(UV_VERSION)" bench
	@touch $@

docs: .venv/.ready ## Write the generated pages of docs/ again
	@$(BIN)/python -m tools.generate_docs

format: .venv/.ready ## Format and mend what can be mended
	$(BIN)/ruff format $(CODE) tests bench tools
	$(BIN)/ruff check --fix $(CODE) tests bench tools
