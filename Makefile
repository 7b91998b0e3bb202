# Every target installs what it needs into .venv: `make demo` and `make test` work from a bare clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo dev test test-fast test-units test-rest test-integration test-system prove soak test-foreign pictures lint \
	format bench profile kafka asyncapi reference lock clean

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed; set PYTHON=python3.11")'
	@echo "installing into $(VENV); the first time it takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)  ## the whole path on one command, without Java
	$(BIN)/vault-stream demo

dev: $(STAMP)  ## everything on this machine, until Ctrl-C
	$(BIN)/vault-stream dev

kafka: $(STAMP)  ## a one-node Apache Kafka for development
	$(BIN)/vault-stream kafka start

SHORT := not prove and not foreign
SIDE_BY_SIDE := $(MAKE) --no-print-directory $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# A fixed part to each process: what one has imported decides which examples Hypothesis makes, and nothing else may.
test: $(STAMP)  ## all tests; each proof once, in its short form
	@first=0; $(SIDE_BY_SIDE) --keep-going --jobs=3 test-units test-rest test-integration || first=1; \
	$(MAKE) --no-print-directory test-system && exit $$first

test-fast: $(STAMP)  ## without a broker
	+@$(SIDE_BY_SIDE) --keep-going --jobs=2 test-units test-rest

test-units: $(STAMP)
	$(BIN)/pytest -m "not kafka and $(SHORT)" tests/unit

test-rest: $(STAMP)
	$(BIN)/pytest -m "not kafka and $(SHORT)" --ignore=tests/unit

test-integration: $(STAMP)
	$(BIN)/pytest -m "kafka and $(SHORT)" tests/integration

# With nothing beside it: workers that are killed, and time that is measured.
test-system: $(STAMP)
	$(BIN)/pytest -m "kafka and $(SHORT)" --ignore=tests/integration

prove: $(STAMP)  ## the full counts, some minutes; docs/proof.md keeps the last report
	$(BIN)/pytest -m "prove" -s

MINUTES ?= 60
soak: $(STAMP)  ## workers and a nemesis at random for MINUTES, on a Kafka of its own
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

test-foreign: $(STAMP)  ## against tools of other languages
	FOREIGN=required $(BIN)/pytest -m "foreign"

pictures: $(STAMP)  ## of the console, into docs/console; needs chromium and npm
	CONSOLE_SCREENSHOTS=1 FOREIGN=required $(BIN)/pytest -m "foreign" tests/contract/console

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP)  ## everything that docs/benchmarks.md names, in benchmarks/latest.json; about half an hour
	$(BIN)/python -m benchmarks

profile: $(STAMP)  ## where the time of an event goes on its way through the router
	$(BIN)/python -m benchmarks.profile_route

asyncapi: $(STAMP)  ## asyncapi.yaml, from the code; a test holds one against the other
	$(BIN)/python -m app.asyncapi > asyncapi.yaml

reference: $(STAMP)  ## the pages of docs/ that the code writes; a test holds one against the other
	$(BIN)/python -m app.reference docs

# Versions and hashes only: the lock names no index.
lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
		--group pyproject.toml:dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
