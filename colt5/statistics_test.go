package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// checkStatistics compares the statistics of records, with a tolerance for the values that coordinate descent computes.
func checkStatistics(t *testing.T, want, got RoutingRecord) {
	t.Helper()
	assert.InDelta(t, want.ScoreSum, got.ScoreSum, 2e-3)
	assert.InDelta(t, want.Saturated, got.Saturated, 1e-12)
	assert.Equal(t, [3]any{want.KEff, want.Ties, want.Empty}, [3]any{got.KEff, got.Ties, got.Empty})
}

// routeLogits returns the routing record of a router with the given logits [items, n].
func (fx *fixture) routeLogits(c RouterConfig, logits []float32, items, tokens int, mask []uint8) RoutingRecord {
	fx.t.Helper()
	c.Dim = smallDim
	r := mustNew(fx, NewCoordinateDescentRouter, c)
	fx.setParameter(r, "routing_token", unitVector(smallDim, 0))
	n := len(logits) / items
	var list []RoutingRecord
	o := RouterOptions{Routing: &list}
	if mask != nil {
		o.Mask = fx.bytes(mask, items, n)
	}
	out := RouterResult{Scores: fx.tensor(F32, items, 1, r.Slots(n, tokens))}
	require.NoError(fx.t, r.Forward(fx.t.Context(), out, fx.floats(tokensWithChannels(1, smallDim, logits), items, n, smallDim), tokens, o))
	require.Len(fx.t, list, 1)
	assert.Equal(fx.t, "router", list[0].Router)
	assert.Equal(fx.t, logits, list[0].Logits)
	return list[0]
}

// Ties, saturated scores and empty slots, counted by hand. k_eff is 2.25. With logits far apart, two tokens score 1
// after 20 iterations; the remaining 0.25 would reach the next token only after many more.
func TestRouterStatistics(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	logits := []float32{
		5, 1, 5, 5, 0, 0, 0, 0, // three tokens share 2.25; the third is not selected: a tie
		5, 1, 5, 5, 0, 0, 0, 0, // one of the three is masked: no tie, and two scores are 1
		9, 0, 0, 7, 0, 0, 0, 0, // one real token
		5, 5, 5, 5, 5, 5, 5, 5, // no real token
	}
	mask := []uint8{
		1, 1, 1, 1, 1, 1, 1, 1,
		1, 1, 0, 1, 1, 1, 1, 1,
		0, 0, 0, 1, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0,
	}
	d := fx.routeLogits(Default[RouterConfig](), logits, 4, 2, mask)
	assert.Equal(t, [5]int{4, 2, 1, 0, 8}, [5]int{d.Lists, d.K, d.Routes, d.Windows, d.Block})
	for item, want := range []map[int32]float32{{0: 1, 2: 1}, {0: 1, 3: 1}, {3: 1}, {}} {
		assert.Equal(t, want, scoreByToken(d.Indices[2*item:][:2], d.Scores[2*item:][:2], 0), "item %d", item)
	}
	checkStatistics(t, RoutingRecord{KEff: 2.25, ScoreSum: (2.25 + 2 + 1) / 3, Saturated: 3. / 5, Ties: 1, Empty: 3. / 8}, d)

	soft := Default[RouterConfig]()
	soft.StraightThrough = false
	d = fx.routeLogits(soft, logits, 4, 2, mask)
	for item, want := range []map[int32]float64{{0: 0.75, 2: 0.75}, {0: 1, 3: 1}, {3: 1}, {}} {
		got := scoreByToken(d.Indices[2*item:][:2], d.Scores[2*item:][:2], 0)
		assert.Len(t, got, len(want), "item %d", item)
		for token, score := range want {
			assert.InDelta(t, score, got[token], 1e-3, "item %d", item)
		}
	}
	checkStatistics(t, RoutingRecord{KEff: 2.25, ScoreSum: (2.25 + 2 + 1) / 3, Saturated: 3. / 5, Ties: 1, Empty: 3. / 8}, d)
	for i, m := range mask {
		if m == 0 {
			assert.Zero(t, d.SoftScores[i])
		}
	}
}

// Statistics with blocks; the last one is short.
func TestRouterStatisticsOfBlocks(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.RouteBlockSize = 4
	d := fx.routeLogits(config, []float32{1, 3, 3, 0, 7, 0, 0, 0, 2, 8}, 1, 3, nil)
	assert.Equal(t, [5]int{1, 3, 1, 0, 4}, [5]int{d.Lists, d.K, d.Routes, d.Windows, d.Block})
	assert.Equal(t, []int32{1, 4, 9}, d.Indices)
	checkStatistics(t, RoutingRecord{KEff: 1.125, ScoreSum: (1.125 + 1 + 1) / 3, Saturated: 2. / 3, Ties: 1}, d)
}

