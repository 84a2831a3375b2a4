# Every target sets up what it needs, and does nothing twice. README.md has the same for Windows.
PORT ?= 8888
PYTHON ?= python3
BIN := .venv/bin
# In a container one often is root, which Jupyter wants to be told.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# Idle threads sleep instead of spinning; beside other work it is worth up to a factor of 50.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: learn update progress test quick claims build bench clean

learn: .venv/ready  ## open the course; NO_BROWSER=1 on a server, PORT=8899 for another port
	$(BIN)/python -m course.update --only-missing
	$(BIN)/jupyter lab --port $(PORT) $(if $(NO_BROWSER),--no-browser) $(AS_ROOT) \
		--LabApp.default_url=/lab/tree/work/01_vit_recap.ipynb

update: .venv/ready  ## after git pull: carry your answers over to the newer lessons
	$(BIN)/python -m course.update

progress: .venv/ready  ## what became of each exercise
	@$(BIN)/python -m course.progress; code=$$?; test $$code -eq 1 -o $$code -eq 3 || exit $$code

test: .venv/dev  ## all that is proven
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/python -m pytest -n auto --durations=15

quick: .venv/dev  ## what is proven in a minute, for each save: no kernels, no training
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests -q -n auto -m "not slow"

claims: .venv/dev  ## what the lessons say of runs, over seeds and answers: 20 minutes
	$(BIN)/python -m tests.claims.prove

build: .venv/ready  ## lessons/ -> notebooks/ and solutions/
	$(BIN)/python -m course.build

bench: .venv/ready  ## the README's numbers
	$(BIN)/python benchmarks/lessons.py
	$(BIN)/python benchmarks/photographs.py
	$(BIN)/python benchmarks/recipe.py
	$(BIN)/python benchmarks/time_to_accuracy.py --png benchmarks/time_to_accuracy.png
	$(BIN)/python benchmarks/model_speed.py
	$(BIN)/python benchmarks/robustness.py shapetexture100
	$(BIN)/python benchmarks/robustness.py photographs

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed, for example: make learn PYTHON=python3.12")'
	@echo "Setting up .venv: some minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

.venv/dev: .venv/ready
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@
