# Two promises: `make demo` and `make test`, each alone on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint format leaderboard benchmarks docs clean

demo: $(VENV)/.installed
	$(BIN)/dfad-bench demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Renews the committed results and tables; the work tree must be clean, or the results are refused. An hour on two cores.
SEEDED := chance,file_header,gaze_only,spectral,resnet18,gazeclip_tiny,cpl
leaderboard: $(VENV)/.installed
	rm -rf demo
	$(BIN)/dfad-bench demo
	$(BIN)/dfad-bench run --model $(SEEDED) --protocol demo --seeds 3 --data demo/data --runs demo/runs
	$(BIN)/dfad-bench run --model dna_det,supcon --protocol demo --data demo/data --runs demo/runs
	$(BIN)/dfad-bench leaderboard add demo/runs/demo/*/seed-0/result.json
	$(BIN)/dfad-bench leaderboard seeds demo/runs/demo/*/seed-*/result.json
	$(BIN)/dfad-bench leaderboard pairs demo/runs/demo/*/seed-0/result.json
	$(BIN)/dfad-bench leaderboard build --readme README.md
	for name in comparison gaze-fid pairs predictions result robustness seeds; do \
	  $(BIN)/dfad-bench schema $$name > leaderboard/schema/$$name.json; done

benchmarks: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/faces.py
	$(BIN)/python benchmarks/gaze.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/perturbations.py
	$(BIN)/python benchmarks/frechet.py
	$(BIN)/python benchmarks/gaze_fid.py
	$(BIN)/python benchmarks/gaze_fid_calibration.py
	$(BIN)/python benchmarks/baselines.py
	$(BIN)/python benchmarks/gazeclip_speed.py
	$(BIN)/python benchmarks/packed.py
	$(BIN)/python benchmarks/manifests.py
	$(BIN)/python benchmarks/scaling.py
	rm -rf demo && $(BIN)/dfad-bench demo
	$(BIN)/python benchmarks/gazeclip_ablation.py --data demo/data --runs demo/ablation
	$(BIN)/python benchmarks/readme.py

# The documentation, into site/.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	  echo "dfad-bench needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
