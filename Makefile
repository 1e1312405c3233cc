# Each target prints the commands that it runs; the README gives them too.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow test-soak test-parity lint types format lock clean

quickstart: .venv/ready
	$(BIN)/python -m vit_jax.main --config=configs/quickstart.py

test: .venv/test-ready
	$(BIN)/python -m pytest -n 2

test-slow: .venv/test-ready
	$(BIN)/python -m pytest -m slow

test-soak: .venv/test-ready
	$(BIN)/python -m pytest -m soak tests/soak

test-parity: .venv/parity-ready
	$(BIN)/python -m pytest -m parity

lint: .venv/test-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/test-ready
	$(BIN)/python -m pip install 'pyright>=1.1.414,<1.2'
	$(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/test-ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock:
	uv pip compile requirements-test.txt -o requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --upgrade

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

.venv/test-ready: requirements.txt requirements-test.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements-test.txt
	touch .venv/ready $@

.venv/parity-ready: .venv/test-ready requirements-parity.txt
	$(BIN)/python -m pip install -r requirements-parity.txt
	touch $@
