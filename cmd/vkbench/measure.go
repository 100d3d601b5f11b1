package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// workload is a case at a size on the device, ready to run.
type workload struct {
	run     func() error
	last    func() (colt5.CallStats, error) // of the last run
	results []result
}

// benchmark runs workloads and writes a table.
type benchmark struct {
	ctx   context.Context
	dev   *vk.Device
	pace  pace
	table *table
	steps bool // the table of steps
	base  *baseline
	info  vk.Info
	gpu   float64 // median of the last row, ms

	// The roofs: bytes and operations a second; 0: not measured yet. That of 16 bits is the best of their cooperative matrices.
	copyRate float64
	flopRate map[pipelines.DType]float64
}

// timing is what a workload took.
type timing struct {
	gpu, wall []float64   // ms, rising
	steps     [][]float64 // ms, rising, by step
	stats     colt5.CallStats
	peak      uint64 // bytes of device memory in use at once
}

// newBenchmark has no table yet.
func newBenchmark(ctx context.Context, dev *vk.Device, p pace) *benchmark {
	return &benchmark{ctx: ctx, dev: dev, pace: p, info: dev.Info(), flopRate: map[pipelines.DType]float64{}}
}

// columns are those of the table for cases.
func (b *benchmark) columns(todo []sized) []column {
	var name, shape int
	for _, x := range todo {
		name, shape = max(name, len(x.name)), max(shape, len(x.shape()))
	}
	columns := []column{words("name", "name", name), words("shape", "shape", shape), words("precision", "precision", 0)}
	if b.steps {
		columns = append(columns, numbers("step", "step", 0), words("kernel", "kernel", 20), numbers("gpu_ms", "GPU ms", 8),
			numbers("time_share", "of all", 5), numbers("gb_per_s", "GB/s", 6), numbers("tflop_per_s", "TFLOP/s", 8))
	} else {
		columns = append(columns, numbers("gpu_ms", "GPU ms", 8), numbers("gpu_p10_ms", "p10", 8), numbers("gpu_p90_ms", "p90", 8),
			numbers("wall_ms", "wall ms", 8), numbers("gb_per_s", "GB/s", 6), numbers("tflop_per_s", "TFLOP/s", 8),
			numbers("roof_share", "of roof", 5), numbers("workspace_bytes", "workspace", 10),
			numbers("peak_bytes", "peak memory", 10), numbers("runs", "runs", 0))
		columns = append(columns, b.base.columns()...)
	}
	return append(columns, data("device"), data("driver"))
}

// remarks are what is to be known before the rows.
func (b *benchmark) remarks() []string {
	list := []string{fmt.Sprintf("%s, %s, Vulkan %s", b.info.Name, driverOf(b.info), b.info.API)}
	if b.info.Caps.CPU {
		list = append(list, noGPUFigures)
	}
	return append(list, b.base.about(b.info)...)
}

const noGPUFigures = "This is a driver that runs on the processor: the times are no GPU figures."

// all runs cases, and goes on after failures.
func (b *benchmark) all(bar *progress, todo []sized) error {
	var failed error
	for _, x := range todo {
		bar.at(x.title())
		err := b.run(x)
		if errors.Is(err, errInterrupted) {
			return errors.Join(failed, err)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", x.title(), err))
		}
		bar.next()
	}
	return failed
}

// run times a case and writes its rows.
func (b *benchmark) run(x sized) error {
	if err := interrupted(b.ctx); err != nil {
		return err
	}
	b.dev.ResetPeak()
	before := b.dev.Stats().BufferBytes
	var t timing
	err := onStage(b.dev, func(s *stage) error {
		w, err := x.setup(&benchStage{stage: s, profile: b.steps, precision: x.precision}, x.size)
		if s.err != nil { // what is more often than not err, or the cause of it
			err = s.err
		}
		if err != nil {
			return err
		}
		if err := w.check(); err != nil {
			return err
		}
		t, err = b.time(w)
		t.peak = b.dev.Stats().PeakBytes - before
		return err
	})
	if err != nil {
		return err
	}
	if b.steps {
		b.stepRows(x, t)
	} else {
		b.row(x, t)
	}
	return nil
}

