# Two entry commands on a fresh machine with Python 3.11 and make:  make demo   make test
SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Without bytecode on disk every process compiles Ray, pandas and torch anew, and starts in three times the time.
unexport PYTHONDONTWRITEBYTECODE
DEMO ?= build/demo
SEED ?= 0
ROUNDS ?= 50
PROCESSES ?= 2
JOB ?= demo --actors.max 1 --source build/demo/corpus/tagged_segments.csv --captioner build/demo/captioner
export BLAT_DATA ?= $(abspath ../shared/data)

.PHONY: demo test gpu-check cluster-test chaos bench scaling audit check lint words types contracts constraints clean

demo: $(READY)          ## the whole loop on two CPU cores, ending in a table and an HTML report; SEED=1 DEMO=build/demo1
	bash cluster/demo.sh $(DEMO) $(SEED)

# Tests that use Ray share one process and start first; torch keeps to one thread in each process.
test: $(READY) check    ## lint, types, import contracts, then every test, in two processes
	OMP_NUM_THREADS=1 pytest --numprocesses $(PROCESSES) --dist loadgroup --no-loadscope-reorder --durations 20

gpu-check:              ## on a machine with a CUDA GPU and any Python that has torch: GPU tests, then speed
	python3 -m tests.bench.gpu_check $(ARGS)

cluster-test: $(READY)  ## Ray clusters on this machine: nodes that come, go and are killed under jobs, launches, Slurm
	pytest -m cluster --durations 0

chaos: $(READY)         ## after make demo: fifty SIGKILLs of drivers, workers and a node under its caption job
	python -m tests.bench.chaos --rounds $(ROUNDS) -- $(JOB)

bench: $(READY)         ## each stage beside its limit or a peer, growth with the number of clips; 20 minutes alone on two cores
	python -m tests.bench --append BENCHMARKS.md $(ARGS)

scaling: $(READY)       ## how many GPU actors one driver keeps busy: sleeping actors, 1 to 256
	python -m tests.bench.scaling

audit: $(READY)         ## known weaknesses of the pinned packages; asks PyPI
	uv tool run pip-audit@2.10.1 --strict --no-deps --disable-pip --requirement constraints.txt

check: lint words types contracts

lint: $(READY)
	ruff check .
	ruff format --check .

words: $(READY)         ## Python files outside the contracts, words of the house, lines of Markdown
	python -m tests.check_words

types: $(READY)
	mypy

contracts: $(READY)
	lint-imports --no-cache

# uv installs the five gigabytes of packages in half a minute; the versions come from constraints.txt
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, found {sys.version}; set PYTHON="'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints:            ## renew constraints.txt from the registry
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --no-header --no-annotate --no-emit-index-url \
		--upgrade pyproject.toml --output-file constraints.txt
	$(BIN)/uv --version | awk '{print "uv==" $$2}' >> constraints.txt

clean:                  ## remove what make demo and make test built
	rm -rf build .venv *.egg-info
