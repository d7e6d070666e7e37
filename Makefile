# Two commands on a fresh machine: `make train` and `make test`. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
# the article's 24 epochs take a GPU a minute or two, two CPU cores over an hour: there the first impression is three epochs,
# with a rate that moves at every step, since one that moves once an epoch would jump
OVERRIDES ?= $(if $(shell command -v nvidia-smi),,epochs=3 schedule.interval=step)
BIN := .venv/bin

# a virtual environment that failed half-way must not count as made
.DELETE_ON_ERROR:
help:  ## this list
	@sed -n "s/^\([a-z]*\):.*## /  make \1\t/p" Makefile

.PHONY: help train test check clean

train: .venv/train.done  ## obtain CIFAR-10 and train the article's network (all 24 epochs: OVERRIDES=)
	$(BIN)/sprintnet train davidnet $(OVERRIDES)

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
