# The two commands a stranger needs: `make predict` and `make test`.
PYTHON ?= python3
TORCH := torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check
NAPARI_VENV := .venv-napari
NAPARI_INSTALL := $(NAPARI_VENV)/bin/pip install --quiet --disable-pip-version-check

.PHONY: help predict test test-slow test-container test-napari lint lock clean

help:
	@echo "make predict    predict test/input -> test/output with the shipped checkpoints"
	@echo "make test       ruff, mypy and the fast test suite"
	@echo "make test-slow  the slow tests"
	@echo "make test-container  the image, the scripts and faults in real containers; needs Docker and ./build.sh in both modes"
	@echo "make test-napari  the napari plugin in a real window, in a virtual environment of its own; needs xvfb and OpenGL"
	@echo "make lock       write requirements.lock and requirements-napari.lock from requirements*.txt; needs uv"
	@echo "make clean      remove the virtual environments and test/output"

# From 26.1 on, pip takes hashes from a constraints file. torch is in no lock: nothing that follows can replace it.
$(VENV)/.predict: requirements.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) pip==26.3
	$(INSTALL) $(TORCH)
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

$(NAPARI_VENV)/.napari: requirements-napari.lock
	$(PYTHON) -m venv $(NAPARI_VENV)
	$(NAPARI_INSTALL) pip==26.3
	$(NAPARI_INSTALL) $(TORCH)
	$(NAPARI_INSTALL) --no-deps --require-hashes -r requirements-napari.lock
	touch $@

# The plugin as it is installed: napari finds it by the wheel's entry point. build/ would keep deleted modules.
test-napari: $(NAPARI_VENV)/.napari
	rm -rf build
	$(NAPARI_INSTALL) --no-deps --no-build-isolation --force-reinstall .
	xvfb-run --auto-servernum --server-args="-screen 0 1600x1200x24" \
	  $(NAPARI_VENV)/bin/python -m pytest -m napari --disable-warnings test/test_napari.py

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	  requirements.txt requirements-dev.txt --output-file requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	  --constraints requirements.lock requirements.txt requirements-napari.txt --output-file requirements-napari.lock

clean:
	rm -rf $(VENV) $(NAPARI_VENV) test/output
