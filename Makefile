# Every target sets itself up from Python (3.11 or newer), venv and the locked, hashed requirements.
# Stamp files make a second run immediate. ARGS="…" reaches the command: make run ARGS="--port 8443".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
JOBS ?= auto
UNIT := -m "not interop and not system"

.PHONY: help run test unit system check lint docs bench lock clean
.DEFAULT_GOAL := help

help:
	@echo "make run    a complete throw-away server: headwater dev"
	@echo "make test   every test that this machine can run; what it cannot is skipped, one line each"
	@echo "make check  what must pass before a change lands: lint, types, contracts, unit tests"
	@echo "make docs   write the generated pages anew"
	@echo "make bench  the benchmarks, as a table and as JSON"
	@echo "make lock   resolve the requirements anew"
	@echo "make clean  remove everything that these targets made"

run: $(VENV)/run.stamp
	@$(BIN)/headwater dev $(ARGS)

test: unit system

unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n $(JOBS) $(UNIT) $(ARGS)

# Root, namespaces and stock clients: one test at a time.
system: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -m "interop or system" $(ARGS)

check: lint unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/dev.stamp
	$(BIN)/python -m docs.generate

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.bench $(ARGS)

lock: $(VENV)/python.stamp
	$(PIP) install uv
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --upgrade --all-extras -o requirements/run.txt pyproject.toml
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --upgrade --all-extras --group dev \
		-c requirements/run.txt -o requirements/dev.txt pyproject.toml

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find appliance tests docs -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv is needed; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The checkout itself is made importable and runnable, without building a package.
$(VENV)/run.stamp: requirements/run.txt $(VENV)/python.stamp
	$(PIP) install --require-hashes -r requirements/run.txt
	@$(BIN)/python -c 'import pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path("purelib"), "headwater.pth").write_text("$(CURDIR)\n")'
	@printf '#!%s\nfrom appliance.__main__ import main\n\nmain()\n' \
		'$(CURDIR)/$(BIN)/python' > $(BIN)/headwater
	@chmod +x $(BIN)/headwater
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
