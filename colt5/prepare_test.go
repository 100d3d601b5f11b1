package colt5

import (
	"context"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// prepare calls Prepare of a module, with the arguments that its Forward would have.
func (s moduleCase) prepare(ctx context.Context, y *Tensor, in callArgs) error {
	method := reflect.ValueOf(s.module).MethodByName("Prepare")
	args := []reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(y), reflect.ValueOf(in.x)}
	if s.context != nil {
		args = append(args, reflect.ValueOf(in.context))
	}
	options := reflect.New(method.Type().In(len(args))).Elem()
	for name, value := range map[string]any{"Mask": in.mask, "ContextMask": in.contextMask, "Stats": in.stats, "Routing": in.routing} {
		if field := options.FieldByName(name); field.IsValid() {
			field.Set(reflect.ValueOf(value))
		}
	}
	err, _ := method.Call(append(args, options))[0].Interface().(error)
	return err
}

// checkPrepared checks that prepare makes the plan of a call without running it, that the call then makes nothing, and
// that it writes y.
func (fx *fixture) checkPrepared(prepare, call func() error, y ...*Tensor) {
	t := fx.t
	t.Helper()
	for _, y := range y {
		if y.DType() == F32 {
			require.NoError(t, y.Write(t.Context(), nanFill(y.Len())))
		}
	}
	before := fx.dev.Stats()
	require.NoError(t, prepare())
	prepared := fx.dev.Stats()
	assert.Equal(t, before.CommandLists+1, prepared.CommandLists)
	assert.Greater(t, prepared.Kernels, before.Kernels, "the first call compiles kernels")
	for _, y := range y {
		if y.DType() == F32 {
			assert.False(t, slices.ContainsFunc(fx.read(y), func(v float32) bool { return !math.IsNaN(float64(v)) }), "something ran")
		}
	}
	require.NoError(t, prepare(), "once more")
	require.NoError(t, call())
	after := fx.dev.Stats()
	assert.Equal(t, prepared.CommandLists, after.CommandLists, "the call made another plan")
	assert.Equal(t, prepared.Kernels, after.Kernels, "the call compiled kernels")
	assert.Equal(t, prepared.Buffers, after.Buffers, "the call allocated memory")
	for _, y := range y {
		if y.DType() == F32 {
			fx.readFinite(y)
		}
	}
}

// TestPrepare: every module makes its plans in advance, for calls with and without masks, statistics and routing records.
func TestPrepare(t *testing.T) {
	fx := newFixture(t)
	for _, k := range moduleTypes(F32) {
		for _, all := range []bool{false, true} {
			t.Run(k.name, func(t *testing.T) {
				gputest.CountCase()
				fx := fx.sub(t)
				s := k.create(fx)
				forward, prepare := reflect.TypeOf(s.module), reflect.TypeOf(s.module)
				f, _ := forward.MethodByName("Forward")
				p, ok := prepare.MethodByName("Prepare")
				require.True(t, ok)
				require.Equal(t, f.Type, p.Type, "Prepare takes the arguments of Forward")

				y, in := fx.upload(s, 2, s.randomInput(1, 2, all))
				stats, routing := CallStats{Flops: 1}, []RoutingRecord{{K: 1}}
				if all {
					in.stats, in.routing = &stats, &routing
				}
				fx.checkPrepared(func() error {
					err := s.prepare(t.Context(), y, in)
					assert.Equal(t, CallStats{Flops: 1}, stats, "Prepare fills no statistics")
					assert.Equal(t, []RoutingRecord{{K: 1}}, routing)
					return err
				}, func() error { return s.forward(t.Context(), y, in) }, y)
			})
		}
	}
}

