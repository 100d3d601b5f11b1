package colt5

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReplay: a replay of a run's own lists has its bits and gradients. One of other lists, in any order, has those lists,
// and gradients that agree with differences of its result.
func TestReplay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	fx := newFixture(t)
	for _, s := range fx.testModules(F32) {
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			fx := fx.sub(t)
			const items = 2
			g, shape := fx.moduleGraph(s), append([]int{items}, s.y...)
			v := s.randomInput(1, items, false)
			tensors, y := fx.graphInputs(s, items, v), fx.tensor(F32, shape...)
			tensors["y"] = y
			run := func(o GraphOptions) []float32 {
				require.NoError(t, y.Write(t.Context(), nanFill(y.Len())))
				require.NoError(t, g.Run(t.Context(), tensors, o))
				return fx.readFinite(y)
			}
			var own, other, again []RoutingRecord
			want := run(GraphOptions{Routing: &own})
			if len(own) == 0 {
				t.Skip("no routers")
			}
			assert.True(t, sameBits(want, run(GraphOptions{Replay: own})), "the run's own lists")
			swapped := maps.Clone(tensors)
			maps.Copy(swapped, fx.graphInputs(s, items, s.randomInput(2, items, false)))
			require.NoError(t, g.Run(t.Context(), swapped, GraphOptions{Routing: &other}))
			reversed := reverseSlots(other)
			got := run(GraphOptions{Replay: reversed, Routing: &again})
			assert.False(t, sameBits(want, got), "other lists")
			assert.Equal(t, selections(other), selections(again))
			assert.True(t, sameBits(got, run(GraphOptions{Replay: other})), "another order")
			assert.True(t, sameBits(want, run(GraphOptions{})), "without Replay")

			parameters := s.module.Parameters()
			r := backwardRun{graph: g, inputs: tensors, y: y}
			gradients, err := NewGradients(fx.dev, parameters)
			require.NoError(t, err)
			fx.closeAtEnd(gradients)
			dy := normal(7, y.Len())
			r.options.Backward = &Backward{Upstream: feed{"y": fx.floats(dy, shape...)}, Parameters: gradients}
			plain := fx.gradients(r)
			r.options.Replay = own
			assert.Equal(t, plain, fx.gradients(r), "the run's own lists")
			r.options.Replay = other
			fx.checkDifferences(parameters, fx.gradients(r), func() float64 { return dot(run(GraphOptions{Replay: other}), dy) })
		})
	}
}

// checkDifferences compares the gradient of the last matrix of a heavy branch, of which y is a smooth function, with
// differences of a loss in one direction.
func (fx *fixture) checkDifferences(parameters []Parameter, gradients map[string][]float32, loss func() float64) {
	fx.t.Helper()
	i := len(parameters) - 1
	for ; !strings.HasSuffix(parameters[i].Name, "to_out.weight") && !strings.HasSuffix(parameters[i].Name, "heavy_ff.3.weight"); i-- {
	}
	fx.checkDifference(parameters[i], gradients, loss)
}

