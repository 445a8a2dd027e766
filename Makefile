# make demo            evaluate six pruners on the embedded model
# make test            the test suite, with every package as it was tested
# make test-newest     the same with the newest release of every package, torch apart
# make test-oldest     the same with the oldest that pyproject.toml admits, torch apart
# make test-EXTRA      the tests of one extra, installed alone: browser, eval, kernels, lmms, lora,
#                      notebooks, quant or video
# make test-triton     the kernels compiled under several Tritons
# make test-vllm       vLLM with CDPruner and without a pruner; test-vllm-all: with every pruner, and its server
# make gpu             all that needs a GPU, with the Python that PYTHON names; OUT=results/gpu gets what it gave
# make lint            style and types
# make wheel           the wheel, in dist/: checked, installed where nothing else is, and the demo run from it
# make results         every result in docs/results as one table, docs/results/results.csv
# make docs            the documents as a site, in build/docs
# make notebooks       run the notebooks in examples/ anew, and write into them what they show
# make options         write the flags of the pruners anew, from their classes
# make constraints     choose the packages anew, within .ci/pins.txt
#
# Each sets up what it needs first, in $(VENV) or a folder of that name and the target's. TESTS="tests/model" runs a part;
# RECORD=docs/tested.md writes down what was tested with what.
.DEFAULT_GOAL := help
.PHONY: help demo docs test test-newest test-oldest test-triton test-vllm test-vllm-all gpu lint wheel notebooks options results \
	constraints constraints-vllm chromium

VENV ?= .venv
TESTS ?= tests
RECORD ?=
PYTHONS := $(shell sed -n 's/^. Python: //p' .ci/constraints.txt)
OLDEST_PYTHONS := 3.10 3.11
VLLM_PYTHONS := 3.11 3.12 3.13
EXTRAS := browser eval kernels lmms lora notebooks quant video

browser_TESTS := tests/web
eval_TESTS := tests/eval
kernels_TESTS := tests/pruners
lmms_TESTS := tests/lmms -m "not gpu"
lora_TESTS := tests/model/test_adapter.py tests/model/test_builder.py
notebooks_TESTS := tests/examples
quant_TESTS := tests/model/test_builder.py
video_TESTS := tests/test_video.py tests/test_long_clip.py tests/eval/ask/test_video.py tests/asking

# The first Python that is one of $1; a PYTHON of the user's is held against them, too.
is_one_of = $(shell $2 -c 'import ensurepip, sys; print("%d.%d" % sys.version_info[:2] in sys.argv[1:])' $1 2> /dev/null)
python = $(or $(PYTHON),$(firstword $(foreach name,python3 $(patsubst %,python%,$1),$(if $(filter True,$(call is_one_of,$1,$(name))),$(name)))))
venv = $(if $(filter True,$(call is_one_of,$1,$(call python,$1))),$(call python,$1) -m venv $(@:%/bin/python=%), \
	$(error this needs one of Python $(strip $1), with venv: install one, or name it: make PYTHON=/path/to/python))

# Into the environment $1, with the constraints $2: the package with the extras $3, and more, $4.
define install
$1/bin/python -m pip install --upgrade -c $2 setuptools
$1/bin/python -m pip install -c $2 --no-build-isolation $4 -e '.[$3]'
endef

# A torchvision that was built for another build of torch, as beside a CPU build, ends every import of Transformers. It
# is put in a folder of its own, where tests/conftest.py finds it.
define torchvision
$1/bin/python -c 'import torchvision' 2> /dev/null || $1/bin/python -m pip uninstall -qqq --yes torchvision
$1/bin/python -m pip install -c .ci/constraints.txt --no-deps --upgrade --target $1/torchvision torchvision
endef

run = $1/bin/python .ci/tests.py $2 $(if $(RECORD),--record $(RECORD))
# Several processes take tests from each other, each with a thread: more threads than cores wait for one another.
run_together = OMP_NUM_THREADS=1 $(call run,$1,$2) -n logical --maxprocesses 4 --dist worksteal

help:
	@sed -n '1,/^#$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.eval
	$(VENV)/bin/python -m llava.eval demo

test: $(VENV)/.test $(VENV)/.torchvision
	$(call run_together,$(VENV),test) $(TESTS)

# No environment is made: a machine with a GPU has a torch that fits it.
gpu:
	PYTHON="$(or $(PYTHON),python3)" bash scripts/gpu.sh --out $(or $(OUT),results/gpu)

# A warning ends it, and so does a page that would load anything from another host.
notebooks: $(VENV)/.notebooks
	$(VENV)/bin/python .ci/notebooks.py

docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs build/docs

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck -x .ci/run .ci/browser.sh $$(find scripts -name '*.sh')
	$(VENV)/bin/python .ci/check_types.py

