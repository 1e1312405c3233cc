# Each target prints the commands that it runs; the README gives them too.
PYTHON ?= python3
# The newest releases that requirements*.txt allow, or VERSIONS=oldest.
VERSIONS ?= newest
ifeq ($(VERSIONS),newest)
VENV := .venv
else ifeq ($(VERSIONS),oldest)
VENV := .venv-oldest
PINS := $(VENV)/pins.txt
else
$(error VERSIONS=$(VERSIONS) is neither newest nor oldest)
endif
BIN := $(VENV)/bin
INSTALL := $(strip $(BIN)/python -m pip install $(PINS:%=-c %))

.PHONY: quickstart test test-slow test-soak test-parity lint types format docs \
  lock audit clean

quickstart: $(VENV)/ready
	$(BIN)/python -m vit_jax.main --config=configs/quickstart.py

test: $(VENV)/test-ready
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/test-ready
	$(BIN)/python -m pytest -m slow

test-soak: $(VENV)/test-ready
	$(BIN)/python -m pytest -m soak tests/soak

test-parity: $(VENV)/parity-ready
	$(BIN)/python -m pytest -m parity

lint: $(VENV)/test-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/test-ready
	$(BIN)/python -m pip install 'pyright>=1.1.414,<1.2'
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/test-ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/docs-ready
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

lock:
	uv pip compile requirements-test.txt -o requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --upgrade

# Asks the database of known vulnerabilities, over the network.
audit: $(VENV)/test-ready
	$(BIN)/python -m pip install 'pip-audit>=2.9,<3'
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes \
	  --disable-pip

clean:
	rm -rf .venv .venv-oldest .cache .pytest_cache .ruff_cache .hypothesis

# The lower bounds, as constraints.
.venv-oldest/pins.txt: $(wildcard requirements*.txt)
	mkdir -p $(@D)
	sed -nE 's/^([A-Za-z0-9_.-]+)>=([0-9.]+).*/\1==\2/p' $^ > $@

$(VENV)/ready: requirements.txt $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.txt
	touch $@

$(VENV)/test-ready: requirements.txt requirements-test.txt $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements-test.txt
	touch $(VENV)/ready $@

$(VENV)/docs-ready: $(VENV)/ready requirements-docs.txt
	$(INSTALL) -r requirements-docs.txt
	touch $@

$(VENV)/parity-ready: $(VENV)/test-ready requirements-parity.txt
	$(INSTALL) -r requirements-parity.txt
	touch $@
