# What people run and what CI runs are the same targets. `make help` lists them.
#
#   make demo     the main job, from a trained model to predictions on three devices
#   make test     every test
#
# Both create their environment (.venv) first. PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NOWAIT ?=
FUZZ_S ?= 60
API_FUZZ ?= 100

.PHONY: help demo test check lint types imports format env broker tracing bench bench-peers bench-convert
.PHONY: bench-prune bench-precisions bench-cost arm64
.PHONY: models streams channels toolchains same-bytes convert-kills hostile fuzz networks
.PHONY: fleet-kills fleet-starts crash-states kill-matrix powercut
.PHONY: memory device-tests api-fuzz lock clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

env: $(STAMP) ## create the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14))' || \
	  { echo "edgefleet needs Python 3.11 to 3.13; this is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "hint: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh tools/system-packages.sh python3-venv
	@echo "creating the environment in $(VENV) (once; a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

broker:
	@sh tools/system-packages.sh mosquitto mosquitto-clients

tracing:
	@sh tools/system-packages.sh gcc libc6-dev strace

demo: env broker ## the main job: convert, sign, roll out, swap under load, refuse what is wrong
	@$(BIN)/python -m demo.run $(if $(NOWAIT),--no-wait)

test: check broker tracing ## lint, types, import directions, and every test
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint types imports ## everything that runs no code of ours

lint: env
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

types: env
	@$(BIN)/mypy

imports: env
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: env ## lay the code out
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

hostile: env ## every hostile input at every door: tried, accepted (0), left on a disk (0)
	@$(BIN)/python -m tests.hostile

fuzz: env ## the parsers under a coverage-guided fuzzer, FUZZ_S=60 seconds each (installs atheris)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet atheris
	@$(BIN)/python -m tests.fuzz $(FUZZ_S)

api-fuzz: env ## the API against its own OpenAPI document on SQLite and PostgreSQL: API_FUZZ=100 of each kind, seeded
	@sh tools/system-packages.sh postgresql
	@$(BIN)/python -m tests.fleet.api_fuzz --examples $(API_FUZZ)

networks: env broker ## a rollout over each kind of bad network: seconds, and bytes over the ideal (root)
	@$(BIN)/python -m tests.system.networks

fleet-kills: env broker ## kill -9 of the control room at random moments of running rollouts, 100 times
	@sh tools/system-packages.sh postgresql
	@$(BIN)/python -m tests.system.fleet_kills

fleet-starts: env broker ## several fleets in one service, started and stopped 100 times under load: crashes (0)
	@sh tools/system-packages.sh postgresql
	@$(BIN)/python -m tests.system.fleet_starts

crash-states: env ## every disk that a power cut may leave, and what each missing fsync would cost
	@$(BIN)/python -m tests.crash crash-states
	@$(BIN)/python -m tests.crash table

kill-matrix: env ## kills and faults at every file-system call, and in every state of an install
	@$(BIN)/python -m tests.crash kill-matrix
	@$(BIN)/python -m tests.crash table

powercut: env ## real power cuts: an ext4 at every system call, a machine at random (root)
	@sh tools/system-packages.sh strace e2fsprogs user-mode-linux gcc libc6-dev
	@$(BIN)/python -m tests.system.powercut
	@$(BIN)/python -m tests.crash table

device-tests: env ## the device's tests in an environment that has what a board downloads
	@rm -rf build/device && $(PYTHON) -m venv build/device
	@build/device/bin/python -m pip install --quiet --constraint constraints.txt '.[agent]' \
	  pytest pytest-timeout hypothesis
	@build/device/bin/python -m pytest -q -p no:cacheprovider tests/contract tests/processing tests/agent

models: env ## real models in ONNX and TFLite through the device's runtime; fetches them once
	@sh tools/system-packages.sh npm
	@$(BIN)/python -m tests.models

memory: env ## a worker that takes too much memory, ended alone by a real kernel (root)
	@sh tools/system-packages.sh user-mode-linux gcc libc6-dev systemd
	@$(BIN)/python -m tests.system.memory

bench: env broker ## the figures that can be measured on this machine
	@$(BIN)/python -m bench serving --peers none
	@$(BIN)/python -m bench swap
	@$(BIN)/python -m bench idle --seconds 20 --starts 3
	@$(BIN)/python -m bench verify
	@$(BIN)/python -m bench delta --no-large
	@$(BIN)/python -m bench transfer
	@$(BIN)/python -m bench batching

streams: env ## real streaming models over HTTP against the plain runtimes, call by call
	@$(BIN)/python -m tests.system.streams

bench-peers: env broker ## serving beside MLServer, KServe, LitServe and BentoML (installs them once)
	@$(BIN)/python -m bench serving

bench-convert: env ## int8 beside the quantizers of others (installs them once); TOOLCHAIN=DIR has PyTorch, TensorFlow
	@sh tools/system-packages.sh npm
	@$(BIN)/python -m bench convert --write $(if $(TOOLCHAIN),--toolchain $(TOOLCHAIN))

bench-prune: env ## zeros and cut channels on a real network: TOOLCHAIN=DIR has torch, onnxscript, torch-pruning
	@$(BIN)/python -m bench prune --write $(if $(TOOLCHAIN),--toolchain $(TOOLCHAIN))

bench-precisions: env ## every target of five models: accuracy, noise, bytes, time
	@$(BIN)/python -m bench precisions --write

bench-cost: env ## what a search costs: seconds of processors, memory
	@$(BIN)/python -m bench cost --write

toolchains: env ## a model of every framework, converted and held against it (TOOLCHAIN=venv; else 4 GB)
	@$(BIN)/python -m tests.toolchains --write $(if $(TOOLCHAIN),--toolchain $(TOOLCHAIN))

same-bytes: env ## builds with searches, pruning, steps and joins, twice in unlike environments
	@$(BIN)/python -m tests.converter.same_bytes

convert-kills: env ## kill -9 of build, search and pruning at random moments (TOOLCHAIN=venv: those of PyTorch, too)
	@$(BIN)/python -m tests.converter.kills $(if $(TOOLCHAIN),--toolchain $(TOOLCHAIN))

arm64: env ## the device's code and runtimes on an emulated 64-bit ARM board (root)
	@sh tools/system-packages.sh qemu-user-static binfmt-support mmdebstrap
	@mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
	@update-binfmts --enable qemu-aarch64
	@$(BIN)/python -m tests.system.arm64

channels: env ## channels cut out of a CNN by a real PyTorch: TOOLCHAIN=DIR has torch, onnxscript, torch-pruning
	@$(BIN)/python -m tests.system.channels $(TOOLCHAIN)

lock: env ## write constraints.txt: the versions that the tests ran with
	@{ echo "# The versions that the tests ran with; \`make lock\` writes this file."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove what was built; the environment stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
