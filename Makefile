# make demo: find, export and train a ticket on a fresh machine.  make test: everything CI checks.
# Each makes .venv by itself and installs what it needs; the stamps below say what is in it, by a hash of pyproject.toml.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Exactly this torch, and first: a range may resolve to a build with gigabytes of CUDA.
TORCH := torch==2.13.0
HASH := $(shell cksum < pyproject.toml | cut -d ' ' -f 1)
NATIVE := $(shell find CMakeLists.txt device_runtime -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name CMakeLists.txt)
FORMATTED = $(shell find benchmarks device_runtime examples tests -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.java')
SANITIZED := build/sanitized
TSAN := build/tsan
FUZZ := build/fuzz
FUZZ_SEEDS := build/fuzz_seeds
FUZZ_TARGETS := artifact checkpoint calls
SECONDS ?= 600
CMAKE = $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN)/ninja)" -DTKT_BUILD_TESTS=ON --log-level=WARNING

.PHONY: demo apk test lint format ctest ctest-tsan ctest-targets emulators android-tools pytest fuzz clean
.NOTPARALLEL:
.DEFAULT_GOAL := test

demo: $(VENV)/.demo-$(HASH)
	$(BIN)/python examples/digits.py

# The example app of Android and the library as an AAR, after a search of a minute for its ticket.
apk: $(VENV)/.demo-$(HASH) android-tools
	$(BIN)/python -m examples.android.make_assets
	$(BIN)/python -m examples.android.build_apk

test: lint ctest ctest-tsan emulators android-tools pytest

lint: $(VENV)/.test-$(HASH)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)

format: $(VENV)/.test-$(HASH)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(FORMATTED)

# The C tests and a replay of the fuzz targets, under AddressSanitizer and UndefinedBehaviorSanitizer.
ctest: $(VENV)/.test-$(HASH)
	$(BIN)/python -m tests.fuzz.make_seeds $(FUZZ_SEEDS)
	$(CMAKE) -S . -B $(SANITIZED) -DCMAKE_BUILD_TYPE=Debug -DTKT_SANITIZE=address -DTKT_FUZZ_SEEDS="$(abspath $(FUZZ_SEEDS))"
	$(BIN)/cmake --build $(SANITIZED)
	$(BIN)/ctest --test-dir $(SANITIZED) --output-on-failure --no-tests=error

# Trainers on several threads, under ThreadSanitizer.
ctest-tsan: $(VENV)/.test-$(HASH)
	$(CMAKE) -S . -B $(TSAN) -DCMAKE_BUILD_TYPE=Debug -DTKT_SANITIZE=thread
	$(BIN)/cmake --build $(TSAN)
	$(BIN)/ctest --test-dir $(TSAN) --output-on-failure --no-tests=error

# The device runtime for every target, under emulation: the same bits everywhere, the Android libraries, and the SDK for Java on
# a JVM and an emulated one. `make test` runs these tests with all others; without a compiler or an emulator they skip by name,
# so CI installs them.
ctest-targets: $(VENV)/.test-$(HASH) emulators android-tools
	$(BIN)/python -m pytest -n 2 tests/targets tests/java tests/android

emulators:
	.ci/need aarch64-linux-gnu-g++=g++-aarch64-linux-gnu arm-linux-gnueabihf-g++=g++-arm-linux-gnueabihf \
	  qemu-aarch64=qemu-user qemu-system-arm=qemu-system-arm clang++-14=clang-14 ld.lld-14=lld-14 \
	  arm-none-eabi-gcc=gcc-arm-none-eabi arm-none-eabi-gcc=libnewlib-arm-none-eabi javac=default-jdk-headless
	test -e /usr/share/java/junit4.jar || .ci/need junit4.jar=junit4
	test -e /usr/include/android/nativehelper/jni.h || .ci/need jni.h=android-libnativehelper-dev
	-.ci/need kotlinc=kotlin

# The dexer and android.jar come from Debian 11 (examples/android/toolchain.py); where they cannot be had, tests skip by name.
android-tools:
	.ci/need aapt2=aapt apksigner=apksigner zipalign=zipalign dexdump=dexdump javac=default-jdk-headless \
	  clang++-14=clang-14 ld.lld-14=lld-14 arm-none-eabi-gcc=gcc-arm-none-eabi
	test -e /usr/share/android-framework-res/framework-res.apk || .ci/need framework-res.apk=android-framework-res
	test -e /usr/include/android/nativehelper/jni.h || .ci/need jni.h=android-libnativehelper-dev
	test -e /usr/share/java/sqlite-jdbc.jar || .ci/need sqlite-jdbc.jar=libxerial-sqlite-jdbc-java

# Each target of tests/fuzz for SECONDS with libFuzzer; what it finds new stays in build/fuzz/corpus, findings in build/fuzz.
fuzz: $(VENV)/.test-$(HASH)
	.ci/need clang-14=clang-14
	test -e "$$(clang-14 -print-file-name=lib/linux/libclang_rt.fuzzer-$$(uname -m).a)" || .ci/need libclang-rt-14=libclang-rt-14-dev
	$(BIN)/python -m tests.fuzz.make_seeds $(FUZZ_SEEDS)
	$(CMAKE) -S . -B $(FUZZ) -DCMAKE_BUILD_TYPE=Debug -DTKT_SANITIZE=fuzzer -DTKT_FUZZ_SEEDS="$(abspath $(FUZZ_SEEDS))" \
	  -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14
	$(BIN)/cmake --build $(FUZZ)
	failed=; for target in $(FUZZ_TARGETS); do \
	  mkdir -p $(FUZZ)/corpus/$$target $(FUZZ_SEEDS)/$$target tests/fuzz/regressions/$$target; \
	  nice $(FUZZ)/device_runtime/fuzz/fuzz_$$target -max_total_time=$(SECONDS) -max_len=8192 -timeout=20 -print_final_stats=1 \
	    -verbosity=0 -artifact_prefix=$(FUZZ)/$$target- $(FUZZ)/corpus/$$target $(FUZZ_SEEDS)/$$target \
	    tests/fuzz/regressions/$$target || failed="$$failed $$target"; \
	done; test -z "$$failed" || { echo "findings in:$$failed; the inputs are $(FUZZ)/TARGET-*" >&2; exit 1; }

pytest: $(VENV)/.test-$(HASH)
	$(BIN)/python -m pytest -n 2

$(VENV)/bin/python:
	PYTHON=$(PYTHON) .ci/need g++=g++ python3-venv=python3-venv
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=24'

$(VENV)/.demo-$(HASH): EXTRAS := server,onnx
$(VENV)/.demo-$(HASH): $(VENV)/bin/python $(NATIVE)
	$(install)
	touch $@

$(VENV)/.test-$(HASH): EXTRAS := dev,server,data,large,tensorboard,mlflow,sign,onnx,ort,executorch
$(VENV)/.test-$(HASH): $(VENV)/bin/python $(NATIVE)
	.ci/need strace=strace
	$(install)
	touch $(VENV)/.demo-$(HASH) $@

# The build requirements first and no isolation, so that a rebuild of the C++ module is quick and needs no network.
define install
rm -f $(VENV)/.demo-* $(VENV)/.test-*
$(PIP) install $$($(BIN)/python -c $(REQUIREMENTS)) 'cmake>=3.25' 'ninja>=1.11'
$(PIP) install $(TORCH)
$(PIP) install --no-build-isolation --editable '.[$(EXTRAS)]'
endef
REQUIREMENTS := "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'])"

clean:
	rm -rf $(VENV) build demo dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
