# Everything goes through here; each target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODULES ?=
TOO_OLD := Python 3.11 or newer is needed. Name one with: make PYTHON=python3.13
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(TOO_OLD)"; exit 1; }
FAILED_INSTALL := echo "The installation failed: see the lines above, then run make again."
# The commands that tests/browser looks for.
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
IN_BROWSER = [ -s $(VENV)/.installed-browser ] && PATH="$(abspath $(BIN)):$$PATH" CHROMIUM="$$(cat $(VENV)/.installed-browser)" node tests/browser
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: FORCE help test lint types unit coverage fuzz mistakes demo pictures long-tasks build lock release audit bench load cold clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@$(CHECK_PYTHON)
	@echo "Installing into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[dev]' || { $(FAILED_INSTALL); exit 1; }
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: pyproject.toml
	@$(CHECK_PYTHON)
	@echo "Installing into $(VENV) (about 10 seconds, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[demo]' || { $(FAILED_INSTALL); exit 1; }
	@touch $@

$(VENV)/.installed-node: tests/node/package-lock.json $(VENV)/.installed
	@PATH="$(abspath $(BIN)):$$PATH"; \
	command -v npm >/dev/null || { echo "There is no npm here: the tests against dynalite and fauxqs and in a browser are skipped"; exit 0; }; \
	echo "Installing into tests/node (about 10 seconds, once)"; \
	npm ci --prefix tests/node --loglevel=error >/dev/null || { $(FAILED_INSTALL); exit 1; }; \
	touch $@

# Debian's is enough, and any other that is here already. Only root can have apt-get install one.
$(VENV)/.installed-browser: $(VENV)/.installed
	@for name in $(BROWSERS); do if command -v $$name >$@; then exit 0; fi; done; rm $@; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Debian's Chromium (about a minute, once)"; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } >/dev/null \
			&& command -v chromium >$@ || echo "apt-get could not install Chromium: the browser tests are skipped"; \
	else echo "There is no Chromium here: the browser tests are skipped"; fi

# Tools whose requirements contradict others', each in an environment of its own.
$(VENV)/tools/%/.installed: packaging/tools/%.txt
	@$(CHECK_PYTHON)
	@echo "Installing $* into $(@D) (up to a minute, once)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --requirement $< || { $(FAILED_INSTALL); exit 1; }
	@touch $@

# What is downloaded for the tests comes in while the code is read.
test: ## Lint, types and every test
	@$(MAKE) --no-print-directory -j 2 lint types $(VENV)/.installed-node $(VENV)/.installed-browser
	@$(MAKE) --no-print-directory unit

test-fast: $(VENV)/.installed ## The pure parts and the core alone, in about a minute
	@$(BIN)/python -m pytest -n 2 tests/wire tests/delivery tests/clients tests/planning --ignore tests/delivery/test_fanout.py --ignore tests/delivery/test_rate_scenarios.py

lint: $(VENV)/.installed ## ruff and cfn-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@[ ! -f template.yaml ] || $(BIN)/cfn-lint template.yaml

types: $(VENV)/.installed ## mypy, strict
	@$(BIN)/mypy

unit: $(VENV)/.installed $(VENV)/.installed-node $(VENV)/.installed-browser ## The tests
	@$(BIN)/python -m pytest -n 3 -rsR

coverage: $(VENV)/.installed $(VENV)/.installed-node $(VENV)/.installed-browser ## The tests again, and which lines and branches they take; two and a half times as slow
	@$(BIN)/python -m pytest -n 2 -rs --cov --cov-report=term

fuzz: $(VENV)/.installed ## Foreign input at random for SECONDS=60; TARGETS='records jobs dead-letters answers'
	@exec $(BIN)/python -m benchmarks.fuzz $(or $(SECONDS),60) $(TARGETS)

mistakes: $(VENV)/.installed $(VENV)/.installed-node $(VENV)/.installed-browser ## Break the code on purpose, one mistake at a time, and see the tests fail; LISTS='lanes pool'
	@exec $(BIN)/python tests/mistakes/run.py $(LISTS)

demo: $(VENV)/.installed-demo ## The whole relay on this machine, until Ctrl-C; ONCE=1 for one checked round, SOAK=120 for seconds of cuts, PORT=8081, CLIENTS=50
	@exec $(BIN)/python -m demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(SOAK),--soak '$(SOAK)') $(if $(PORT),--port '$(PORT)') $(if $(CLIENTS),--clients '$(CLIENTS)') $(DEMO)

bench: $(VENV)/.installed ## The relay and what one would use instead, side by side; BENCH='--quick', '--help'
	@exec $(BIN)/python -m benchmarks.bench $(BENCH)

load: $(VENV)/.installed ## The real handler against many mocked clients; LOAD='--clients 100000', '--help'
	@exec $(BIN)/python -m benchmarks.load $(LOAD)

cold: $(VENV)/.installed ## From the start of a process to its first post, step by step; COLD='--help'
	@exec $(BIN)/python -m benchmarks.cold $(COLD)

pictures: $(VENV)/.installed-node $(VENV)/.installed-browser ## Pictures of the dashboard into docs/, or INTO=folder
	@$(IN_BROWSER)/pictures.mjs $(or $(INTO),docs)

long-tasks: $(VENV)/.installed-node $(VENV)/.installed-browser ## The longest task of the dashboard with 5,000 incidents; fails over 100 ms
	@$(IN_BROWSER)/long_tasks.mjs

build: build/async-relay.zip ## The Lambda zip, for arm64 and x86_64; MODULES='orders.py' puts modules of your own in

# The script knows whether it is made of the same already: make sees times alone, and no file that is gone.
build/async-relay.zip: FORCE
	@$(CHECK_PYTHON)
	@$(PYTHON) packaging/build.py --record build/.contents --output $@ $(addprefix --module ,$(MODULES))

# What `sam build` calls for each function, whatever its Architecture.
build-RelayFunction build-DeliverFunction build-FanoutFunction build-ConnectFunction build-DisconnectFunction build-AuthorizeFunction build-DefaultFunction build-HeartbeatFunction: build/async-relay.zip
	@$(PYTHON) -m zipfile -e $< "$(ARTIFACTS_DIR)"

lock: $(VENV)/tools/uv/.installed ## The zip's dependencies with their hashes, of pyproject.toml; UPGRADE=1 for the newest versions
	@$(VENV)/tools/uv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --output-file packaging/requirements.lock $(if $(UPGRADE),--upgrade) >/dev/null

release: $(VENV)/.installed ## dist/: zip, template, wheel, SBOM and checksums of the commit that is checked out
	@$(BIN)/python packaging/release.py

audit: $(VENV)/.installed $(VENV)/tools/checkov/.installed $(VENV)/tools/pip-audit/.installed ## cfn-lint, checkov but for what is accepted, and known vulnerabilities of what is locked
	@$(BIN)/cfn-lint template.yaml
	@$(BIN)/python packaging/audit.py $(VENV)/tools

clean: ## Remove what the targets made
	rm -rf $(VENV) .demo build dist .aws-sam benchmarks/results .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	@find . \( -name __pycache__ -o -name '*.py[cod]' -o -name '*.egg-info' -o -name node_modules \) -not -path './.git/*' -prune -exec rm -rf {} +
