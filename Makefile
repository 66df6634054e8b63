# Every target makes .venv by itself when it is missing or older than what it was made from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
SOURCES := patchead jobs cluster tests

# Bytecode is kept, whatever the shell says: else every process of a test or a worker compiles what it imports.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow browser bench eval picture pages lint types check clean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("patchead needs Python 3.10 or newer; set PYTHON=python3.x") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## real defects in real photos, on this machine, end to end
	$(BIN)/python jobs/demo.py

test: $(STAMP)  ## every test but the slow ones
	$(BIN)/python -m pytest

test-slow: $(STAMP) browser $(BIN)/promtool  ## the slow tests; installs chromium, promtool and SQL engines first
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,engines]'
	$(BIN)/python -m pytest -m slow

browser:  ## Debian's chromium, for the slow tests and the pictures of the page
	command -v chromium || { apt-get update && apt-get install -y --no-install-recommends chromium; }

# Debian's package, unpacked: nothing is installed, and no service is started.
$(BIN)/promtool: $(STAMP)
	folder=$$(mktemp -d) && cd $$folder && apt-get download -qq prometheus && dpkg -x prometheus_*.deb . \
		&& install usr/bin/prometheus usr/bin/promtool $(CURDIR)/$(BIN) && rm -r $$folder

bench: $(STAMP)  ## speed and memory, ratios measured side by side in one run; aim: 30 minutes on two cores
	$(BIN)/python jobs/benchmark.py

eval: $(STAMP)  ## how good the scores are, on real and planted defects; half an hour, longer studies by name
	$(BIN)/python jobs/study.py

picture: $(STAMP) browser  ## docs/demo.png and docs/report.webp, from textures whose licence allows it
	$(BIN)/python jobs/demo.py --images textures --good 36 --bad 4 --picture docs/demo.png --screenshot docs/report.webp

pages: $(STAMP)  ## docs/tables.md and docs/settings.md, from the code
	$(BIN)/python jobs/write_pages.py

lint: $(STAMP)  ## ruff
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(STAMP)  ## mypy
	$(BIN)/mypy

check: lint types test  ## lint, types, tests

clean:  ## remove .venv and caches
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
