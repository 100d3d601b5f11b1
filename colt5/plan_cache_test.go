package colt5

import (
	"context"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keys returns the keys of the kept plans, latest use first.
func (c *planCache[K]) keys() (list []K) {
	for e := c.used.Front(); e != nil; e = e.Next() {
		list = append(list, e.Value.(planEntry[K]).key)
	}
	return list
}

// TestPlanCache: a plan beyond a limit evicts those used longest ago, not the oldest. The last one is kept in any case.
func TestPlanCache(t *testing.T) {
	dev := gputest.Device(t)
	lists := dev.Stats().CommandLists
	for name, test := range map[string]struct {
		limits PlanLimits
		bytes  []uint64 // of the plans in the order of their use
		uses   []int    // keys, indices into bytes
		want   []int    // keys that are kept
	}{
		"default": {PlanLimits{}, []uint64{1, 1, 1}, []int{0, 1, 2}, []int{2, 1, 0}},
		"count":   {PlanLimits{Count: 2}, []uint64{1, 1, 1}, []int{0, 1, 0, 2}, []int{2, 0}},
		"one":     {PlanLimits{Count: 1}, []uint64{1, 1, 1}, []int{0, 1, 1, 2}, []int{2}},
		"bytes":   {PlanLimits{Bytes: 100}, []uint64{60, 30, 20, 10}, []int{0, 1, 0, 2, 3}, []int{3, 2, 0}},
		"several": {PlanLimits{Bytes: 100}, []uint64{30, 40, 30, 70}, []int{0, 1, 2, 3}, []int{3, 2}},
		"large":   {PlanLimits{Bytes: 100}, []uint64{30, 101}, []int{0, 1}, []int{1}},
		"between": {PlanLimits{Bytes: 100}, []uint64{101, 30}, []int{0, 1}, []int{1}},
		"both":    {PlanLimits{Count: 3, Bytes: 100}, []uint64{50, 50, 1, 1}, []int{0, 1, 2, 3}, []int{3, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c := planCache[int]{limits: test.limits}
			plans := map[int]*plan{}
			for _, key := range test.uses {
				if c.find(key) == nil {
					require.NoError(t, c.evict(dev, 1, test.bytes[key]))
					list, err := dev.NewCommandList(vk.CommandListConfig{})
					require.NoError(t, err)
					plans[key] = &plan{list: list}
					c.add(key, plans[key], test.bytes[key])
				}
				assert.Same(t, plans[key], c.find(key))
			}
			assert.Equal(t, test.want, c.keys())
			assert.Len(t, c.entries, len(test.want))
			sum := uint64(0)
			for _, key := range test.want {
				sum += test.bytes[key]
			}
			assert.Equal(t, sum, c.bytes)
			assert.Equal(t, lists+int64(len(test.want)), dev.Stats().CommandLists, "evicted plans are closed")
			require.NoError(t, c.close())
			assert.Empty(t, c.keys())
			assert.Zero(t, c.bytes)
			assert.Equal(t, lists, dev.Stats().CommandLists)
		})
	}
}

// forwardTokens runs a feedforward of dim 4 on n tokens.
func (fx *fixture) forwardTokens(f *ConditionalRoutedFeedForward, n int) ([]float32, CallStats) {
	fx.t.Helper()
	var stats CallStats
	x, err := FromSlice(fx.t.Context(), fx.dev, normal(1, n*4), 1, n, 4)
	require.NoError(fx.t, err)
	y, err := NewTensor(fx.dev, F32, 1, n, 4)
	require.NoError(fx.t, err)
	require.NoError(fx.t, f.Forward(fx.t.Context(), y, x, FeedForwardOptions{Stats: &stats}))
	got := fx.read(y)
	require.NoError(fx.t, x.Close())
	require.NoError(fx.t, y.Close())
	return got, stats
}

// LimitPlans closes plans that exceed the limits, and later calls keep them. Evicted plans are made again and give the
// same bits.
func TestLimitPlans(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	f := fx.feedForward(4, 2)
	kept := func() (tokens []int) {
		for _, key := range f.plans.keys() {
			tokens = append(tokens, key.dims[-1-dimN])
		}
		return tokens
	}
	lists := fx.dev.Stats().CommandLists
	first := map[int][]float32{}
	for n := 3; n <= 12; n++ {
		first[n], _ = fx.forwardTokens(f, n)
	}
	assert.Len(t, kept(), 10)
	require.NoError(t, f.LimitPlans(t.Context(), PlanLimits{Count: 3}))
	assert.Equal(t, []int{12, 11, 10}, kept())
	for n := range first {
		again, _ := fx.forwardTokens(f, n)
		assert.True(t, sameBits(first[n], again), "%d tokens", n)
	}
	assert.Equal(t, lists+3, fx.dev.Stats().CommandLists)

	_, one := fx.forwardTokens(f, 1000)
	require.NoError(t, f.LimitPlans(t.Context(), PlanLimits{Bytes: one.Workspace * 5 / 2}))
	fx.forwardTokens(f, 999)
	fx.forwardTokens(f, 998)
	assert.Equal(t, []int{998, 999}, kept())
	require.NoError(t, f.LimitPlans(t.Context(), PlanLimits{Bytes: 1}))
	assert.Equal(t, []int{998}, kept())

	assert.EqualError(t, f.LimitPlans(t.Context(), PlanLimits{Count: -1}), "colt5: ConditionalRoutedFeedForward.LimitPlans: PlanLimits.Count is -1, want 0 (the default) or more")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, f.LimitPlans(ctx, PlanLimits{}), context.Canceled)
	assert.Equal(t, []int{998}, kept())
}

