# Each target makes the virtual environment it needs; a fresh clone needs python3.11 or newer, make and pip.
#   .venv           what serving and the sidecar need (no torch)
#   .venv-loadtest  serving and Locust
#   .venv-dev       everything: training, load test, tests
#   .venv-policy    checkov, which holds the manifests against public rules; its pins and ours differ

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PRESET ?= default
ARGS ?=

INSTALL = -m pip install --quiet --constraint constraints.txt --editable
LOCKED := pyproject.toml constraints.txt
DEV := .venv-dev/bin/python
POLICY := deploy/k8s/checkov-constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve test components lint format train train-smoke loadtest bench demo neuron-check constraints policy-constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

serve: .venv/.installed ## Answer messages on http://127.0.0.1:8080, watched by the sidecar on http://127.0.0.1:8081
	exec .venv/bin/python -m deploy.side_by_side

test: lint components .venv-policy/.installed ## Lint, then run every test
	$(DEV) -m pytest $(ARGS)

components: ## Install what the tests start beside Python (Debian packages, as root), unless it is there
	tests/components.sh

lint: .venv-dev/.installed ## Ruff, strict types, import contracts
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	.venv-dev/bin/lint-imports

format: .venv-dev/.installed ## Rewrite the code as the linter wants it
	$(DEV) -m ruff check --fix .
	$(DEV) -m ruff format .

train: .venv-dev/.installed ## Make a version from the text: data, train, calibrate, export, evaluate (PRESET=default)
	$(DEV) -m model_repo run --preset $(PRESET) $(ARGS)

train-smoke: ## Every pipeline stage on generated text, in about two minutes
	$(MAKE) train PRESET=smoke

loadtest: .venv-loadtest/.installed ## Locust traffic against the service; prints the verdict and keeps a report page
	.venv-loadtest/bin/python -m loadtest $(ARGS)

bench: .venv-dev/.installed ## Highest rate inside the budget, beside a plain FastAPI + ONNX Runtime service
	$(DEV) -m loadtest.bench $(ARGS)

demo: .venv-dev/.installed ## Break calibration and bring a new intent, live: each diagnosed, acted on, recovered from
	$(DEV) -m deploy.demo $(ARGS)

neuron-check: ## On an inf2 host: compile, self-check, decisions, load test; one JSON file (ARGS, docs/inferentia.md)
	$(PYTHON) -m model_repo.pipeline.neuron_check $(ARGS)

constraints: .venv-dev/.installed ## Pin what .venv-dev holds now
	{ sed -n '/^#/p' constraints.txt; $(DEV) -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\)+cpu$$/\1/'; } > constraints.new
	mv constraints.new constraints.txt

policy-constraints: .venv-policy/.installed ## Pin what .venv-policy holds now
	{ sed -n '/^#/p' $(POLICY); .venv-policy/bin/python -m pip freeze; } > constraints.new
	mv constraints.new $(POLICY)

clean: ## Remove the environments and caches
	rm -rf .venv .venv-loadtest .venv-dev .venv-policy .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

.venv/.installed: $(LOCKED)
	$(PYTHON) -m venv .venv
	.venv/bin/python $(INSTALL) '.[monitoring]'
	@touch $@

.venv-loadtest/.installed: $(LOCKED)
	$(PYTHON) -m venv .venv-loadtest
	.venv-loadtest/bin/python $(INSTALL) '.[loadtest]'
	@touch $@

.venv-dev/.installed: $(LOCKED)
	$(PYTHON) -m venv .venv-dev
	$(DEV) $(INSTALL) '.[train,monitoring,loadtest,dev]'
	@touch $@

.venv-policy/.installed: $(POLICY)
	$(PYTHON) -m venv .venv-policy
	.venv-policy/bin/python -m pip install --quiet --constraint $(POLICY) checkov
	@touch $@
