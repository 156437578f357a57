# The two commands a stranger needs: `make predict` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check

.PHONY: help predict test test-slow test-container lint lock clean

help:
	@echo "make predict    predict test/input -> test/output with the shipped checkpoints"
	@echo "make test       ruff, mypy and the fast test suite"
	@echo "make test-slow  the slow tests"
	@echo "make test-container  the image, the scripts and faults in real containers; needs Docker and ./build.sh in both modes"
	@echo "make lock       write requirements.lock from requirements.txt and requirements-dev.txt; needs uv"
	@echo "make clean      remove the virtual environment and test/output"

# From 26.1 on, pip takes hashes from a constraints file. torch is in no lock: nothing that follows can replace it.
$(VENV)/.predict: requirements.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) pip==26.3
	$(INSTALL) torch==2.13.0
	$(INSTALL) --no-deps --require-hashes -c requirements.lock -r requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.predict
	$(INSTALL) --no-deps --require-hashes -r requirements.lock
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

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	  requirements.txt requirements-dev.txt --output-file requirements.lock

clean:
	rm -rf $(VENV) test/output
