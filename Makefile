# make demo: evaluate six pruners on the embedded model.  make test: the test suite.  make lint: style.
#
# Each sets up what it needs in $(VENV) first. Needed beforehand: a Python 3.10 to 3.13 with venv.
.DEFAULT_GOAL := help
.PHONY: help demo test lint

VENV ?= .venv
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null \
	&& echo $$python && break; done)

help:
	@sed -n '1,3s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.eval
	$(VENV)/bin/python -m llava.eval.demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck -x .ci/run $$(find scripts -name '*.sh')

# The stamp .venv/.EXTRA says that the package is installed with that extra.
$(VENV)/.%: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install -c .ci/constraints.txt -e '.[$*]'
	@touch $@

$(VENV)/bin/python:
	$(if $(PYTHON),,$(error no Python 3.10 to 3.13 with venv found: install one, or name it: make PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)

# Every kernel compiled under each Triton that users have, installed beside $(VENV); no GPU is needed.
.PHONY: test-triton
test-triton: $(VENV)/.test
	$(VENV)/bin/python .ci/triton.py