// checkDifference compares the gradient of a parameter with a difference of the loss in one direction.
func (fx *fixture) checkDifference(p Parameter, gradients map[string][]float32, loss func() float64) {
	fx.t.Helper()
	values := fx.read(p.Tensor)
	direction := normal(8, len(values))
	at := func(step float32) float64 {
		moved := slices.Clone(values)
		for j := range moved {
			moved[j] += step * direction[j]
		}
		require.NoError(fx.t, p.Tensor.Write(fx.t.Context(), moved))
		return loss()
	}
	const step = 1.0 / 64
	slope := (at(step) - at(-step)) / (2 * step)
	at(0)
	want := dot(gradients[p.Name], direction)
	assert.InDelta(fx.t, slope, want, 0.01*max(1, math.Sqrt(dot(gradients[p.Name], gradients[p.Name]))), p.Name)
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// reverseSlots has the lists of records in reverse order of the slots of each block, with index 7 in empty ones.
func reverseSlots(records []RoutingRecord) []RoutingRecord {
	list := slices.Clone(records)
	for i, r := range list {
		blocks := 1
		if r.Windows == 0 {
			blocks = (r.N + r.Block - 1) / r.Block
		}
		r.Indices, r.Scores = slices.Clone(r.Indices), slices.Clone(r.Scores)
		for block := range slices.Chunk(r.Indices, r.K/blocks) {
			slices.Reverse(block)
		}
		for block := range slices.Chunk(r.Scores, r.K/blocks) {
			slices.Reverse(block)
		}
		for slot, score := range r.Scores {
			if score == 0 {
				r.Indices[slot] = 7
			}
		}
		list[i] = RoutingRecord{Router: r.Router, Lists: r.Lists, K: r.K, Indices: r.Indices, Scores: r.Scores}
	}
	return list
}

// selections is the tokens of each list of records, by router.
func selections(records []RoutingRecord) map[string][][]int32 {
	all := map[string][][]int32{}
	for _, r := range records {
		for list := range r.Lists {
			var tokens []int32
			for slot := list * r.K; slot < (list+1)*r.K; slot++ {
				if r.Scores[slot] != 0 {
					tokens = append(tokens, r.Indices[slot])
				}
			}
			slices.Sort(tokens)
			all[r.Router] = append(all[r.Router], tokens)
		}
	}
	return all
}

// TestReplayErrors: records that do not fit name the router, and leave the graph usable.
func TestReplayErrors(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, smallAutoregressive())
	g := fx.graph()
	x, y := g.Input("x", F32, 0, 0, 0), g.Value("attention")
	require.NoError(t, m.Forward(t.Context(), y, x, AutoregressiveOptions{}))
	g.Output("y", y)
	tensors := feed{"x": fx.floats(normal(1, smallN*smallDim), 1, smallN, smallDim), "y": fx.tensor(F32, 1, smallN, smallDim)}
	var records []RoutingRecord
	require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{Routing: &records}))
	require.Len(t, records, 2) // queries: windows of 16, 5 of each; keys: prefixes of 0, 16, 32, 9 of each, two routes
	for _, test := range []struct {
		change func(q, kv *RoutingRecord)
		want   string
	}{
		{func(q, kv *RoutingRecord) { q.Router = "x" }, "GraphOptions.Replay has no record of attention.q_router, want one of every router that selects, 2"},
		{func(q, kv *RoutingRecord) { q.Router = kv.Router }, "GraphOptions.Replay has the router attention.kv_router twice"},
		{func(q, kv *RoutingRecord) { q.K-- }, "GraphOptions.Replay of attention.q_router: it has 1 lists of 14 slots, 15 Indices and 15 Scores, want 1 lists of 15 slots, and 15 of both"},
		{func(q, kv *RoutingRecord) { kv.Scores = kv.Scores[1:] }, "GraphOptions.Replay of attention.kv_router: it has 6 lists of 9 slots, 54 Indices and 53 Scores, want 6"},
		{func(q, kv *RoutingRecord) { q.Indices[5] = 32 }, "slot 5 of list 0 has token 32, want 16 to 31"},
		{func(q, kv *RoutingRecord) { q.Indices[5] = 15 }, "slot 5 of list 0 has token 15, want 16 to 31"},
		{func(q, kv *RoutingRecord) { q.Scores[0] = 1 }, "slot 0 of list 0 has token 0, want an empty slot"},
		{func(q, kv *RoutingRecord) { q.Indices[5], q.Indices[6], q.Scores[6] = 17, 17, 1 }, "list 0 has token 17 twice"},
		{func(q, kv *RoutingRecord) { kv.Indices[2*9] = 16 }, "slot 0 of list 2 has token 16, want 0 to 15"},
		{func(q, kv *RoutingRecord) { kv.Indices[2*9] = -1 }, "slot 0 of list 2 has token -1, want 0 to 15"},
		{func(q, kv *RoutingRecord) { kv.Scores[9] = 1 }, "slot 0 of list 1 has token 0, want an empty slot"},
	} {
		list := slices.Clone(records)
		for i := range list {
			list[i].Indices, list[i].Scores = slices.Clone(list[i].Indices), slices.Clone(list[i].Scores)
		}
		q, kv := &list[0], &list[1]
		q.Scores[5], kv.Scores[2*9] = 1, 1
		test.change(q, kv)
		assert.ErrorContains(t, g.Run(t.Context(), tensors, GraphOptions{Replay: list}), test.want)
	}
	assert.ErrorContains(t, g.Run(t.Context(), tensors, GraphOptions{Replay: append(slices.Clone(records), RoutingRecord{Router: "more"})}),
		"GraphOptions.Replay has a record of more, which is no router that selects in this run")
	require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{Replay: records}))

	config := Default[RouterConfig]()
	config.Dim = smallDim
	router := mustNewSeeded(fx, NewCoordinateDescentRouter, config)
	alone := fx.graph()
	indices := alone.Value("router")
	require.NoError(t, router.Forward(t.Context(), RouterResult{Indices: indices}, alone.Input("x", F32, 0, 0, 0), 6, RouterOptions{}))
	alone.Output("indices", indices)
	assert.ErrorContains(t, alone.Run(t.Context(), feed{"x": tensors["x"], "indices": fx.tensor(I32, 1, 1, 6)}, GraphOptions{Replay: records}),
		"a CoordinateDescentRouter selects by itself")
}
