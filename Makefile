# Every target sets up what it needs, and does nothing twice. book/setup.md has the same for Windows.
PYTHON ?= python3
BIN := .venv/bin
# `make learn TORCH=cpu`: PyTorch's build for machines without a GPU, 1.5 GB instead of 7
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH) is not known: TORCH=cpu, or nothing for the build that finds a GPU)
endif

# Idle threads sleep instead of spinning; beside other work it is worth up to a factor of 50.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help learn update progress test slow quick claims build book bench clean
.DEFAULT_GOAL := help

# A .venv that has become useless is made anew: its Python is gone, or the folder was moved
ifneq ($(wildcard .venv/ready),)
$(shell { $(BIN)/python -c 'import pip' && { test ! -s .venv/ready || \
	grep -qxF "$(CURDIR)" .venv/ready; }; } 2>/dev/null || rm -f .venv/ready .venv/dev)
endif

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 15

learn: .venv/ready  ## open the course; NO_BROWSER=1 on a server, PORT=8899, TORCH=cpu without a GPU
	@$(BIN)/python -m course.learn $(if $(PORT),--port $(PORT)) $(if $(NO_BROWSER),--no-browser)

update: .venv/ready  ## after git pull: carry your answers over to the newer lessons
	$(BIN)/python -m course.update

progress: .venv/ready  ## what became of each exercise
	@$(BIN)/python -m course.progress; code=$$?; test $$code -eq 1 -o $$code -eq 3 || exit $$code

test: .venv/dev  ## what CI proves: all lessons run, all tests but the slow ones
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/python -m pytest tests -n auto --durations=15 -m "not slow"
	COURSE_STATIC=1 $(BIN)/python -m pytest solutions -n auto --dist=loadfile  # a notebook's cells in one worker

slow: .venv/dev  ## what starts processes, kernels, browsers and sandboxes: a quarter of an hour on two cores
	COURSE_STATIC=1 $(BIN)/python -m pytest tests -n auto --dist=loadfile --no-loadscope-reorder --durations=15 -m slow

quick: .venv/dev  ## what is proven in two minutes, for each save: no kernels, no training
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests -q -n auto -m "not slow"

claims: .venv/dev  ## what the lessons say of runs, over seeds and answers: half an hour or more
	$(BIN)/python -m tests.claims.prove

build: .venv/ready  ## lessons/ -> notebooks/ and solutions/
	$(BIN)/python -m course.build

book: .venv/dev  ## the course as a website, in build/book/html
	$(BIN)/python -m course.book

bench: .venv/ready  ## the numbers in benchmarks/README.md
	$(BIN)/python benchmarks/lessons.py
	$(BIN)/python benchmarks/photographs.py
	$(BIN)/python benchmarks/threads.py
	$(BIN)/python benchmarks/recipe.py
	$(BIN)/python benchmarks/time_to_accuracy.py --png benchmarks/time_to_accuracy.png
	$(BIN)/python benchmarks/model_speed.py
	$(BIN)/python benchmarks/robustness.py shapetexture100
	$(BIN)/python benchmarks/robustness.py photographs
	-$(BIN)/python benchmarks/large_photographs.py build/large && \
		$(BIN)/python benchmarks/streaming.py build/large

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed, for example: make learn PYTHON=python3.12")'
	@echo "Setting up .venv: some minutes the first time"
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "Python cannot make an environment here. On Debian and Ubuntu: sudo apt install python3-venv"; \
		exit 1; }
	$(if $(TORCH),grep '^torch' requirements.txt | \
		$(BIN)/python -m pip install --no-deps --index-url $(TORCH_INDEX) -r /dev/stdin)
	$(BIN)/python -m pip install -r requirements.txt
	# Notebooks load torch first, and with any front end: their kernel brings the setting along
	$(BIN)/python -m ipykernel install --sys-prefix --env OMP_WAIT_POLICY PASSIVE
	@echo "$(CURDIR)" > $@

.venv/dev: .venv/ready
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@
