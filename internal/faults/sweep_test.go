//go:build linux

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/faults"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sweep runs a scenario with faults.
type sweep struct {
	*testing.T
	steps []step
	want  string   // results without a fault
	calls []string // without a fault
}

func newSweep(t *testing.T, steps []step) *sweep {
	needLoader(t)
	s := &sweep{T: t, steps: steps}
	s.want = s.run(faults.Fault{})
	s.calls = loader.Trace()
	require.Equal(t, s.want, s.run(faults.Fault{}), "without a fault")
	if !slices.Contains(s.calls, "vkGetFenceStatus") { // how often a fence is polled varies
		require.Equal(t, len(s.calls), loader.Calls(), "without a fault")
	}
	return s
}

// try runs the scenario with a fault, and then opens a device again.
func (s *sweep) try(f faults.Fault) {
	s.Helper()
	gputest.CountCase()
	if got := s.run(f); got != "" {
		require.Equal(s, s.want, got, "%v", f)
	} else {
		require.Equal(s, s.want, s.run(faults.Fault{}), "after %v", f)
	}
	if s.Failed() {
		s.FailNow()
	}
}

// run runs the scenario, and returns its results. A step that fails is tried again, or, if the fault lasts and in half of
// the other cases, run closes everything and returns "".
func (s *sweep) run(f faults.Fault) (digest string) {
	s.Helper()
	st := &state{dir: s.TempDir()}
	ctx := context.Background()
	loader.Inject(f)
	for i, step := range s.steps {
		what := fmt.Sprintf("%v: step %d %s", f, i, step.name)
		_, before := loader.Failed()
		err := step.run(ctx, st)
		call, after := loader.Failed()
		switch {
		case err == nil && after > before && !mayFail(call):
			s.Fatalf("%s succeeded, although %s failed", what, call)
		case err == nil:
			continue
		case after == 0:
			s.Fatalf("%s: %v", what, err)
		}
		s.checkError(what, f, step, call, err)
		if f.Mode != faults.Return || f.Lasting || givesUp(f) {
			s.abandon(what, f, st)
			return ""
		}
		if err := step.run(ctx, st); err != nil {
			s.Fatalf("%s, again: %v", what, err)
		}
	}
	s.checkLeft(f.String())
	return st.digest.String()
}

// givesUp reports whether a caller closes everything after an error that does not last. Of the results that a call is
// given in turn, some are even and some are odd.
func givesUp(f faults.Fault) bool { return (int32(f.At)+f.Result)%2 == 0 }

// mayFail reports whether a call may fail without an error, because the library goes on without it.
func mayFail(call string) bool {
	// A pipeline cache that cannot be made from the data of the file is made without.
	return call == "vkCreatePipelineCache"
}

// checkError checks that an error names the operation, and the call that failed.
func (s *sweep) checkError(what string, f faults.Fault, step step, call string, err error) {
	s.Helper()
	text := err.Error()
	assert.Contains(s, text, step.name, what)
	switch {
	case f.Mode == faults.Lose:
		assert.ErrorIs(s, err, vk.ErrDeviceLost, what)
	case f.Mode == faults.Hang || f.Result == faults.Timeout:
		assert.ErrorIs(s, err, vk.ErrTimeout, what)
	default:
		assert.Contains(s, text, call, what)
	}
	if f.Mode == faults.Return && (f.Result == faults.OutOfHostMemory || f.Result == faults.OutOfDeviceMemory) {
		assert.ErrorIs(s, err, vk.ErrOutOfMemory, what)
	}
	assert.Less(s, len(text), 1000, what)
	assert.True(s, strings.HasPrefix(text, "vk: ") || strings.HasPrefix(text, "colt5: ") || strings.HasPrefix(text, "train: "), "%s: %s", what, text)
}

