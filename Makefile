# Ex Nihilo. `make run` and `make test` work from a bare clone: Python 3.11, make and a package
# index are all they need.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME := $(CURDIR)
# Threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY := PASSIVE
# Dagster says of its own commands that others replace them.
export PYTHONWARNINGS := ignore:Function
ifdef IMAGES
export EXNIHILO_IMAGES := $(IMAGES)
endif
ifdef DATASET
export EXNIHILO_DATASET := $(DATASET)
endif
ifdef ANNOTATIONS
export EXNIHILO_ANNOTATIONS := $(ANNOTATIONS)
endif

CLUSTERS ?= $(if $(IMAGES),30,12)
CONFIG ?= pipelines/configs/$(if $(IMAGES),folder,sample).yaml
KEY = $(if $(shell echo '$(CLUSTERS)' | grep -E '^[1-9][0-9]*$$'),$(shell printf 'k%04d' \
  '$(CLUSTERS)'),$(error CLUSTERS must be a whole number above 0, got $(CLUSTERS)))

.PHONY: run chain test test-all lint ui bench clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11, or name another with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@echo "installing the packages: about 2.2 GB, a minute or two"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: chain ## the whole chain: on the embedded sample, or IMAGES=folder ANNOTATIONS=json CLUSTERS=300
	@$(if $(FAILURE),$(error $(FAILURE)))
	@$(BIN)/python -m pipelines.show --clustering $(KEY) --config '$(CONFIG)'

# A failed run leaves its reason, which `run` ends with: make's own last line would hide it.
FAILURE = $(shell cat failure.txt 2>/dev/null)
chain: $(VENV)/installed
	@rm -f failure.txt
	$(BIN)/dagster job execute -m pipelines.definitions -j u2seg -c '$(CONFIG)' \
	  --tags '{"dagster/partition": "$(KEY)"}' && rm -f failure.txt || test -s failure.txt

# A test file a process, each with one thread: faster than one process whose threads share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile
test: $(VENV)/installed-dev ## lint, types, rooms and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m 'not slow'

test-all: $(VENV)/installed-dev ## the tests, the slow ones included
	$(PYTEST)

ui: $(VENV)/installed ## web server and daemon on 127.0.0.1:3000
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

$(VENV)/installed-bench: $(VENV)/installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(VENV)/installed-bench ## benchmarks, as tables; BENCH="crf --quick" for one of them, smaller
	$(BIN)/python -m benchmarks $(BENCH)

clean: ## remove results and Dagster's history, keep the environment
	rm -rf store history schedules storage
