package measure

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/results"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Sweep times cases.Lengths at growing sequence lengths, each up to the length at which a run would take seconds or
// exceed the device memory.
type Sweep struct {
	Lengths   []int
	dims      map[string][]int // dimensions after the length, by case
	maxMillis float64          // of a run
}

// NewSweep returns a sweep from 1,024 to 1,048,576 tokens, or, if small, from 128 to 2,048 tokens for CPU drivers.
func NewSweep(small bool) Sweep {
	s := Sweep{dims: map[string][]int{results.BlockLength: {512, 1024}, results.DenseAttention: {8, 64}}, maxMillis: 3000}
	first, last := 1024, 1<<20
	if small {
		first, last, s.maxMillis = 128, 2048, 1000
		s.dims[results.BlockLength] = []int{64, 32}
	}
	for n := first; n <= last; n *= 2 {
		s.Lengths = append(s.Lengths, n)
	}
	return s
}

// Steps is the maximum number of rows.
func (s Sweep) Steps(precisions []pipelines.DType) int {
	return len(cases.Lengths()) * len(precisions) * len(s.Lengths)
}

// Run times the cases in each of the precisions. remark is called with a sentence on each case that ends before the
// last length.
func (s Sweep) Run(ctx context.Context, r *Runner, bar *progress.Bar, precisions []pipelines.DType, remark func(string)) error {
	if r.pace.maxReps > r.pace.minReps { // without -reps: 3 runs suffice if each takes seconds
		defer func(p Pace) { r.pace = p }(r.pace)
		r.pace.minReps, r.pace.warmup = min(r.pace.minReps, 3), min(r.pace.warmup, 1)
	}
	var failed error
	for _, c := range cases.Lengths() {
		for _, p := range precisions {
			err := s.runCase(ctx, r, bar, c, p, remark)
			failed = errors.Join(failed, err)
			if errors.Is(err, command.ErrInterrupted) {
				return failed
			}
		}
	}
	return failed
}

// runCase times a case in a precision.
func (s Sweep) runCase(ctx context.Context, r *Runner, bar *progress.Bar, c cases.Case, p pipelines.DType, remark func(string)) error {
	var measured []float64 // ms, by length
	for _, n := range s.Lengths {
		x := cases.SizedCase{Case: c, Size: append([]int{1, n}, s.dims[c.Name]...), Precision: p}
		if next := s.predict(c.Name, measured); next > s.maxMillis {
			remark(fmt.Sprintf("%s in %s ends before %d tokens, which would take about %s ms per run.", c.Name, p, n, table.Significant(next)))
			return nil
		}
		bar.Describe(x.Title())
		switch err := r.runCase(ctx, x); {
		case errors.Is(err, vk.ErrOutOfMemory), errors.Is(err, vk.ErrUnsupported):
			remark(fmt.Sprintf("%s in %s ends before %d tokens: %v.", c.Name, p, n, err))
			return nil
		case errors.Is(err, command.ErrInterrupted):
			return err
		case err != nil:
			return fmt.Errorf("%s: %w", x.Title(), err)
		}
		bar.Step()
		measured = append(measured, r.gpu)
	}
	return nil
}

// predict extrapolates from the measured lengths to the time of the next one, in ms. It is 0 if nothing was measured
// yet.
func (s Sweep) predict(name string, measured []float64) float64 {
	if len(measured) == 0 {
		return 0
	}
	i := len(measured)
	power := 1.0
	if name == results.DenseAttention {
		power = 2
	}
	return measured[i-1] * math.Pow(float64(s.Lengths[i])/float64(s.Lengths[i-1]), power)
}
