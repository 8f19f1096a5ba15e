# Every target installs what it needs first. GNU make, Python ≥ 3.11.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n 2 --dist loadgroup --no-loadscope-reorder
# at the ends of the range, what libraries deprecate in each other is not ours to mend
QUIETLY := -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning
# compiled modules are kept: each process that a test starts would compile all of gapstone anew
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest $(PARALLEL)

.PHONY: install demo lint test test-kernels test-examples test-slow test-seeds test-oldest test-newest bench check docs site clean

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gapstone needs Python 3.11 or newer: make install PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[weights,hf,serve,onnx,slides,dev]"
	touch $@

demo: install
	$(BIN)/gapstone compare digits --backbone nin --heads gap,gmp,nin,fc,fc:dropout=0.5 --seeds 5 --out runs/demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: lint
	$(BIN)/mypy

# types beside the tests: mypy keeps one core busy for a minute, the tests rarely keep two
test: lint
	@said=$$(mktemp) && { $(BIN)/mypy >$$said 2>&1 & types=$$!; $(PYTEST) -m "not slow and not compiles and not examples"; tests=$$?; wait $$types; types=$$?; \
	echo "mypy: $$(cat $$said)"; rm -f $$said; exit $$((tests ? tests : types)); }

# compiled loops themselves: `make test` compiles what a few calls and the processes that tests start are served by
test-kernels: install
	$(PYTEST) -m "compiles and not slow"

# what examples/, the pages and the docstrings show
test-examples: install
	$(PYTEST) -m "examples and not slow"

test-slow: install
	$(PYTEST) -m "slow or not slow" --all-kernels

# nothing may hang on luck: the quick suite with other random numbers
test-seeds: install
	for seed in 1 2 3 4 5 6 7 8 9 10; do $(PYTEST) --seed $$seed --hypothesis-seed $$seed || exit; done

# the quick suite on the lowest versions that pyproject.toml allows
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest $(PARALLEL) $(QUIETLY)

.venv-oldest/installed: pyproject.toml tests/oldest.py
	rm -rf .venv-oldest && $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[weights,hf,serve,onnx,slides,dev]" \
	  $$($(PYTHON) tests/oldest.py)
	touch $@

# ... and on the newest there are, pre-releases too; made anew each time
test-newest:
	rm -rf .venv-newest && $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --pre --upgrade \
	  --editable ".[weights,hf,serve,onnx,slides,dev]"
	.venv-newest/bin/python -m pytest $(PARALLEL) $(QUIETLY)

bench: install
	$(BIN)/gapstone bench

docs: install
	$(BIN)/python docs/generate/pools.py
	$(BIN)/python docs/generate/tutorial.py

# the documentation site, in site/; a link that does not hold, or a page that loads something from elsewhere, is an error
site: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(PYTEST) tests/docs/test_site.py
	@echo "Open site/index.html"

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-newest runs dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