// time runs a workload at the benchmark's pace.
func (b *benchmark) time(w *workload) (timing, error) {
	start := time.Now()
	for i := 0; i < b.pace.warmup || time.Since(start) < b.pace.warmupBudget; i++ {
		if err := b.once(w); err != nil {
			return timing{}, err
		}
	}
	var t timing
	start = time.Now()
	for i := 0; i < b.pace.reps || i < b.pace.most && time.Since(start) < b.pace.budget; i++ {
		at := time.Now()
		if err := b.once(w); err != nil {
			return timing{}, err
		}
		t.wall = append(t.wall, inMillis(time.Since(at)))
		stats, err := w.last()
		if err != nil {
			return timing{}, err
		}
		t.gpu = append(t.gpu, inMillis(stats.Time))
		t.steps = slices.Grow(t.steps, len(stats.StepTimes))[:len(stats.StepTimes)]
		for j, s := range stats.StepTimes {
			t.steps[j] = append(t.steps[j], inMillis(s.Time))
		}
		t.stats = stats
	}
	for _, list := range append([][]float64{t.gpu, t.wall}, t.steps...) {
		slices.Sort(list)
	}
	return t, nil
}

// once runs a workload, unless the user is done.
func (b *benchmark) once(w *workload) error {
	if err := interrupted(b.ctx); err != nil {
		return err
	}
	return w.run()
}

func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile of a rising list, between its neighbours where it falls between.
func quantile(list []float64, q float64) float64 {
	at := q * float64(len(list)-1)
	low := int(at)
	high := min(low+1, len(list)-1)
	return list[low] + (at-float64(low))*(list[high]-list[low])
}

func (b *benchmark) row(x sized, t timing) {
	gpu := quantile(t.gpu, 0.5)
	bytes, flops := rate(t.stats.Bytes, gpu), rate(t.stats.Flops, gpu)
	switch x.name {
	case copyRoof:
		b.copyRate = bytes
	case matmulRoof, matrixRoof + "f32":
		b.flopRate[x.precision] = max(b.flopRate[x.precision], flops)
	}
	b.gpu = gpu
	values := []any{x.name, x.shape(), x.format(), millis(gpu), millis(quantile(t.gpu, 0.1)), millis(quantile(t.gpu, 0.9)),
		millis(quantile(t.wall, 0.5)), scaled(bytes, 1e9), scaled(flops, 1e12), b.ofRoof(x, bytes, flops), size(t.stats.Workspace), size(t.peak), len(t.gpu)}
	values = append(values, b.base.cells(x.title(), gpu)...)
	b.table.row(append(values, b.info.Name, driverOf(b.info))...)
}

// rate is work a second.
func rate(work, ms float64) float64 {
	if ms <= 0 {
		return 0 // shorter than the device's clock can tell
	}
	return work / ms * 1e3
}

// scaled is a rate in a unit, nil if there is none.
func scaled(rate, unit float64) any {
	if rate == 0 {
		return nil
	}
	return rate / unit
}

// ofRoof is the larger of the shares of bandwidth and of arithmetic; nil before the roofs are known.
func (b *benchmark) ofRoof(x sized, bytes, flops float64) any {
	most := b.flopRate[x.precision]
	if b.copyRate == 0 || most == 0 || x.matrix.M > 0 {
		return nil
	}
	return share(max(bytes/b.copyRate, flops/most))
}

func (b *benchmark) stepRows(x sized, t timing) {
	var all float64
	for _, s := range t.steps {
		all += quantile(s, 0.5)
	}
	for i, s := range t.stats.StepTimes {
		ms := quantile(t.steps[i], 0.5)
		var part any
		if all > 0 {
			part = share(ms / all)
		}
		b.table.row(x.name, x.shape(), x.format(), i+1, s.Name, millis(ms), part, scaled(rate(s.Bytes, ms), 1e9), scaled(rate(s.Flops, ms), 1e12),
			b.info.Name, driverOf(b.info))
	}
}
