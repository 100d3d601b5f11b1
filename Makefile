# make run    set up, verify the golden cases, print the timing table of this machine's Vulkan device
# make test   set up, run all tests; fails if no test reached a Vulkan device
# The rest is for work on the project: see CONTRIBUTING.md.

GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.6.1
TEST_FLAGS ?= -count=1 -timeout 30m
# The longest tests first: two packages run side by side.
PACKAGES ?= ./pipelines ./...
TOOLS := $(CURDIR)/scripts/vulkan-tools
GPU_CASES := $(CURDIR)/bin/gpu-cases

.PHONY: run test shaders check check-shaders check-go validate test-mesa26 verify-mesa26 test-amd storm bench setup clean help
.DEFAULT_GOAL := help

help:
	@sed -n '1,3s/^# \{0,1\}//p' Makefile

setup:
	@scripts/setup

run: setup
	$(GO) run ./cmd/vkbench verify testdata/golden
	$(GO) run ./cmd/vkbench bench

# A test package that uses the device appends "PACKAGE CASES" to the file named by COLT5_GPU_CASES_FILE.
# Packages whose tests all come from the cache would write nothing: hence -count=1.
define run_tests
	@mkdir -p bin && rm -f "$(GPU_CASES)"
	COLT5_REQUIRE_GPU=1 COLT5_GPU_CASES_FILE="$(GPU_CASES)" $(1) $(GO) test $(TEST_FLAGS) $(2) $(PACKAGES)
	@scripts/gpu-cases "$(GPU_CASES)"
endef

test: setup
	$(call run_tests)

# The Khronos layer's core and synchronisation checks over the whole suite; any message fails the test it belongs to.
validate:
	@scripts/setup validation
	$(call run_tests,COLT5_VALIDATE=1)

# The same tests on a newer CPU driver, one that has cooperative matrices.
test-mesa26: export SUITE = forky
test-mesa26:
	@scripts/vulkan-tools setup
	$(call run_tests,,-exec '"$(TOOLS)" run')

# What AMD's compiler makes of every kernel, for four generations of chips and without one: none may spill registers. Mesa caches what it has
# compiled, so a second time takes seconds.
AMD_CHIPS := VEGA10 NAVI21 NAVI31 GFX1201

test-amd: export SUITE = trixie
test-amd:
	@scripts/vulkan-tools setup
	@for chip in $(AMD_CHIPS); do \
		RADV_FORCE_FAMILY=$$chip COLT5_DEVICE= COLT5_REQUIRE_GPU=1 $(GO) test -count=1 -run 'TestCompiles$$' -v -exec '"$(TOOLS)" amd' ./pipelines || exit 1; \
	done

# The golden cases of modules with matrix products in float16, on the cooperative matrices of that driver.
verify-mesa26: export SUITE = forky
verify-mesa26:
	@scripts/vulkan-tools setup
	@mkdir -p bin && $(GO) build -o bin/vkbench ./cmd/vkbench
	@"$(TOOLS)" run bin/vkbench verify -precision f16 testdata/golden

# The vk package's storm test, with freed C memory overwritten and every Go pointer that reaches C memory caught.
storm: setup
	MALLOC_PERTURB_=165 GOEXPERIMENT=cgocheck2 COLT5_REQUIRE_GPU=1 $(GO) test -count=1 -run Storm -v ./vk

bench: setup
	$(GO) run ./cmd/vkbench bench

# One build at a time: the lock is on a file that the build does not replace.
shaders:
	flock shaders/variants.txt $(GO) run ./internal/tools/shaderbuild

check-shaders:
	flock shaders/variants.txt $(GO) run ./internal/tools/shaderbuild -check

check: check-go check-shaders

check-go:
	@out=$$(gofmt -l .) && [ -z "$$out" ] || { echo "gofmt these files:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

clean:
	rm -rf bin .toolbox*
