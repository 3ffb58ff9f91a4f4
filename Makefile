# make setup                 the environment .venv, with the versions of constraints.txt
# make clean                 remove it, and all that is built
# make demo                  annotate a rendered drive through an embedded Triton server
# make demo VIDEO=clip.mp4   the same with a clip of yours
# make view                  a page in the browser, with a server behind it: pictures, your camera, drives
# make soak MINUTES=30       good and bad requests against a server, every answer checked, memory watched
# make format                mend what ruff can mend
# make check                 linters, types, import rules, the documentation, and the quick tests that need no server
# make test                  make check, the slow tests, and the tests against real servers
# make docs                  the documentation as a site in site/
# make diagrams              the documentation's diagrams, after a change of their sources (needs Graphviz)
# make audit                 licences and known vulnerabilities of what is installed
# make lock                  newer versions for constraints.txt, and the image's packages with their hashes
# They set everything up from a fresh clone and are quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stamps: what the commands need, and what the tests need besides.
INSTALLED := $(VENV)/.installed
DEVELOPER := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
LOCK := $(BIN)/uv pip compile --quiet --no-annotate --custom-compile-command 'make lock'
LOCK_IMAGE := $(LOCK) --python-version 3.12 --python-platform linux --generate-hashes
VIDEO ?=
MINUTES ?= 30
SERVICE ?= pypi
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help setup repository demo view soak check test lint unit format docs diagrams audit lock clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 13) else \
		"got Python %d.%d, expected 3.10 to 3.12: make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[all]'
	@touch $@

$(DEVELOPER): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[all,dev]'
	@touch $@

repository: $(INSTALLED)
	@$(BIN)/python tools/build_repository.py

demo: $(INSTALLED)
	@$(BIN)/python clients/brake_demo.py --serve $(if $(VIDEO),--video '$(VIDEO)')

view: $(INSTALLED)
	@$(BIN)/python clients/live_view.py --serve

soak: $(INSTALLED)
	@$(BIN)/python perf/soak.py --minutes $(MINUTES)

lint: $(DEVELOPER)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(DEVELOPER)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# At once: mypy keeps one core busy, and many tests wait for others.
check:
	@$(MAKE) --no-print-directory --jobs 2 lint unit

unit: $(DEVELOPER) repository
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --ignore tests/served -m "not slow"

docs: $(DEVELOPER)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

diagrams:
	for source in docs/diagrams/*.dot; do dot -Tsvg -o "$${source%.dot}.svg" "$$source"; done

# One of the tests builds the documentation, as strictly as make docs.
test: lint repository
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

audit: $(DEVELOPER)
	$(BIN)/pip-licenses
	@$(BIN)/pip-audit --skip-editable --strict --vulnerability-service $(SERVICE) || { \
		echo "make audit: all licences are allowed; the lines above name vulnerabilities, or what '$(SERVICE)' could not be" \
			"asked about (SERVICE=osv asks another database)" >&2; exit 1; }

lock: $(INSTALLED)
	$(PIP_INSTALL) uv
	$(LOCK) --universal --upgrade --python-version 3.10 --extra all --extra dev \
		--output-file constraints.txt pyproject.toml
	$(LOCK_IMAGE) --constraints constraints.txt --no-strip-extras \
		--output-file deploy/container/requirements.txt deploy/container/requirements.in
	$(LOCK_IMAGE) --no-deps --output-file deploy/container/tensorrt.txt deploy/container/tensorrt.in

clean:
	rm -rf $(VENV) .*_cache reports site model_repository/*/1/*.onnx model_repository/*/1/*.pt model_repository/*/1/*.plan \
		model_repository/*/1/*.json model_repository/*/1/*.cache
