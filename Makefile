PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-all check docs pictures bench bench-export bench-gpu clean

quickstart: $(BIN)/.installed  ## install, then train the chain dense -> pruned -> quantized on real digits
	$(BIN)/qprune fit digits/a75_w4a4 --chain --resume

# bytecode is kept whatever the environment says: two processes collect the tests, and these start some 200 more
test: $(BIN)/.installed-dev  ## install, then run the tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(BIN)/.installed-dev  ## the slow tests too
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(BIN)/.installed-dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(BIN)/.installed-docs  ## the site, in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -n -q docs docs/_build/html

pictures: $(BIN)/.installed-docs  ## the pictures of the site, from runs of the pages' own commands
	OMP_NUM_THREADS=1 $(BIN)/python docs/pictures.py

bench: $(BIN)/.installed  ## time of a training step, and of a forward pass of shrunk networks, as ratios to the dense network
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/shrunk_forward.py

bench-export: $(BIN)/.installed-dev  ## latency of exported networks beside dense ones and a quarter-width yardstick
	$(BIN)/python benchmarks/exported_latency.py

bench-gpu: $(BIN)/.installed-dev  ## what qprune does on a GPU, in one table, in ten minutes; needs one
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf .venv build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(BIN)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(BIN)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(BIN)/.installed

$(BIN)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@ $(BIN)/.installed
