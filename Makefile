# make demo                  annotate a rendered drive through an embedded Triton server
# make demo VIDEO=clip.mp4   the same with a clip of yours
# make soak MINUTES=30       good and bad requests against a server, every answer checked, memory watched
# make check                 linters, types, import rules and the tests that need no server
# make test                  make check, and the tests against real servers
# make audit                 licences and known vulnerabilities of what is installed
# They set everything up from a fresh clone and are quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VIDEO ?=
MINUTES ?= 30
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help setup repository demo soak check test lint unit format audit clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 13) else \
		"got Python %d.%d, expected 3.10 to 3.12: make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@

repository: $(INSTALLED)
	@$(BIN)/python tools/build_repository.py

demo: $(INSTALLED)
	@$(BIN)/python clients/brake_demo.py --serve $(if $(VIDEO),--video '$(VIDEO)')

soak: $(INSTALLED)
	@$(BIN)/python perf/soak.py --minutes $(MINUTES)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# At once: mypy keeps one core busy, and many tests wait for others.
check: repository
	@$(MAKE) --no-print-directory --jobs 2 lint unit

unit: repository
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --ignore tests/served

test: lint repository
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

audit: $(INSTALLED)
	@$(BIN)/python tools/audit.py

clean:
	rm -rf $(VENV) reports model_repository/*/1/*.onnx model_repository/*/1/*.pt model_repository/*/1/*.plan \
		model_repository/*/1/*.json model_repository/*/1/*.cache