// A call that the device has no memory for, because of the workspaces of other plans, closes those plans.
func TestPlansOutOfMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	gputest.CountCase()
	const limit = 32 << 20
	gputest.Simulate(t, simulate.Limits{BufferBytes: limit})
	fx := newFixture(t)
	f := fx.feedForward(4, 200_000) // selects all tokens
	var want []float32
	sum := uint64(0)
	for i, n := range []int{100_000, 100_001, 100_002, 100_003, 100_000} {
		got, stats := fx.forwardTokens(f, n)
		sum += stats.Workspace
		if i == 0 {
			want = got
		}
		if i == 4 {
			assert.True(t, sameBits(want, got))
		}
	}
	assert.Greater(t, sum, uint64(limit))
	assert.Less(t, len(f.plans.keys()), 4)
}

// The layers and plans of a module share equal rotary tables, which are closed with the last plan that reads them.
func TestSharedTables(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := smallEncoder()
	c.RotaryEmb = true
	e := mustNewSeeded(fx, NewEncoder, c)
	bytes, first := fx.dev.Stats().BufferBytes, []float32(nil)
	run := func(n int) (stats CallStats) {
		t.Helper()
		x, y := fx.bytes(make([]uint8, n), 1, n), fx.tensor(F32, 1, n, smallDim)
		require.NoError(t, e.Forward(t.Context(), y, x, BlockOptions{Stats: &stats}))
		if n == 100 {
			if first == nil {
				first = fx.read(y)
			}
			assert.True(t, sameBits(first, fx.read(y)))
		}
		require.NoError(t, x.Close())
		require.NoError(t, y.Close())
		return stats
	}
	table := uint64(4 * pipelines.RotaryTableLen(100, c.HeavyDimHead))
	workspaces := run(100).Workspace - table // Workspace has the table, once for the two layers
	assert.Equal(t, bytes+workspaces+table, fx.dev.Stats().BufferBytes)
	workspaces += run(200).Workspace - table
	assert.Len(t, e.kernels.tables, 1)
	assert.Equal(t, bytes+workspaces+table, fx.dev.Stats().BufferBytes, "two lengths share a table")
	run(300) // has another one
	assert.Len(t, e.kernels.tables, 2)
	run(100)
	require.NoError(t, e.LimitPlans(t.Context(), PlanLimits{Count: 1}))
	assert.Len(t, e.kernels.tables, 1)
	run(100)
	require.NoError(t, e.plans.close())
	assert.Empty(t, e.kernels.tables)
	assert.Equal(t, bytes, fx.dev.Stats().BufferBytes)
	run(100)
}
