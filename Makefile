# Two commands do everything on a fresh machine: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 1
PROCESSES ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup run demo test test-long check format messages wheel clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/installed static/vendor/installed  ## build .venv and install everything, JavaScript included

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "prefloop needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[worker,dev]'
	@touch $@

static/vendor/installed: package.json package-lock.json .venv/installed
	$(BIN)/python -m app.web.vendor
	@touch $@

run: setup  ## server, worker and database with the demo project on http://127.0.0.1:8000
	$(BIN)/prefloop up --demo

demo: setup  ## the whole loop, twice round, with simulated annotators; then it checks itself (SEED=7 for another seed)
	$(BIN)/prefloop demo --seed $(SEED)

# A file's tests stay in one process; each process has a Postgres and a Chromium of its own, and torch takes one thread.
test: setup  ## every test, browser tests included, in two processes (PROCESSES=1 for one after another)
	$(BIN)/python -m tests.browser.chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not long' --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-long: setup  ## the tests that take many minutes
	$(BIN)/python -m tests.browser.chromium
	$(BIN)/pytest -m long

check: setup  ## ruff, mypy, import-linter, djlint, alembic check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/djlint templates --check --quiet
	$(BIN)/djlint templates --lint --quiet
	@home=$$(mktemp -d) && export PREFLOOP_HOME=$$home && unset DATABASE_URL && \
	  $(BIN)/alembic upgrade head && $(BIN)/alembic check; status=$$?; \
	  $(BIN)/prefloop down >/dev/null; rm -rf $$home; exit $$status

format: setup  ## let the tools mend what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	-$(BIN)/djlint templates --reformat --quiet

messages: setup  ## collect what pages say into app/locale, to be translated
	$(BIN)/python -m app.messages

wheel: setup  ## build dist/prefloop-*.whl, templates and JavaScript inside
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:  ## remove everything that was built or installed, keep .prefloop
	rm -rf .venv node_modules static/vendor dist
