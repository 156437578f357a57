# The two commands a stranger needs: `make predict` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"

.PHONY: help predict test test-slow test-container lint lock clean

help:
	@echo "make predict    predict test/input -> test/output with the shipped checkpoints"
	@echo "make test       ruff, mypy and the fast test suite"
	@echo "make test-slow  the slow tests"
	@echo "make test-container  faults in a real container; needs Docker and ./build.sh"
	@echo "make lock       write requirements*.lock from requirements*.txt; needs uv"
	@echo "make clean      remove the virtual environment and test/output"

# torch comes first and is in no lock file: nothing that follows can replace it.
$(VENV)/.predict: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) --no-deps --require-hashes -r requirements.lock
	touch $@

$(VENV)/.dev: $(VENV)/.predict requirements-dev.lock
	$(INSTALL) --no-deps --require-hashes -r requirements-dev.lock
	touch $@

predict: $(VENV)/.predict
	$(RUN) inference.py --input test/input --output test/output

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(RUN) -m pytest

test-slow: $(VENV)/.dev
	$(RUN) -m pytest -m slow

test-container: $(VENV)/.dev
	$(RUN) -m pytest -m container

# The second file holds only what the first does not.
lock:
	$(LOCK) requirements.txt --output-file requirements.lock
	sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package=\1/p' requirements.lock | \
	  xargs $(LOCK) requirements-dev.txt --constraints requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) test/output
