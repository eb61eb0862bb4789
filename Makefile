# Every target sets itself up from Python (3.11 or newer), venv and the locked, hashed requirements.
# Stamp files make a second run immediate. ARGS="…" reaches the command: make run ARGS="--port 8443".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
JOBS ?= auto
ANSIBLE := $(CURDIR)/$(VENV)/ansible/bin
UNIT := -m "not interop and not system"

.PHONY: help run test unit system check lint lint-ansible stories vm docs mutants bench release image bump ansible lock clean
.DEFAULT_GOAL := help

help:
	@echo "make run    a complete throw-away server: headwater dev"
	@echo "make test   every test that this machine can run; what it cannot is skipped, one line each"
	@echo "make check  what must pass before a change lands: lint, types, contracts, unit tests"
	@echo "make stories  whole machines: booted Debian systems, our server and stock clients on them"
	@echo "make vm     make what those machines boot, ahead of the stories"
	@echo "make docs   write the generated pages anew"
	@echo "make mutants  change the program one place at a time, and see which tests notice"
	@echo "make bench  the benchmarks, as a table and as JSON"
	@echo "make release  our wheel and an archive for each kind of server, in dist/"
	@echo "make image  a container image of that release, with podman or Docker"
	@echo "make bump VERSION=1.2.3  raise the version, join the changelog's fragments"
	@echo "make ansible  Ansible and its linters, in $(VENV)/ansible"
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

lint-ansible: $(VENV)/ansible.stamp
	cd ansible && $(ANSIBLE)/yamllint --strict .
	cd ansible && ANSIBLE_COLLECTIONS_PATH=playbooks/collections \
		$(ANSIBLE)/ansible-lint --offline --strict --profile production
	cd ansible && for playbook in playbooks/*.yml; do \
		$(ANSIBLE)/ansible-playbook --syntax-check -i inventory.example.yml $$playbook || exit 1; done

# Stories on whole machines need root and Debian's systemd-container; ARGS names some of them.
STORIES := PYTHONPATH=vm-tests:. $(BIN)/python -m driver
stories: $(VENV)/dev.stamp
	@$(STORIES) run $(ARGS)
	@$(STORIES) killed

# Everything that needs the network: the machines' systems, the release, the client program.
vm: $(VENV)/dev.stamp
	@$(STORIES) images $(ARGS)

# For the stories on whole machines, and for playing against one's own servers.
ansible: $(VENV)/ansible.stamp

release: $(VENV)/release.stamp
	$(VENV)/release/bin/python -m release build $(ARGS)

# ENGINE: podman, docker or buildah. ARGS reaches its build: ARGS="--build-arg BASE=…".
ENGINE ?= $(or $(shell command -v podman),$(shell command -v docker),podman)
# Docker's form is the only one that has a health check, and docker makes no other.
FORMAT := $(if $(findstring docker,$(ENGINE)),,--format docker)
PROCESSOR := $(subst arm64,aarch64,$(shell uname -m))
image: $(VENV)/release.stamp
	$(VENV)/release/bin/python -m release build --out dist/image --machine $(PROCESSOR) \
		--python 3.13 --python 3.11
	$(ENGINE) build --file deploy/Containerfile $(FORMAT) --tag localhost/headwater:latest \
		--tag localhost/headwater:$$($(VENV)/release/bin/python -m release version) \
		--build-arg VERSION=$$($(VENV)/release/bin/python -m release version) $(ARGS) dist/image

bump: $(VENV)/run.stamp
	$(BIN)/python -m release bump $(VERSION)

docs: $(VENV)/dev.stamp
	$(BIN)/python -m docs.generate
	@if command -v nix-instantiate >/dev/null; then $(BIN)/python -m tests.nix.reference; \
		else echo "docs/nixos-options.md is left as it is: no nix-instantiate here"; fi

# Hours for everything; ARGS='appliance.tailnet.people*' for one module. Survivors are judged one by one:
# ".venv/bin/python -m mutmut show NAME".
mutants: $(VENV)/mutants.stamp
	$(BIN)/python -m mutmut run $(ARGS) | tr '\r' '\n' | tail -3
	$(BIN)/python -m mutmut results

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.bench $(ARGS)

lock: $(VENV)/python.stamp
	$(PIP) install uv
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --upgrade --all-extras -o requirements/run.txt pyproject.toml
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --upgrade --all-extras --group dev \
		-c requirements/run.txt -o requirements/dev.txt pyproject.toml
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --upgrade --group pyproject.toml:mutants \
		-c requirements/dev.txt -o requirements/mutants.txt
	for group in release ansible; do $(BIN)/python -m uv pip compile -q --universal \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --no-header --no-annotate \
		--upgrade --group pyproject.toml:$$group -o requirements/$$group.txt || exit 1; done

clean:
	rm -rf $(VENV) .cache build dist *.egg-info mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis
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

$(VENV)/mutants.stamp: requirements/mutants.txt $(VENV)/dev.stamp
	$(PIP) install --require-hashes -r requirements/mutants.txt
	@touch $@

# These two have pins of their own, so they do not live with the program.
$(VENV)/release.stamp $(VENV)/ansible.stamp: $(VENV)/%.stamp: requirements/%.txt $(VENV)/python.stamp
	$(PYTHON) -m venv $(VENV)/$*
	$(VENV)/$*/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@