// TestPrepareParts is TestPrepare for the modules that moduleTypes does not have.
func TestPrepareParts(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	router := Default[RouterConfig]()
	router.Dim = 16
	r := mustNew(fx, NewCoordinateDescentRouter, router)
	x, s := fx.floats(normal(1, 2*64*16), 2, 64, 16), fx.floats(normal(2, 2*64), 2, 64)
	out := RouterResult{Indices: fx.tensor(I32, 2, 1, 8), Scores: fx.tensor(F32, 2, 1, 8)}
	fx.checkPrepared(func() error { return r.Prepare(t.Context(), out, x, 8, RouterOptions{}) },
		func() error { return r.Forward(t.Context(), out, x, 8, RouterOptions{}) }, out.Scores)
	assert.ErrorContains(t, r.Prepare(t.Context(), out, x, 0, RouterOptions{}), "colt5: CoordinateDescentRouter.Prepare: tokens is 0")

	k := mustNewWithoutWeights(fx, NewTopK, TopKConfig{K: 4, NIters: 3, Eps: 0.1, EpsDecay: 1, CoorDescentKRatio: 1})
	top := TopKResult{Values: fx.tensor(F32, 2, 4)}
	fx.checkPrepared(func() error { return k.Prepare(t.Context(), top, s, TopKOptions{}) },
		func() error { return k.Forward(t.Context(), top, s, TopKOptions{}) }, top.Values)
	assert.ErrorContains(t, k.Prepare(t.Context(), TopKResult{}, s, TopKOptions{}), "colt5: TopK.Prepare: out has no tensors")

	d := mustNewWithoutWeights(fx, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 4, Eps: 0.1, EpsDecay: 1})
	scores := fx.tensor(F32, 2, 64)
	fx.checkPrepared(func() error { return d.Prepare(t.Context(), scores, s, CoordinateDescentOptions{}) },
		func() error { return d.Forward(t.Context(), scores, s, CoordinateDescentOptions{}) }, scores)
}

// A graph makes plans in advance too. It keeps as many as its limits allow, and forgets the others.
func TestPrepareGraph(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	g := fx.graph()
	x, h := g.Input("x", F32, 0, 0, smallDim), g.Value("h")
	require.NoError(t, m.Forward(t.Context(), h, x, FeedForwardOptions{}))
	g.Output("y", g.Add(x, h))
	of := func(n int) feed {
		return feed{"x": fx.floats(normal(1, n*smallDim), 1, n, smallDim), "y": fx.tensor(F32, 1, n, smallDim)}
	}
	tensors := of(20)
	require.NoError(t, g.LimitPlans(t.Context(), PlanLimits{})) // changes nothing, also on a graph that may still grow
	assert.False(t, g.fixed)
	fx.checkPrepared(func() error { return g.Prepare(t.Context(), tensors, GraphOptions{}) },
		func() error { return g.Run(t.Context(), tensors, GraphOptions{}) }, tensors["y"])
	want := fx.read(tensors["y"])

	lists := fx.dev.Stats().CommandLists
	require.NoError(t, g.LimitPlans(t.Context(), PlanLimits{Count: 2}))
	for n := 21; n < 30; n++ {
		require.NoError(t, g.Run(t.Context(), of(n), GraphOptions{}))
	}
	assert.Equal(t, lists+1, fx.dev.Stats().CommandLists)
	assert.Len(t, g.plans.keys(), 2)
	assert.LessOrEqual(t, len(g.keys), 3, "keys of plans that are not kept")
	require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{}))
	assert.True(t, sameBits(want, fx.read(tensors["y"])))

	assert.ErrorContains(t, g.Prepare(t.Context(), feed{"z": tensors["x"]}, GraphOptions{}), `colt5: Graph.Prepare: the graph has no input or output "z"`)
	assert.ErrorContains(t, g.LimitPlans(t.Context(), PlanLimits{Count: -3}), "colt5: Graph.LimitPlans: PlanLimits.Count is -3")
	assert.ErrorContains(t, m.Prepare(t.Context(), h, x, FeedForwardOptions{}), "colt5: ConditionalRoutedFeedForward.Prepare: the tensors are values of a graph")
}

// Prepare checks its arguments as Forward does.
func TestPrepareErrors(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	x, y := fx.floats(normal(1, 20*smallDim), 1, 20, smallDim), fx.tensor(F32, 1, 21, smallDim)
	assert.EqualError(t, m.Prepare(t.Context(), y, x, FeedForwardOptions{}), "colt5: ConditionalRoutedFeedForward.Prepare: y is f32[1 21 8], want f32[1 20 8]")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, m.Prepare(ctx, x, x, FeedForwardOptions{}), context.Canceled)
	assert.Empty(t, m.plans.keys())
	require.NoError(t, m.Close())
	assert.ErrorIs(t, m.Prepare(t.Context(), x, x, FeedForwardOptions{}), vk.ErrClosed)
}
