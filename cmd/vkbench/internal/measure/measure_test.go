package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/cmd/vkbench/internal/cases"
	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/internal/cli/progress"
	"github.com/colt5-vulkan/colt5/internal/cli/table"
	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestInvalidResults requires that no workload with invalid results is timed.
func TestInvalidResults(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	nan := float32(math.NaN())
	for _, test := range []struct {
		name   string
		floats []float32
		ints   []int32
		want   string
	}{
		{"valid", []float32{1, 2, 3}, []int32{4, 0, 4, 3}, ""},
		{"NaN", []float32{1, 2, nan}, nil, "y: element 2 is NaN"},
		{"infinite", []float32{1, float32(math.Inf(1)), 3}, nil, "y: element 1 is +Inf"},
		{"constant", []float32{1, 1, 1}, nil, "y: all 3 elements are 1"},
		{"not written", nil, nil, "y: element 0 is NaN"},
		{"negative", []float32{1, 2, 3}, []int32{0, -1, 2, 3}, "indices: element 1 is -1"},
		{"too large", []float32{1, 2, 3}, []int32{0, 1, 2, 5}, "indices: element 3 is 5"},
		{"duplicate", []float32{1, 2, 3}, []int32{0, 1, 2, 2}, "indices: element 3 is 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			r := NewRunner(dev, NewPace(true, 1, 0))
			r.Table = table.New(&out, &out, "csv", r.Columns(nil)...)
			runs := 0
			err := r.runCase(t.Context(), cases.SizedCase{Case: cases.Case{Name: "case", Setup: func(b *cases.Builder, _ []int) (*cases.Workload, error) {
				y, indices := b.Tensor(colt5.F32, 3), b.Tensor(colt5.I32, 2, 2)
				run := func(ctx context.Context) error {
					runs++
					if test.floats == nil {
						return nil
					}
					if test.ints == nil {
						return y.Write(ctx, test.floats)
					}
					return errors.Join(y.Write(ctx, test.floats), indices.Write(ctx, test.ints))
				}
				stats := func() (colt5.CallStats, error) { return colt5.CallStats{Time: time.Millisecond, Bytes: 8}, nil }
				return &cases.Workload{Run: run, Stats: stats, Outputs: []cases.Output{cases.FloatOutput("y", y), cases.IndexOutput("indices", indices, 5)}}, nil
			}}, Size: []int{3}})
			if test.want != "" {
				assert.ErrorContains(t, err, test.want)
				assert.Equal(t, 1, runs)
				assert.Empty(t, out.String())
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 2, runs)
			assert.Contains(t, out.String(), "case,3,f32,1,1,1,")
		})
	}
	assert.Zero(t, dev.Stats().Buffers)
}

// TestInterrupted cancels the context during a run: the error says so, once, and no row is written.
func TestInterrupted(t *testing.T) {
	dev := gputest.Device(t)
	gputest.CountCase()
	ctx, stop := context.WithCancel(t.Context())
	var out bytes.Buffer
	r := NewRunner(dev, NewPace(true, 1, 0))
	r.Table = table.New(&out, &out, "jsonl", r.Columns(nil)...)
	runs := 0
	x := cases.SizedCase{Case: cases.Case{Name: "case", Setup: func(*cases.Builder, []int) (*cases.Workload, error) {
		return &cases.Workload{Run: func(ctx context.Context) error {
			runs++
			stop()
			return fmt.Errorf("waiting: %w", ctx.Err())
		}}, nil
	}}, Size: []int{3}}
	assert.EqualError(t, r.RunAll(ctx, progress.New(&out, 2), []cases.SizedCase{x, x}), "interrupted")
	assert.Equal(t, 1, runs)
	assert.Empty(t, out.String())
}

func TestQuantile(t *testing.T) {
	list := []float64{1, 2, 3, 4, 5}
	assert.Equal(t, 3.0, quantile(list, 0.5))
	assert.InDelta(t, 1.4, quantile(list, 0.1), 1e-12)
	assert.InDelta(t, 4.6, quantile(list, 0.9), 1e-12)
	assert.Equal(t, 2.5, quantile([]float64{2, 3}, 0.5))
	assert.Equal(t, 7.0, quantile([]float64{7}, 0.9))
}

func TestPeakShare(t *testing.T) {
	r, half := &Runner{}, cases.SizedCase{Precision: pipelines.F16}
	assert.Nil(t, r.peakShare(cases.SizedCase{}, 1, 1))
	r.copyRate, r.flopRate = 100, map[pipelines.DType]float64{pipelines.F32: 1000}
	assert.Equal(t, table.Share(0.5), r.peakShare(cases.SizedCase{}, 50, 400))
	assert.Equal(t, table.Share(0.9), r.peakShare(cases.SizedCase{}, 50, 900))
	assert.Nil(t, r.peakShare(half, 50, 900))
	r.flopRate[pipelines.F16] = 9000
	assert.Equal(t, table.Share(0.5), r.peakShare(half, 50, 900))
	r.Info.Caps.CPU = true
	assert.Nil(t, r.peakShare(half, 50, 900), "a CPU driver has no peaks")
	assert.Equal(t, 2000.0, rate(1, 0.5))
	assert.Zero(t, rate(1, 0))
	assert.Nil(t, scaled(0, 1e9))
}

func TestPace(t *testing.T) {
	assert.Equal(t, Pace{minReps: 7, maxReps: 7, budget: time.Second, warmup: 2}, NewPace(false, 7, 2))
	assert.Less(t, NewPace(true, 0, -1).minReps, NewPace(false, 0, -1).minReps)
}
