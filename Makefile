# Everything a newcomer needs: `make demo`, `make test`. Both prepare the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Tests and benchmarks start many processes: each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo install test lint types format check sim bench schemas dashboards console tools clean

$(INSTALLED): pyproject.toml
	@echo "installing into $(VENV): about 1.2 GB, a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable '.[embedded,files,notify,dev]'
	touch $(INSTALLED)

install: $(INSTALLED)

demo: install
	$(BIN)/campaign-streams demo $(ARGS)

# A file's tests share a process: servers are started once for it. Three processes to two cores: whole systems run in one
# (tests/support/lanes.py), and wait a third of their time.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(max(2, (os.cpu_count() or 1) * 3 // 2))')
test: install
	$(BIN)/pytest --numprocesses $(JOBS) $(ARGS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint types test

SEEDS ?= 200
sim: install
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

bench: install
	$(BIN)/python -m bench $(NAME)

schemas: install
	$(BIN)/python -m streams.jobs.schemas
	$(BIN)/python -m streams.jobs.flags

dashboards: install
	$(BIN)/python -m grafana.build

# The console's page, after a change of its sources or of the API's types. Needs Node 20; users of the package do not.
WEB := streams/console/web
console: install
	$(BIN)/python -m streams.jobs.console
	cd $(WEB) && npm ci --ignore-scripts && npm run --silent types && npm run --silent check && npm run --silent build

# What checks deploy/ and is no Python package; tests that need one skip without it. Debian's packages, and Go for helm.
TOOLS := .cache/tools
PROMETHEUS := promtool prometheus amtool prometheus-alertmanager

tools: $(TOOLS)/bin/promtool $(TOOLS)/bin/helm

$(TOOLS)/bin/promtool:
	mkdir -p $(TOOLS)/bin
	-apt-get update -qq
	-cd $(TOOLS) && apt-get download -qq prometheus prometheus-alertmanager \
	&& for package in *.deb; do dpkg -x $$package debian; done \
	&& cp $(addprefix debian/usr/bin/,$(PROMETHEUS)) bin/ && rm -rf debian *.deb

$(TOOLS)/bin/helm:
	mkdir -p $(TOOLS)/bin
	-GOBIN=$(abspath $(TOOLS)/bin) timeout 300 go install helm.sh/helm/v3/cmd/helm@v3.19.0

clean:
	rm -rf $(VENV) build *.egg-info bench/results
