# make run    install what is missing, verify the golden cases, and time every kernel and module on this machine's device
# make train  install what is missing, train a tiny language model on the sources here, and generate text with it
# make test   install what is missing and run all tests; fails if no test used a Vulkan device
# make short  run the short form of all tests: every kernel and module once, without long sweeps
# The other targets are for development: see CONTRIBUTING.md.

GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.6.1
TEST_FLAGS ?= -count=1 -timeout 30m
# go test runs packages concurrently. The slowest package comes first, so that it does not run alone at the end.
PACKAGES ?= ./pipelines ./...
TOOLS := $(CURDIR)/scripts/vulkan-tools
GPU_CASES := $(CURDIR)/bin/gpu-cases

.PHONY: run train test short test-python shaders check check-shaders check-go cross validate test-mesa26 verify-mesa26 test-subgroups test-chips test-limits test-compilers storm race fuzz bench setup clean help
.DEFAULT_GOAL := help

help:
	@sed -n '1,5s/^# \{0,1\}//p' Makefile

setup:
	@scripts/setup

run: setup
	$(GO) run ./cmd/vkbench verify testdata/golden
	$(GO) run ./cmd/vkbench bench

# The text is mostly no Go after so short a training; docs/training.md has better settings.
TRAIN_OUT := bin/train

train: setup
	@mkdir -p bin && rm -rf $(TRAIN_OUT) && $(GO) build -o bin/colt5 ./cmd/colt5
	bin/colt5 train lm -out $(TRAIN_OUT) -include '*.go' -dim 48 -depth 1 -heads 2 -dim-head 16 -window 16 -q 4 -kv 32 -routes 1 -length 128 -batch 4 \
		-steps 300 -rate 5e-3 -warm-up 20 -evaluate-every 100 -held-out-bytes 8192 -sample 100 .
	bin/colt5 generate $(TRAIN_OUT) 'func Test' -length 200
	@echo; echo "The page of the training is $(TRAIN_OUT)/index.html."

# A test package that uses the device appends a line "PACKAGE CASES" to the file named by COLT5_GPU_CASES_FILE.
# -count=1 disables the test cache, because a cached package appends nothing.
define run_tests
	@mkdir -p bin && rm -f "$(GPU_CASES)"
	COLT5_REQUIRE_GPU=1 COLT5_GPU_CASES_FILE="$(GPU_CASES)" $(1) $(GO) test $(TEST_FLAGS) $(2) $(PACKAGES)
	@scripts/gpu-cases "$(GPU_CASES)"
endef

test: setup
	$(call run_tests)

# Also the cases of the longest sweeps that make test leaves out: all sizes of products, coordinate descent, selection and
# attention.
test-full: setup
	$(call run_tests,COLT5_TEST_FULL=1)

# Long sweeps and stress tests are skipped or reduced.
short: setup
	COLT5_REQUIRE_GPU=1 $(GO) test -short ./...

# scripts/from_pytorch.py. With the package colt5-attention on PYTHONPATH, also against it.
PYTHON ?= python3
test-python:
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then $(PYTHON) scripts/from_pytorch_test.py; \
	else echo "test-python: skipped, because $(PYTHON) has no torch; the files that the scripts made are tested by go test"; fi

# All tests under the Khronos validation layer, with its core and synchronisation checks. A message fails the test
# that caused it.
validate:
	@scripts/setup validation
	$(call run_tests,COLT5_VALIDATE=1)

# All tests on a newer CPU driver, which has cooperative matrices.
test-mesa26: export SUITE = forky
test-mesa26:
	@scripts/vulkan-tools setup
	$(call run_tests,,-exec '"$(TOOLS)" run')

# Compiles every kernel that the library selects on these chips, without hardware. A kernel that spills registers to
# memory, takes more than 5 s or crashes the compiler fails. AMD in upper case is Mesa 25, the rest Mesa 26. For some
# kernels on some chips: make test-compilers CHIPS="navi31 bmg" ONLY='^(linear|select)'
ALL_CHIPS := VEGA10 NAVI21 NAVI31 GFX1201 navi31 gfx1201 strix1 skl icl tgl mtl dg2 bmg ptl adreno apple kepler turing
CHIPS := $(ALL_CHIPS)

test-compilers:
	@GO='$(GO)' ONLY='$(ONLY)' SHORT='$(SHORT)' ALL_CHIPS='$(if $(filter-out $(CHIPS),$(ALL_CHIPS)),,1)' scripts/test-compilers $(CHIPS)

# The golden cases of modules with matrix products, in float16 on the newer CPU driver's cooperative matrices. MESA26_CASES= runs
# those that are in the program.
MESA26_CASES := testdata/golden
verify-mesa26: export SUITE = forky
verify-mesa26:
	@scripts/vulkan-tools setup
	@mkdir -p bin && $(GO) build -o bin/vkbench ./cmd/vkbench
	@"$(TOOLS)" run bin/vkbench verify -precision f16 $(MESA26_CASES)

