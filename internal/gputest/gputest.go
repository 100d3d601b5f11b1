// Package gputest is the test harness for kernels: a device that all tests of a package share, buffers with guard bytes
// on both sides, and a runner. The runner submits a command list several times and checks that the results are
// deterministic, that inputs do not change, and that nothing is written outside a buffer.
//
//	gpu := gputest.New(t)
//	x, y := gpu.In("x", data), gpu.Out("y", 4*n)
//	gpu.Run(func(list *vk.CommandList) error { return norm.Record(list, pipelines.RMSNormArgs{X: x, Y: y, Rows: n}) })
//	got := gpu.Float32("y")
package gputest

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/pretend"
	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
)

const (
	guardBytes = 256
	guardByte  = 0xa5
	nanByte    = 0xff // fills outputs before a run: four of them are a NaN
	runs       = 3
)

var (
	mu        sync.Mutex // guards device, openErr and simulated
	device    *vk.Device
	openErr   error
	simulated = map[string]*vk.Device{} // by the name of the test that called Simulate
	cases     atomic.Int64
)

// Main runs the tests of a package; call it from TestMain. Afterwards it closes the shared device. It exits with a
// failure if a device object was not closed or the validation layer reported a message outside of a test.
func Main(m *testing.M) {
	if name := os.Getenv("COLT5_PRETEND_CHIP"); name != "" {
		chip, ok := pretend.Chips()[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "FAIL: COLT5_PRETEND_CHIP is %q, want one of package pretend\n", name)
			os.Exit(1)
		}
		pretend.Chip(chip)
	}
	if err := compileQuickly(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	if device != nil {
		if n, text := device.DrainMessages(); n > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: %d validation messages outside of tests:\n%s\n", n, text)
			code = 1
		}
		if err := device.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	if err := writeCaseCount(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	os.Exit(code)
}

// compileQuickly makes Mesa's CPU driver skip LLVM's optimisation passes in short tests, which mostly compile. With Mesa
// 22.3, tests of linear then take a third less CPU time, those of coordinate descent a tenth less, and those of the backward
// pass of window attention 7 % more. A GALLIVM_PERF of the caller is kept. The C library's environment is changed, too,
// because the packages that open a device use cgo.
func compileQuickly() error {
	flag.Parse()
	if _, set := os.LookupEnv("GALLIVM_PERF"); set || !testing.Short() {
		return nil
	}
	return os.Setenv("GALLIVM_PERF", "nopt")
}

// writeCaseCount appends the number of cases that ran on the device to the file COLT5_GPU_CASES_FILE, which make test
// reads.
func writeCaseCount() error {
	file := os.Getenv("COLT5_GPU_CASES_FILE")
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%s %d\n", wd, cases.Load()); err != nil {
		return err
	}
	return f.Close()
}

// Device returns the device that the tests of a package share, or that of Simulate. If no device can be opened, the test
// is skipped; with COLT5_REQUIRE_GPU=1 it fails. COLT5_SIMULATE gives the shared device the limits of that name, of
// simulate.Devices. With COLT5_SUBGROUP_SIZE a test fails if the device has another subgroup size.
func Device(t testing.TB) *vk.Device {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	for name := t.Name(); name != ""; name = name[:max(strings.LastIndexByte(name, '/'), 0)] {
		if d := simulated[name]; d != nil {
			return d
		}
	}
	if device == nil && openErr == nil {
		device, openErr = open()
	}
	if openErr != nil {
		if os.Getenv("COLT5_REQUIRE_GPU") == "1" {
			t.Fatalf("COLT5_REQUIRE_GPU is 1: %v", openErr)
		}
		t.Skip(openErr)
	}
	return device
}

// open opens the shared device.
func open() (*vk.Device, error) {
	limits, err := Limits()
	if err != nil {
		return nil, err
	}
	d, err := vk.Open(vk.Options{Simulate: limits})
	if err != nil {
		return nil, err
	}
	c := d.Caps()
	if want := os.Getenv("COLT5_SUBGROUP_SIZE"); want != "" && want != fmt.Sprint(c.SubgroupSize) {
		err := fmt.Errorf("COLT5_SUBGROUP_SIZE is %s: the device has subgroups of %d", want, c.SubgroupSize)
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Limits returns the limits of COLT5_SIMULATE; nil if it is not set.
func Limits() (*simulate.Limits, error) {
	name := os.Getenv("COLT5_SIMULATE")
	if name == "" {
		return nil, nil
	}
	l, ok := simulate.Devices()[name]
	if !ok {
		return nil, fmt.Errorf("COLT5_SIMULATE is %q, want one of %q", name, slices.Sorted(maps.Keys(simulate.Devices())))
	}
	return &l, nil
}

// Simulate makes Device return a device with lower limits, in this test and its subtests.
func Simulate(t testing.TB, l simulate.Limits) *vk.Device {
	t.Helper()
	Device(t) // skips without one
	d, err := vk.Open(vk.Options{Simulate: &l})
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	simulated[t.Name()] = d
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		delete(simulated, t.Name())
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// CountCase increments the number of test cases that ran on the device.
func CountCase() { cases.Add(1) }
