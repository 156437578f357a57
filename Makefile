# The two commands a stranger needs: `make predict` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help predict test test-slow test-container lint clean

help:
	@echo "make predict    predict test/input -> test/output with the shipped checkpoints"
	@echo "make test       ruff, mypy and the fast test suite"
	@echo "make test-slow  the slow tests"
	@echo "make test-container  faults in a real container; needs Docker and ./build.sh"
	@echo "make clean      remove the virtual environment and test/output"

$(VENV)/.predict: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.predict requirements-dev.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
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

clean:
	rm -rf $(VENV) test/output
