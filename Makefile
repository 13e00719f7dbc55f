# `make` alone prints the targets. Those that need .venv make it first, once; then nothing is downloaded again.

# The first Python that is new enough; name another one with `make PYTHON=...`.
PYTHON := $(or $(PYTHON),$(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done),python3)
RUN := .venv/bin/python -m
# An empty value is none: what starts Python many times would compile this repository as often.
export PYTHONDONTWRITEBYTECODE :=

# The demo's networks are small: a second thread costs more than it brings, ten times so on a busy machine.
demo test test-fast faults evidence: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo photos frontier test test-fast lint faults evidence bench docs lock clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 8

setup: ## make or update the environment in .venv
	@$(PYTHON) tools/setup_environment.py

demo: setup ## train 8 sibling classifiers and a DiffEnc on scikit-learn's digits, into runs/demo and runs/demo_diffenc
	@OMP_NUM_THREADS=1 $(RUN) scripts.train fit --config configs/experiment/demo.yaml --run_dir runs/demo --overwrite true
	@$(RUN) scripts.compare runs/demo --data configs/data/digits.yaml --out runs/demo/comparison
	@$(RUN) scripts.train fit --config configs/experiment/digits_diffenc.yaml \
		--config configs/callbacks/elbo_diagnostics.yaml --config configs/callbacks/samples.yaml \
		--run_dir runs/demo_diffenc --overwrite true
	@$(RUN) scripts.evaluate runs/demo_diffenc --out runs/demo_diffenc/evaluation
	@echo && echo "Open:" && find runs/demo runs/demo_diffenc -name '*.png' -o -name '*.csv' -o -name config.yaml | sort | sed 's/^/  /'

photos: setup ## train VDM, DiffEnc-nt and DiffEnc on crops of two photographs and compare them, into runs/photos
	@$(RUN) scripts.study diffenc_vs_vdm --config configs/experiment/photo_patches_diffenc.yaml \
		--seeds 1 --depths --draws 4 --limit 256 --out runs/photos

frontier: setup ## train the arms of the frontier study on what is in data/ and decide its claims, into runs/frontier (hours)
	@OMP_NUM_THREADS=1 $(RUN) scripts.study frontier --out runs/frontier --processes 2

lint: setup ## ruff (lint and format) and mypy
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

test: lint ## lint, then the tests, on two processes of one thread each
	@$(RUN) pytest -n 2 --dist worksteal

test-fast: setup ## the mathematics and what streams it, on two processes: while one works
	@$(RUN) pytest -n 2 --dist worksteal -q $(addprefix tests/,likeness/similarity likeness/label_geometry \
		likeness/neighbours likeness/networks)

faults: setup ## kill, fill, cut and misconfigure runs many times over, and count what held (about an hour)
	@$(RUN) pytest tests/faults -m "long or not long" -s

evidence: setup ## measure again, method by method, the published numbers that take minutes
	@$(RUN) pytest tests --ignore tests/faults -m long

bench: setup ## print the speeds that the project promises
	@for bench in siblings loss callbacks similarity diffusion layers hubness language; do $(RUN) scripts.bench $$bench || exit; done

lock: setup ## write the versions of .venv into requirements.lock, after its tests have passed
	@sed -i '/^[^#]/d' requirements.lock
	@$(RUN) pip freeze --exclude-editable >> requirements.lock

docs: setup ## build the documentation into build/docs; broken links and pages outside of the contents are errors
	@$(RUN) sphinx -W --keep-going -q docs build/docs

clean: ## remove caches and build products; runs/ and .venv stay
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