wheel: $(VENV)/.wheel
	$(VENV)/bin/python .ci/wheel.py $(VENV)-wheel

results: $(VENV)/.eval
	$(VENV)/bin/python -m scripts.flat_results

options: $(VENV)/.test
	$(VENV)/bin/python scripts/options_table.py

# The stamp .venv/.EXTRA says that the package is installed with that extra.
$(VENV)/.%: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(call install,$(VENV),.ci/constraints.txt,$*)
	@touch $@

$(VENV)/.torchvision: $(VENV)/.test
	$(call torchvision,$(VENV))
	@touch $@

$(VENV)/bin/python:
	$(call venv,$(PYTHONS))

# What is newest changes from day to day: it is installed anew each time.
test-newest: $(VENV)-newest/bin/python
	grep '^torch==' .ci/pins.txt > $(VENV)-newest/constraints.txt
	$(call install,$(VENV)-newest,$(VENV)-newest/constraints.txt,test,--upgrade --upgrade-strategy eager)
	$(call torchvision,$(VENV)-newest)
	$(call run_together,$(VENV)-newest,newest) --newest $(TESTS)

test-oldest: $(VENV)-oldest/bin/python
	$(VENV)-oldest/bin/python -m pip install -c .ci/constraints.txt torch
	$(VENV)-oldest/bin/python .ci/environments.py lowest > $(VENV)-oldest/constraints.txt
	$(call install,$(VENV)-oldest,$(VENV)-oldest/constraints.txt,test)
	$(call torchvision,$(VENV)-oldest)
	$(call run_together,$(VENV)-oldest,oldest) $(TESTS)

$(VENV)-newest/bin/python:
	$(call venv,$(PYTHONS))

$(VENV)-oldest/bin/python:
	$(call venv,$(OLDEST_PYTHONS))

# Extras that cannot share the packages of the others have constraints of their own.
$(EXTRAS:%=test-%): test-%: $(VENV)-%/bin/python
	$(call install,$(VENV)-$*,$(or $(wildcard .ci/constraints-$*.txt),.ci/constraints.txt),$*,pytest hypothesis)
	$(call torchvision,$(VENV)-$*)
	$(call run,$(VENV)-$*,$*) $($*_TESTS)

# A browser is no package of Python's.
test-browser: chromium

chromium:
	bash .ci/browser.sh

$(EXTRAS:%=$(VENV)-%/bin/python):
	$(call venv,$(PYTHONS))

# vLLM's build for CPUs asks for a torch and a Transformers of its own. The torchvision that it brings is built for CUDA:
# every process of that environment declares the operators that it lacks, and what else is so built is taken off.
test-vllm: $(VENV)-vllm/.vllm
	$(call run,$(VENV)-vllm,vllm) tests/vllm -m "vllm and not slow"

test-vllm-all: $(VENV)-vllm/.vllm
	$(call run,$(VENV)-vllm,vllm-all) tests/vllm -m vllm

$(VENV)-vllm/.vllm: pyproject.toml .ci/vllm.txt .ci/vllm-constraints.txt .ci/torchvision_operators.py | $(VENV)-vllm/bin/python
	$(VENV)-vllm/bin/python -m pip install -c .ci/vllm-constraints.txt setuptools -r .ci/vllm.txt
	$(VENV)-vllm/bin/python -m pip uninstall --yes torchaudio torchcodec
	$(VENV)-vllm/bin/python -m pip install --no-deps --no-build-isolation -e .
	$(VENV)-vllm/bin/python .ci/torchvision_operators.py
	@touch $@

$(VENV)-vllm/bin/python:
	$(call venv,$(VLLM_PYTHONS))

constraints-vllm:
	$(or $(PYTHON),python3) -m venv --clear $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install -r .ci/vllm.txt setuptools
	sed '/^#/!d' .ci/vllm-constraints.txt > $(VENV)-vllm/constraints.txt
	$(VENV)-vllm/bin/python -m pip freeze --all --exclude pip >> $(VENV)-vllm/constraints.txt
	mv $(VENV)-vllm/constraints.txt .ci/vllm-constraints.txt

constraints: $(VENV)-tools/bin/uv
	$(VENV)-tools/bin/python .ci/environments.py tested .ci/constraints.txt dev docs notebooks video wheel
	$(VENV)-tools/bin/python .ci/environments.py tested .ci/constraints-browser.txt browser
	$(VENV)-tools/bin/python .ci/environments.py tested .ci/constraints-lmms.txt test lmms

$(VENV)-tools/bin/uv:
	$(or $(PYTHON),python3) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install uv

# Every kernel compiled under each Triton that users have, installed beside $(VENV); no GPU is needed.
test-triton: $(VENV)/.test
	$(VENV)/bin/python .ci/triton.py
