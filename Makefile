# Two commands on a fresh machine: `make train` and `make test`. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
OVERRIDES ?=
BIN := .venv/bin

# a virtual environment that failed half-way must not count as made
.DELETE_ON_ERROR:
help:  ## this list
	@sed -n "s/^\([a-z]*\):.*## /  make \1\t/p" Makefile

.PHONY: help train test check clean

train: .venv/train.done  ## obtain CIFAR-10 and train sprint94 on it (settings: OVERRIDES="seed=1 ...")
	$(BIN)/sprintnet train $(OVERRIDES)

test: .venv/dev.done  ## run all tests
	$(BIN)/python -m pytest -n 2

check: .venv/dev.done  ## lint, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## remove the environment and caches, not the runs
	rm -rf .venv .*_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip

.venv/train.done: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]"
	touch $@

.venv/dev.done: .venv/train.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@
