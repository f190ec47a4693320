# Everything runs in .venv of this checkout, which the first target that needs it creates.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The folder of real data that `make accuracy` uses.
DATA ?= data
# The benchmarks that docs/speed.md reports.
LOOPS := train-mlp train-mlp-2-threads train-mlp-default train-mlp-watched train-mlp-compiled \
	train-pure train-table train-table-fused train-mixed train-mixed-2-threads train-mixed-compiled \
	train-stacked train-many checkpoint-25m fit-once fit-once-hooked fit-fingerprint \
	checkpoint-blocked compile-mlp compile-mixed
BIN := .venv/bin
# A process for each core. The tests of a file stay together, because they share trained models. In
# the order of the folders, the smallest files come last, so that the processes end together.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
READY := .venv/ready
# Threads sleep while they wait: on a busy machine, spinning costs several times the work.
export OMP_WAIT_POLICY := PASSIVE
# What Python has compiled is kept: every process would compile the package and the tests anew.
export PYTHONDONTWRITEBYTECODE :=

# The tests that compare numbers to the bit or to a bound, and the settings under which they must pass
# on any x86-64 CPU: the instructions that torch, oneDNN and MKL may use, and OpenMP's threads.
LAWS := $(patsubst %,tests/%.py, nn/test_backbones train/test_fit laws/test_goldens \
	train/test_gradient laws/test_laws optim/test_optim train/test_own_steps prediction/test_predict \
	train/test_step files/test_store files/test_versions)
SETTINGS := portable-default portable-avx2 portable-threads portable-oldest-threads
$(SETTINGS): export OMP_NUM_THREADS := 1
portable-default: export ATEN_CPU_CAPABILITY := default
portable-avx2: export ATEN_CPU_CAPABILITY := avx2
portable-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
portable-avx2: export MKL_ENABLE_INSTRUCTIONS := AVX2
portable-threads: export OMP_NUM_THREADS := 2
portable-oldest-threads: export ATEN_CPU_CAPABILITY := default
portable-oldest-threads: export ONEDNN_MAX_CPU_ISA := AVX2
portable-oldest-threads: export MKL_CBWR := COMPATIBLE
portable-oldest-threads: export OMP_NUM_THREADS := 2

.PHONY: help demo test check slow portable $(SETTINGS) oldest newest bench peers accuracy clean

help:    ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)   ## draw the demo's houses, fit three models, compare them: the main job
	$(BIN)/mip demo specs/demo

# The nets of the tests are small: a second thread would cost more than it gains.
test: $(READY)   ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

portable: $(SETTINGS) ## run the laws and golden numbers as other CPUs would

$(SETTINGS): $(READY)
	$(BIN)/python -m pytest $(PARALLEL) $(LAWS)

check: $(READY)  ## lint, format and type check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(READY)   ## run the tests that take minutes, and the laws on many more examples
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --hypothesis-profile=thorough \
		$$(grep -rl --include='test_*.py' '^@given' tests)

# In fresh environments, because the newest versions change from day to day.
oldest: VERSIONS := --constraint constraints-oldest.txt
oldest:          ## run the tests with the lowest versions that pyproject.toml allows
newest:          ## run the tests with the newest versions
oldest newest:
	$(PYTHON) -m venv --clear .venv-$@
	.venv-$@/bin/pip install --quiet --disable-pip-version-check $(VERSIONS) --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-$@/bin/python -m pytest $(PARALLEL)

bench: $(READY)  ## measure speed, as ratios against loops written by hand, and limits
	$(BIN)/python -m benchmarks

peers: $(READY)  ## measure training against other libraries too, into docs/speed.md
	$(BIN)/python -m benchmarks $(LOOPS) --json build/loops.json
	$(BIN)/python -m benchmarks.peers --loops build/loops.json --page docs/speed.md

# What an interrupted run has measured is not measured again.
accuracy: $(READY) ## measure how well specs predict real data, into docs/results.md
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt 'lightgbm>=4.6'
	$(BIN)/python -m benchmarks.accuracy --data $(DATA) --json build/accuracy.json --page docs/results.md
	rm build/accuracy.json

clean:           ## remove what these targets made
	rm -rf .venv .venv-oldest .venv-newest demo runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
