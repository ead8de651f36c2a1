# Every target makes .venv and installs what is missing. `make demo` and `make test` are all a newcomer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
CORE := .venv-core
DECODES := 20000
SOAK := soak
BENCH := bench
TESTERS := 2
STUDIES := studies

.PHONY: install demo study-quick study test test-core test-compiled kill-test lint type bench bench-data soak docs clean-demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hicmae needs Python 3.11 or newer; say which with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo.sh $(DEMO)

# A table and a figure from nothing, in minutes. `make study STUDY=ablation` takes configs/studies/ablation.yaml.
study-quick: STUDY := quick
study-quick study: install
	@test -f "configs/studies/$(STUDY).yaml" || \
		{ echo "which study? make study STUDY=name, for a file configs/studies/name.yaml"; exit 1; }
	$(BIN)/python -m finetune study configs/studies/$(STUDY).yaml --runs $(STUDIES)/runs --out $(STUDIES)/$(STUDY)

# In TESTERS processes of up to 1.7 GB; `pytest tests/test_x.py` needs none. Tests of a file stay together: they share what
# is costly to make, and files come by name: those of few tests, which take longest, would be last otherwise.
test: install
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

# In an environment of the core alone, made anew: minutes, most of them pip's, and as much disk as torch takes. Any model:
# `make test-core EXPORT=demo/exported CLIP=demo/corpus/clips/NAME.mp4`.
test-core: install
	rm -rf $(CORE) build
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt .
	$(BIN)/python -m tests.core_install make $(CORE)/check $(EXPORT) $(CLIP)
	$(CORE)/bin/python tests/core_install.py check $(CORE)/check
	rm -rf $(CORE) build

# The goldens in compiled graphs: minutes, most of them the C++ compiler's.
test-compiled: install
	$(BIN)/python -m pytest -m compiled tests/test_speed.py

kill-test: install
	HICMAE_KILLS=20 $(BIN)/python -m pytest tests/test_kill.py -s

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install
	$(BIN)/mypy

# Minutes; `make bench BENCH=FOLDER` says where the figures go.
bench: install
	$(BIN)/hicmae bench --out $(BENCH)

bench-data: install
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.data --decodes $(DECODES)

# Half an hour; `make soak SOAK=FOLDER` says where the figures go.
soak: install
	$(BIN)/python benchmarks/soak.py --out $(SOAK)

docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean-demo:
	rm -rf $(DEMO)