// Statistics of an autoregressive attention with windows of 4 tokens and two key/value routes.
func TestRouterStatisticsOfWindows(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, causal := range []bool{false, true} {
		gputest.CountCase()
		config := smallAutoregressive()
		config.HeavyWindowSize, config.NumHeavyTokensQ, config.NumHeavyTokensKV, config.CausalQueryRouting = 4, 2, 3, causal
		a := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, config)
		fx.setParameter(a, "kv_router.routing_token", append(unitVector(smallDim, 0), unitVector(smallDim, 1)...))
		fx.setParameter(a, "q_router.routing_token", unitVector(smallDim, 2))
		x := tokensWithChannels(1, smallDim,
			[]float32{0, 9, 1, 8 /**/, 7, 0, 0, 0 /**/, 50, 50},
			[]float32{3, 3, 3, 3 /**/, 3, 3, 3, 3 /**/, 9, 9},
			[]float32{4, 3, 0, 0 /**/, 1, 5, 5, 5 /**/, 2, 6})
		y, list := fx.tensor(F32, 1, 10, smallDim), []RoutingRecord(nil)
		require.NoError(t, a.Forward(t.Context(), y, fx.floats(x, 1, 10, smallDim), AutoregressiveOptions{Routing: &list}))
		require.Len(t, list, 2)
		q, kv := list[0], list[1]
		assert.Equal(t, "q_router", q.Router)
		assert.Equal(t, [5]int{1, 6, 1, 0, 4}, [5]int{q.Lists, q.K, q.Routes, q.Windows, q.Block})
		if causal { // thresholds: logit 3 in the second window, 5 in the third
			assert.ElementsMatch(t, []int32{5, 6, 9}, validIndices(q))
			assert.Equal(t, 0.25, q.Empty)
		} else {
			assert.ElementsMatch(t, []int32{5, 6, 8, 9}, validIndices(q))
			checkStatistics(t, RoutingRecord{KEff: 2.25, ScoreSum: (2.25 + 2) / 2, Saturated: 0.5, Ties: 1}, q)
		}
		assert.Equal(t, []float32{0, 0}, q.Scores[:2], "the first window has no queries")

		assert.Equal(t, "kv_router", kv.Router)
		assert.Equal(t, [4]int{6, 3, 2, 3}, [4]int{kv.Lists, kv.K, kv.Routes, kv.Windows})
		for list, want := range [][]int32{nil, nil, {1, 3, 2}, {0, 1, 2}, {1, 3, 4}, {0, 1, 2}} {
			at := list * 3
			assert.ElementsMatch(t, want, validIndices(RoutingRecord{Indices: kv.Indices[at:][:3], Scores: kv.Scores[at:][:3]}), "list %d", list)
		}
		// With four equal logits, all four score 1 after 20 iterations. Eight equal logits share 3.375.
		checkStatistics(t, RoutingRecord{KEff: 3.375, ScoreSum: (3 + 4 + 3 + 3.375) / 4, Saturated: 0.75, Ties: 2}, kv)
		assert.Equal(t, make([]float32, 6), kv.SoftScores[2*10+4:][:6], "the second window routes keys from the first only")
	}
}

// Routing records have the names of the routers in the stack. Routers that select nothing have no record. Calls without
// Options.Routing keep no records: they have fewer steps and less workspace.
func TestRoutingRecords(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	e := mustNewSeeded(fx, NewEncoder, smallEncoder())
	x, y := fx.bytes(make([]uint8, smallN), 1, smallN), fx.tensor(F32, 1, smallN, smallDim)
	var before, recording, after CallStats
	require.NoError(t, e.Forward(t.Context(), y, x, BlockOptions{Stats: &before}))
	names := func(o BlockOptions) (names []string) {
		list := []RoutingRecord{{Router: "of another call"}}
		o.Routing = &list
		require.NoError(t, e.Forward(t.Context(), y, x, o))
		for _, d := range list {
			names = append(names, d.Router)
		}
		return names
	}
	assert.Equal(t, []string{
		"layers.0.conditional_attn.q_router", "layers.0.conditional_attn.kv_router", "layers.0.conditional_ff.router",
		"layers.1.conditional_attn.q_router", "layers.1.conditional_attn.kv_router", "layers.1.conditional_ff.router",
	}, names(BlockOptions{Stats: &recording}))
	assert.Equal(t, []string{"layers.0.conditional_attn.kv_router", "layers.1.conditional_attn.kv_router"},
		names(BlockOptions{NumHeavyAttnTokensQ: smallN, NumHeavyFFTokens: smallN}))
	assert.Empty(t, names(BlockOptions{NumHeavyAttnTokensQ: smallN, NumHeavyAttnTokensKV: smallN, NumHeavyFFTokens: smallN}))
	require.NoError(t, e.Forward(t.Context(), y, x, BlockOptions{Stats: &after}))
	assert.Equal(t, before.StepNames, after.StepNames)
	assert.Equal(t, before.Workspace, after.Workspace)
	assert.Less(t, before.Workspace, recording.Workspace)
	assert.Less(t, len(before.StepNames), len(recording.StepNames))
}
