# Every command of the workbook. The first one builds .venv from requirements.lock; later ones start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
XAI := $(BIN)/python -m xai_utils
OTHER := name another one (and remove an old $(VENV)): make PYTHON=/path/to/python3.12
ROOT_MAY := $(if $(filter 0,$(shell id -u)),--allow-root)

RUNNING = $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS)) $(if $(LIMIT),--limit $(LIMIT))

.DEFAULT_GOAL := help
.PHONY: figures compare test golden train sweep faults bench explore app screenshot report lint help

figures: $(STAMP)  ## draw every figure from the notebooks (RUN=name ONLY=01,02 JOBS=2 LIMIT=1800 FORCE=1); continues where it stopped
	$(XAI) figures $(if $(RUN),--run $(RUN)) $(if $(filter 1,$(FORCE)),--force) $(RUNNING)

compare: $(STAMP)  ## list the figures and tables that are not as in FOLDER=folder, drawn on another machine
	$(XAI) figures --compare $(FOLDER)

test: $(STAMP)  ## unit tests, and every notebook against its stored output (JOBS=2); contacts no network
	@figures=$$(mktemp -d) || exit 1; trap 'rm -rf "$$figures"' EXIT; trap 'exit 130' INT TERM; \
	export HF_HUB_OFFLINE=1 PYTHONHASHSEED=0 OMP_NUM_THREADS=1 XAI_FIGURES="$$figures"; \
	$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadscope --no-loadscope-reorder \
	--nbval-lax --nbval-cell-timeout=600 notebooks tests

golden: $(STAMP)  ## re-execute the notebooks in place and clean them for git (ONLY=01,02 JOBS=2)
	$(XAI) golden $(RUNNING)

train: $(STAMP)  ## train a model of data/models again (MODEL=name)
	$(XAI) train $(MODEL)

sweep: $(STAMP)  ## score what PLAN=file.yml lists (WORKERS=2 SCHEDULER=tcp://HOST:PORT OUT=table.parquet AGAIN=1)
	OMP_NUM_THREADS=1 $(XAI) sweep $(PLAN) $(if $(WORKERS),--workers $(WORKERS)) \
	$(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(if $(OUT),--out $(OUT)) $(if $(filter 1,$(AGAIN)),--again)

faults: $(STAMP)  ## kill and damage at random (SEED=0 KILLS=80 DAMAGES=200 PROGRAMS=4 ERRORS=320); what is lost or silent is listed
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m tests.faults --seed $(or $(SEED),0) --kills $(or $(KILLS),80) \
	--damages $(or $(DAMAGES),200) --programs $(or $(PROGRAMS),4) --errors $(or $(ERRORS),320)

bench: $(STAMP)  ## time the methods in one table (QUICK=1 ONLY=part; PEERS=1 installs other programs into .bench/ first)
	$(if $(filter 1,$(PEERS)),$(BIN)/python -m pip install -q --no-deps --upgrade --target .bench -r requirements-bench.txt)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests:.bench $(BIN)/python -m tests.bench $(if $(filter 1,$(QUICK)),--quick) \
	$(if $(ONLY),--only $(ONLY))

explore: $(STAMP)  ## open the notebooks in JupyterLab, on this machine only
	$(BIN)/jupyter lab --ip=127.0.0.1 $(ROOT_MAY) \
	--ContentsManager.pre_save_hook=xai_utils.workbook.saved.as_stored notebooks

app: $(STAMP)  ## open the explorer alone, as an app, on this machine only
	$(XAI) app

screenshot: $(STAMP)  ## picture of the app for README.md, tests/browser/explorer.png; needs Chromium
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 XAI_SHOT=tests/browser/explorer.png $(BIN)/python -m pytest -q \
	tests/browser/test_explorer_in_browser.py -k as_an_app

report: $(STAMP)  ## pages in site/ from the executed notebooks: figures, claims, leaderboard; executes nothing
	$(XAI) report

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# Hashes and editable packages exclude each other in one call of pip, hence two. The second takes setuptools from
# the lock file, so nothing unpinned is fetched.
$(STAMP): requirements.lock pyproject.toml
	@python=$(BIN)/python; [ -x $$python ] || python=$$(command -v $(PYTHON)) || \
	{ echo "There is no $(PYTHON) here; $(OTHER)" >&2; exit 1; }; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed, but $$python is $$($$python -V 2>&1); $(OTHER)" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@
