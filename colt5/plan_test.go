package colt5

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// planMaker makes plans of an encoder of six blocks for new lengths, with all kernels compiled.
func planMaker(t testing.TB) (makePlan func(n int) time.Duration) {
	dev := gputest.Device(t)
	c := Default[EncoderConfig]()
	c.Depth, c.NumTokens, c.Dim = 6, 256, 64
	c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = 64, 64, 64
	e, err := NewEncoder(t.Context(), dev, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	makePlan = func(n int) time.Duration {
		x, err := NewTensor(dev, U8, 1, n)
		require.NoError(t, err)
		y, err := NewTensor(dev, F32, 1, n, c.Dim)
		require.NoError(t, err)
		call := e.config.call(y, x, BlockOptions{})
		require.NoError(t, call.check(dev))
		start := time.Now()
		p, err := newPlan(t.Context(), dev, e.name, e.program(&call), false, &e.plans)
		took := time.Since(start)
		require.NoError(t, err)
		require.NoError(t, p.close())
		require.NoError(t, x.Close())
		require.NoError(t, y.Close())
		return took
	}
	for n := range 3 {
		makePlan(400 + n)
	}
	return makePlan
}

// A plan of a new length costs little host memory, and so little time: when every product hashed its SPIR-V, it was
// 21 MB and 23 ms.
func TestPlanCost(t *testing.T) {
	gputest.CountCase()
	makePlan := planMaker(t)
	const plans = 10
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := range plans {
		makePlan(500 + n)
	}
	runtime.ReadMemStats(&after)
	assert.Less(t, (after.TotalAlloc-before.TotalAlloc)/plans, uint64(1<<20), "bytes")
	assert.Less(t, (after.Mallocs-before.Mallocs)/plans, uint64(6000), "allocations")
}

// BenchmarkNewPlan measures the host time of making the plan of a new length: the median and the least.
func BenchmarkNewPlan(b *testing.B) {
	makePlan := planMaker(b)
	var times []time.Duration
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		times = append(times, makePlan(400+i%200))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "us-median")
	b.ReportMetric(float64(times[0].Microseconds()), "us-least")
}