// abandon closes everything after a fault that lasts.
func (s *sweep) abandon(what string, f faults.Fault, st *state) {
	s.Helper()
	switch {
	case f.Mode == faults.Hang:
		if err := st.closeAll(); !errors.Is(err, vk.ErrTimeout) && err != nil {
			s.Errorf("%s: Close: %v", what, err)
		}
		loader.Forget() // a device that hangs is left to the operating system
	case f.Mode == faults.Return && f.Function == "":
		loader.Inject(faults.Fault{}) // where all calls fail, nobody can know whether the device is idle
		fallthrough
	default:
		if err := st.closeAll(); err != nil && !errors.Is(err, vk.ErrDeviceLost) && f.Function == "" {
			s.Errorf("%s: Close: %v", what, err)
		}
	}
	s.checkLeft(what)
	loader.Inject(faults.Fault{})
}

// checkLeft checks that no object is left.
func (s *sweep) checkLeft(what string) {
	s.Helper()
	if live := loader.Live(); live != "" {
		s.Fatalf("%s: left: %s", what, live)
	}
	if name := loader.Misuse(); name != "" {
		s.Fatalf("%s: %s destroyed an object that does not exist", what, name)
	}
}

// stride is how far apart the faults of a sweep are that run; make test-full runs all.
func stride(short, usual int) int {
	switch {
	case testing.Short():
		return short
	case gputest.Reduced():
		return usual
	}
	return 1
}

// TestEveryCall makes every call of a scenario fail, one in each run, in every way.
func TestEveryCall(t *testing.T) {
	for name, steps := range map[string][]step{"modules": modules(), "transfers": transfers()} {
		if testing.Short() && name == "modules" {
			continue // as in scenario; TestEveryModule compiles no kernel
		}
		t.Run(name, func(t *testing.T) {
			s := newSweep(t, steps)
			ways := []faults.Fault{
				{Result: faults.OutOfHostMemory}, {Result: faults.OutOfDeviceMemory}, {Result: faults.Unknown}, {Mode: faults.Lose},
				{Result: faults.Unknown, Lasting: true},
			}
			for i := 0; i < len(s.calls)*len(ways); i += stride(487, 31) {
				f := ways[i%len(ways)]
				f.At = i/len(ways) + 1
				s.try(f)
			}
		})
	}
}

// TestEveryFunction makes a function fail from its first, middle or last call on, while all others work: everything can be
// closed.
func TestEveryFunction(t *testing.T) {
	s := newSweep(t, scenario())
	count := map[string]int{}
	for _, name := range s.calls {
		count[name]++
	}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(count)) {
		for _, at := range slices.Compact([]int{1, count[name]/2 + 1, count[name]}) {
			if n++; n%stride(11, 3) == 0 {
				s.try(faults.Fault{Function: name, At: at, Result: faults.Unknown, Lasting: true})
			}
		}
	}
}

// TestTimeouts: every wait ends without the fence, once or from then on.
func TestTimeouts(t *testing.T) {
	s := newSweep(t, scenario())
	waits := 0
	for _, name := range s.calls {
		if name == "vkWaitForFences" {
			waits++
		}
	}
	for i := 0; i < waits*2; i += stride(67, 13) {
		f := faults.Fault{Function: "vkWaitForFences", At: i/2 + 1, Result: faults.Timeout}
		if i%2 == 1 {
			f.Mode = faults.Hang
		}
		s.try(f)
	}
}

// TestPolling: where the library polls a fence, as on GPUs, the query fails.
func TestPolling(t *testing.T) {
	needLoader(t)
	loader.PretendGPU(true)
	defer loader.PretendGPU(false)
	s := newSweep(t, transfers()) // few kernels: GPUs have others
	for at := 1; at < 2000; at += at/2 + stride(700, 50) {
		for _, f := range []faults.Fault{{Result: faults.Unknown}, {Result: faults.OutOfHostMemory}, {Mode: faults.Lose}} {
			f.Function, f.At = "vkGetFenceStatus", at
			s.try(f)
		}
	}
}
