# The two commands: `make run` and `make test`. Everything lives in .venv; nothing else is touched.
# PYTHON=python3.13 make test   takes another interpreter (after `make clean`).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := UV_PROJECT_ENVIRONMENT=$(VENV) UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 $(BIN)/uv
# torch and what it brings: tested against a double of its interface instead.
EXTRAS := --all-extras --no-extra sentence-transformers
SYNC := $(UV) sync --quiet --frozen --inexact --python $(BIN)/python

.PHONY: help run test check browser format soak bench clean

help: ## Show the commands.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.bootstrap: requirements-bootstrap.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: ondol needs Python 3.11 or newer, this is $$($(PYTHON) --version); name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "make: creating the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@touch $@

$(VENV)/.run: $(VENV)/.bootstrap uv.lock pyproject.toml
	@echo "make: installing the locked dependencies"
	@$(SYNC) --no-install-project --group build $(EXTRAS)
	@$(SYNC) --group build $(EXTRAS)
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "make: installing the locked development dependencies"
	@$(SYNC) --group dev $(EXTRAS)
	@touch $@

run: $(VENV)/.run ## Install what is missing and start the server on 127.0.0.1:8000.
	@exec $(BIN)/ondol serve

test: check ## Run every check: lock, format, lint, types, import rules, all tests.
	@scripts/install-test-services.sh
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.test ## Run the checks that run no code.
	$(UV) lock --check --quiet
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_shape.py

format: $(VENV)/.test ## Format the code and mend what the linter can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(VENV)/.test ## Drive the model pool through a million random steps (about half an hour).
	$(BIN)/python scripts/soak.py --steps 1000000

bench: $(VENV)/.test ## Run the benchmarks and print their tables.
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/models_load.py
	$(BIN)/python benchmarks/cache_speed.py
	$(BIN)/python benchmarks/cache_replay.py benchmarks/results/server_trace.npz.xz
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/monitor.py

clean: ## Remove the environment and what tools left behind.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
