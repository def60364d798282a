# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format bench tiny clean

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Closeup and what it stands on into $(VENV) (some minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

demo: $(STAMP)  ## set up, then the main job on the model and the pictures that ship inside
	$(BIN)/closeup demo --out out

# A process a core and a thread each: twice as quick on two cores as one process with two threads.
test: $(STAMP)  ## set up, then every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope

check: $(STAMP)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## every bench; each ends in one JSON line
	@for bench in import_time text regions dense train_step detection segmentation denseclip finegrained; do $(BIN)/python -m benches.$$bench || exit 1; done

tiny: $(STAMP)  ## make everything that ships again (some hours on two cores; resumes where it stopped)
	$(BIN)/closeup pretrain --data world --out src/closeup/weights/tiny --resume-if-started
	$(BIN)/closeup reproduce clipself --train --tables regions --work src/closeup/weights
	$(BIN)/closeup reproduce regionclip --train --tables zero-shot --work src/closeup/weights
	$(BIN)/closeup reproduce detection --train --tables shipped --work src/closeup/weights
	$(BIN)/closeup reproduce ovseg --train --tables adapted --work src/closeup/weights
	$(BIN)/closeup reproduce segmentation --train --tables catseg --work src/closeup/weights
	$(BIN)/closeup reproduce finegrained --train --tables shipped --work src/closeup/weights

clean:
	rm -rf out runs build dist $(VENV)
