# `make train` and `make test` work on a fresh machine. PYTHON selects the interpreter (3.11 or newer).
PYTHON ?= python3
OVERRIDES ?=
BIN := .venv/bin

# remove a virtual environment whose installation failed
.DELETE_ON_ERROR:
help:  ## show this list
	@sed -n "s/^\([a-z]*\):.*## /  make \1\t/p" Makefile

.PHONY: help train test soak check docs release clean

train: .venv/train.done  ## install, fetch CIFAR-10 and train sprint94 (settings: OVERRIDES="seed=1 ...")
	$(BIN)/sprintnet train $(OVERRIDES)

test: .venv/dev.done  ## run all tests
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal

soak: .venv/dev.done  ## run the tests of faults in their long form (two hours or more); counts: benchmarks/results/soak.jsonl
	SPRINTNET_SOAK=1 $(BIN)/python -m pytest tests/faults/test_server.py
	SPRINTNET_SOAK=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 tests/faults --deselect tests/faults/test_server.py

check: .venv/dev.done  ## check formatting, lint, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev.done  ## build the site into build/docs, without the network; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs build/docs

release: .venv/dev.done  ## build sdist and wheel into dist, check them, install each into fresh environments
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group release
	$(BIN)/python tools/release.py

clean:  ## remove the environment and caches, keep the runs
	rm -rf .venv .*_cache .hypothesis build dist

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip

.venv/train.done: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]"
	touch $@

.venv/dev.done: .venv/train.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps timm  # without torchvision, which no network of it needs
	touch $@