# The tests of the kernels, and all golden cases, with other subgroup sizes of the CPU driver: its vectors have 32 bits for
# each invocation. Mesa's cache is off, because its keys lack that width: it would have kernels of other subgroup sizes, and
# keep these for later tests. Fewer sizes or tests: make test-subgroups SUBGROUP_SIZES=4 TEST_FLAGS='-short -run Select'
SUBGROUP_SIZES := 4 8 16
SUBGROUP_CASES := testdata/golden

test-subgroups: setup
	@mkdir -p bin && $(GO) build -o bin/vkbench ./cmd/vkbench
	@for size in $(SUBGROUP_SIZES); do \
		export LP_NATIVE_VECTOR_WIDTH=$$((32 * size)) MESA_SHADER_CACHE_DISABLE=true; \
		echo "subgroups of $$size"; \
		COLT5_REQUIRE_GPU=1 COLT5_SUBGROUP_SIZE=$$size $(GO) test $(TEST_FLAGS) ./pipelines && \
		bin/vkbench verify $(SUBGROUP_CASES) || exit 1; \
	done

# Kernels and modules with the kernels that these chips would get, by the registers of an invocation (internal/pretend).
PRETEND_CHIPS := tgl apple navi31

test-chips: setup
	@for chip in $(PRETEND_CHIPS); do \
		echo "kernels of $$chip"; \
		COLT5_REQUIRE_GPU=1 COLT5_PRETEND_CHIP=$$chip $(GO) test $(TEST_FLAGS) ./pipelines ./colt5 || exit 1; \
	done

# Every kernel and small modules on simulated devices with low limits (internal/simulate), and transfers with memory that
# is not coherent or not host-visible.
test-limits: setup
	COLT5_REQUIRE_GPU=1 COLT5_EVERY_LIMIT=1 $(GO) test $(TEST_FLAGS) -run 'Simulate|NoTimestamps|HostVisible|NonCoherent' ./vk ./pipelines ./colt5
	@for limit in non-coherent host-visible; do \
		COLT5_REQUIRE_GPU=1 COLT5_SIMULATE=$$limit $(GO) test $(TEST_FLAGS) -short ./vk || exit 1; \
	done

# The stress test of package vk. The C allocator overwrites freed memory, and the Go runtime checks every pointer
# passed to C.
storm: setup
	MALLOC_PERTURB_=165 GOEXPERIMENT=cgocheck2 COLT5_REQUIRE_GPU=1 $(GO) test -count=1 -run Storm -v ./vk

# Tests of several goroutines on one device, with closes during calls, under the race detector.
race: setup
	COLT5_REQUIRE_GPU=1 $(GO) test -race -short -count=1 -timeout 20m -run 'Storm|Concurrent|During|BelongToTheCall|WhileWaiting' ./vk ./colt5
	COLT5_REQUIRE_GPU=1 $(GO) test -race -count=1 -timeout 20m -run 'Concurrent|During' ./train

# Every fuzz target, for so long each. Go keeps what it finds in its cache; a failure is written to testdata/fuzz of the
# package, and belongs into the repository.
FUZZ_TIME := 30s
FUZZ_TARGETS := ./safetensors:FuzzOpen ./safetensors:FuzzIndex ./colt5:FuzzConfig ./colt5:FuzzIDs ./train:FuzzCheckpoint \
	./cmd/vkbench:FuzzFlags ./internal/spirv:FuzzReflect ./internal/errtext:FuzzQuote

fuzz: setup
	@for target in $(FUZZ_TARGETS); do \
		$(GO) test -run '^$$' -fuzz "^$${target##*:}$$" -fuzztime $(FUZZ_TIME) "$${target%%:*}" || exit 1; \
	done

bench: setup
	$(GO) run ./cmd/vkbench bench

# The lock prevents concurrent builds. It is on a file that the build does not replace.
shaders:
	flock shaders/src/variants.txt $(GO) run ./internal/tools/shaderbuild

check-shaders:
	flock shaders/src/variants.txt $(GO) run ./internal/tools/shaderbuild -check

check: check-go check-shaders

# Builds everything for other systems: Windows with mingw, Linux on ARM with its gcc. Nothing there is run. macOS needs
# Apple's SDK: only the packages without C are compiled.
cross:
	@scripts/setup cross
	GOOS=windows GOARCH=amd64 CGO_ENABLED=1 CC=x86_64-w64-mingw32-gcc $(GO) build ./...
	GOOS=linux GOARCH=arm64 CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc $(GO) build ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./safetensors ./internal/atomicfile ./internal/spirv ./internal/errtext ./internal/half

check-go:
	$(GO) mod verify
	@out=$$(gofmt -l .) && [ -z "$$out" ] || { echo "gofmt these files:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

clean:
	rm -rf bin .toolbox*
