# `make` lists the targets. Python 3.11 or newer, pip and make are all they need; everything is installed into VENV.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
WORKERS ?= 2

ENV_PYTHON := $(VENV)/bin/python
INSTALL := $(ENV_PYTHON) -m pip install --disable-pip-version-check -c constraints.txt
LIGHT := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help env dev demo test lint format check report wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(LIGHT)  ## the environment: unsmear and what it needs

dev: $(DEV)  ## the same with everything for development: tests, linter, type checker, oracles

demo: $(LIGHT)  ## deblur the photograph of examples/ into demo/
	$(VENV)/bin/unsmear deblur examples/blurred/coffee.jpg -o $(OUT) --overwrite --side-by-side

test: $(DEV)  ## run the tests
	OMP_NUM_THREADS=1 $(ENV_PYTHON) -m pytest -n $(WORKERS)  # one thread each: workers share the cores

lint: $(DEV)  ## formatter, linter and type checker; they change nothing
	$(ENV_PYTHON) -m ruff format --check
	$(ENV_PYTHON) -m ruff check
	$(ENV_PYTHON) -m mypy

format: $(DEV)  ## format the code and mend what the linter can mend
	$(ENV_PYTHON) -m ruff check --fix
	$(ENV_PYTHON) -m ruff format

check: lint test  ## lint and test: run it before a commit

report: $(DEV)  ## write the tables of REPRODUCTION.md and of TRAINING.md's and MODELS.md's studies anew from the logs
	$(ENV_PYTHON) benchmarks/claims.py report --write >/dev/null
	$(ENV_PYTHON) benchmarks/claims_known.py report --write >/dev/null
	$(ENV_PYTHON) benchmarks/recipe_study.py report --write >/dev/null
	$(ENV_PYTHON) benchmarks/predicted_kernels.py report --write >/dev/null

wheel: $(LIGHT)  ## build the wheel into dist/
	$(ENV_PYTHON) -m pip wheel --disable-pip-version-check --no-deps -w dist .

clean:  ## remove the environment, caches and what demo made
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp is younger than what it was made from, so an environment is made once and brought up to date on a change.
$(LIGHT): pyproject.toml constraints.txt | $(ENV_PYTHON)
	$(INSTALL) -e .
	@touch $@

# The oracles' own dependencies would bring torchvision and a CUDA build of several GB; the tests need none of them.
$(DEV): pyproject.toml constraints.txt | $(ENV_PYTHON)
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps spandrel deepinv
	@touch $(LIGHT) $@

$(ENV_PYTHON):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("unsmear needs Python 3.11 or newer and this is %d.%d; name another: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
