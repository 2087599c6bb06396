# Two commands from a fresh clone: `make quickstart` and `make test`. The others are for development.
# PYTHON chooses the interpreter (3.11 or newer), VENV the virtual environment's folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help quickstart test install lint types docs check clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.installed-starter  ## Train and read with two small models; write a report.
	$(BIN)/palam quickstart

test: install  ## Run the tests.
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

install: $(VENV)/.installed-dev  ## Make the virtual environment, with all tools for development.

lint: install  ## Format and check the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check .

types: install  ## Check the types.
	$(BIN)/mypy

docs: install  ## Build the pages and the API reference in docs/_build.
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

check:  ## All checks, in a new virtual environment.
	PYTHON=$(PYTHON) .ci/run

clean:  ## Remove what was built; the virtual environment stays.
	rm -rf build dist docs/_build .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e ".[$*]"
	touch $@
