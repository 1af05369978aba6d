# Every target makes its own environment in .venv; nothing but make and Python 3.10+ is needed beforehand.
#   make demo [PDF="a.pdf b.pdf"]   index real pages, ask questions through LangChain and LlamaIndex
#             [MODEL=name]          with another model, a name or a folder; [PRECISION=int8] of a checkpoint
#   make test [WORKERS=2]           the test suite, but for the tests marked slow
#   make test-all                   the whole test suite
#   make test-lowest                as make test, with the lowest versions that pyproject.toml declares
#   make test-servers               the tests of Qdrant servers, on stand-ins: Qdrant Cloud's strict mode; older, over gRPC
#   make fuzz [FUZZ="--seconds 5"]  hostile input of all kinds; faults are kept in build/fuzz
#   make lint                       ruff and mypy
#   make docs                       the documentation, in build/docs (open build/docs/index.html)
#   make notebooks                  run all notebooks and save them with their outputs
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q
# Processes that run the tests, each a file at a time, because a file's tests share what they make. numpy has one thread
# in each: with more, two processes on two cores would wait for each other.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo test test-all test-lowest test-servers fuzz lint format docs notebooks parity clean

demo: $(VENV)/.demo
	$(BIN)/python demo/demo.py $(if $(MODEL),--model "$(MODEL)") $(if $(PRECISION),--precision $(PRECISION)) $(PDF)

test: $(VENV)/.dev
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: $(VENV)/.dev
	$(PYTEST) $(PYTEST_ARGS)

test-lowest: $(VENV)/.lowest
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# Kinds of stand-ins: tests/stores/qdrant/profiled.py.
PROFILES ?= cloud older-grpc
test-servers: $(VENV)/.dev
	for profile in $(PROFILES); do QDRANT_PROFILE=$$profile $(PYTEST) -m "not slow" -k "server or Server or cloud" \
		tests/stores tests/llama_index/test_vector_stores.py tests/langchain/test_vectorstore_standard.py \
		$(PYTEST_ARGS) || exit 1; done

FUZZ ?= --seconds 60
fuzz: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/.dev
	$(BIN)/python notebooks/run.py

# The reference implementations, for making the fixtures of tests/parity anew. Large: it holds PyTorch.
parity: $(VENV)/.pip
	$(PIP) install --group parity

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml
	$(PIP) install -e ".[langchain,llama-index,cli]"
	@touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml
	$(PIP) install -e ".[all,ray]" --group dev
	@touch $@

$(VENV)/.lowest: $(VENV)/.pip pyproject.toml .ci/lowest.py
	$(BIN)/python .ci/lowest.py build/lowest.txt
	$(PIP) install -c build/lowest.txt -e ".[all,ray]" --group test
	@touch $@

$(VENV)/.docs: $(VENV)/.pip pyproject.toml
	$(PIP) install -e ".[all]" --group docs
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build docs/pictures
