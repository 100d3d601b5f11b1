// Package measure times cases on a device and writes a row for each: medians and percentiles, achieved rates, their
// share of the measured peaks, and a comparison with an earlier run.
package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/command"
	"github.com/colt5-vulkan/colt5/internal/cli/hostinfo"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/scope"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// Runner times cases and writes a table.
type Runner struct {
	Table    *table.Table // with the Columns of the runner
	Steps    bool         // write a row per step of a case
	Baseline *Baseline    // nil: none
	Info     vk.Info      // of the device

	Recompute int // colt5.Backward.Recompute of backward passes

	dev  *vk.Device
	host hostinfo.Info
	pace Pace
	gpu  float64 // median GPU time of the last row, ms

	// Measured peaks, bytes and operations per second; 0: not measured yet. The peak of a 16-bit precision is the best
	// of its cooperative matrices.
	copyRate float64
	flopRate map[pipelines.DType]float64
}

// timing holds the measurements of a case. Times are in ms, ascending.
type timing struct {
	gpu, wall []float64
	steps     [][]float64 // by step
	stats     colt5.CallStats
	peak      uint64 // bytes of device memory in use at once
}

// NewRunner returns a runner without a table.
func NewRunner(dev *vk.Device, p Pace) *Runner {
	return &Runner{dev: dev, host: hostinfo.Read(), pace: p, Info: dev.Info(), flopRate: map[pipelines.DType]float64{}}
}

// RunAll times cases and continues after failures. It stops with ErrInterrupted when ctx is cancelled.
func (r *Runner) RunAll(ctx context.Context, bar *progress.Bar, list []cases.SizedCase) error {
	var failed error
	for _, x := range list {
		bar.Describe(x.Title())
		err := r.runCase(ctx, x)
		if errors.Is(err, command.ErrInterrupted) {
			return errors.Join(failed, err)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", x.Title(), err))
		}
		bar.Step()
	}
	return failed
}

// runCase times a case and writes its rows.
func (r *Runner) runCase(ctx context.Context, x cases.SizedCase) error {
	if err := command.Interrupted(ctx); err != nil {
		return err
	}
	r.dev.ResetPeak()
	before := r.dev.Stats().BufferBytes
	var t timing
	err := scope.Run(ctx, r.dev, func(s *scope.Scope) error {
		w, err := x.Setup(&cases.Builder{Scope: s, Profile: r.Steps, Precision: x.Precision, Recompute: r.Recompute}, x.Size)
		if s.Err() != nil { // usually it is err, or the cause of err
			err = s.Err()
		}
		if err != nil {
			return err
		}
		if err := w.Validate(ctx); err != nil {
			return err
		}
		t, err = r.time(ctx, w)
		t.peak = r.dev.Stats().PeakBytes - before
		return err
	})
	if err != nil {
		return command.InterruptedBy(ctx, err)
	}
	if r.Steps {
		r.writeSteps(x, t)
	} else {
		r.writeRow(x, t)
	}
	return nil
}

// time runs a workload at the runner's pace.
func (r *Runner) time(ctx context.Context, w *cases.Workload) (timing, error) {
	start := time.Now()
	for i := 0; i < r.pace.warmup || time.Since(start) < r.pace.warmupBudget; i++ {
		if err := runOnce(ctx, w); err != nil {
			return timing{}, err
		}
	}
	var t timing
	start = time.Now()
	for i := 0; i < r.pace.minReps || i < r.pace.maxReps && time.Since(start) < r.pace.budget; i++ {
		begin := time.Now()
		if err := runOnce(ctx, w); err != nil {
			return timing{}, err
		}
		t.wall = append(t.wall, table.InMillis(time.Since(begin)))
		stats, err := w.Stats()
		if err != nil {
			return timing{}, err
		}
		t.gpu = append(t.gpu, table.InMillis(stats.Time))
		t.steps = slices.Grow(t.steps, len(stats.StepTimes))[:len(stats.StepTimes)]
		for j, s := range stats.StepTimes {
			t.steps[j] = append(t.steps[j], table.InMillis(s.Time))
		}
		t.stats = stats
	}
	for _, list := range append([][]float64{t.gpu, t.wall}, t.steps...) {
		slices.Sort(list)
	}
	return t, nil
}

// runOnce runs a workload unless ctx is cancelled.
func runOnce(ctx context.Context, w *cases.Workload) error {
	if err := command.Interrupted(ctx); err != nil {
		return err
	}
	return w.Run(ctx)
}

// quantile interpolates linearly in an ascending list.
func quantile(list []float64, q float64) float64 {
	at := q * float64(len(list)-1)
	low := int(at)
	high := min(low+1, len(list)-1)
	return list[low] + (at-float64(low))*(list[high]-list[low])
}
