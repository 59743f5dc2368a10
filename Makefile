# make demo: set up and run the main job on real data.  make test: set up and pass every check.
# make bench: speed beside other tools, written to docs/benchmarks.md; an hour, and needs REGRAFT_DATA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
QUIET := --quiet --disable-pip-version-check --root-user-action=ignore

.PHONY: demo test bench clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIET) -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/regraft demo

# A worker that dies ends the tests: pytest-xdist waits for ever for what a replaced one had before it (its issue 1378).
test: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

bench: $(STAMP)
	$(BIN)/python -m pip install $(QUIET) -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/speed.py --write docs/benchmarks.md

clean:
	rm -rf $(VENV)
