package colt5

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
)

// TestGraphOfOtherModules: the router, TopK and an embedding have other arguments than most modules.
func TestGraphOfOtherModules(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	router := Default[RouterConfig]()
	router.Dim = smallDim
	r := mustNewSeeded(fx, NewCoordinateDescentRouter, router)
	k := mustNewWithoutWeights(fx, NewTopK, TopKConfig{K: 3, NIters: 3, Eps: 0.1, EpsDecay: 1, CoorDescentKRatio: 1})
	e := mustNewSeeded(fx, NewEmbedding, EmbeddingConfig{NumTokens: 50, Dim: smallDim})
	g := fx.graph()
	ids, h := g.Input("ids", I32, 0, 0), g.Value("embedding")
	require.NoError(t, e.Forward(t.Context(), h, ids, CallOptions{}))
	out := RouterResult{Indices: g.Value("indices"), Tokens: g.Value("tokens"), Logits: g.Value("logits")}
	require.NoError(t, r.Forward(t.Context(), out, h, 6, RouterOptions{}))
	values := g.Value("values")
	require.NoError(t, k.Forward(t.Context(), TopKResult{Values: values}, out.Logits, TopKOptions{}))
	g.Output("tokens", out.Tokens)
	g.Output("values", values)
	for _, n := range []int{20, 33} {
		tokens := make([]int32, 2*n)
		for i := range tokens {
			tokens[i] = int32(i * 13 % 50)
		}
		x := fx.ints(tokens, 2, n)
		top := fx.tensor(F32, 2, 1, 3)
		got := fx.runGraph(g, feed{"ids": x, "values": top}, "tokens", 2, 1, 6, smallDim)
		embedded, logits, alone := fx.tensor(F32, 2, n, smallDim), fx.tensor(F32, 2, 1, n), fx.tensor(F32, 2, 1, 6, smallDim)
		require.NoError(t, e.Forward(t.Context(), embedded, x, CallOptions{}))
		require.NoError(t, r.Forward(t.Context(), RouterResult{Tokens: alone, Logits: logits}, embedded, 6, RouterOptions{}))
		assert.Equal(t, fx.read(alone), got)
		all := fx.read(logits)[:n]
		slices.Sort(all)
		slices.Reverse(all)
		assert.Equal(t, all[:3], fx.read(top)[:3])
	}
	bad := fx.ints([]int32{1, 50, 2, 3, 4, 5, 6, 7, -1, 9}, 1, 10)
	assert.ErrorContains(t, g.Run(t.Context(), feed{"ids": bad, "values": fx.tensor(F32, 1, 1, 3)}, GraphOptions{}),
		"embedding.x has 2 token ids outside the vocabulary of 50")
}

// TestGraphErrors: mistakes while building and running name the argument.
func TestGraphErrors(t *testing.T) {
	fx := newFixture(t)
	ff := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	real := fx.tensor(F32, 2, smallN, smallDim)
	building := map[string]func(g *Graph){
		`Input: the name is "x", which is another`:                               func(g *Graph) { g.Input("x", F32, 0) },
		`Input: the name is empty`:                                               func(g *Graph) { g.Input("", F32, 0) },
		`Input: z: dtype is f16, want f32, i32 or u8`:                            func(g *Graph) { g.Input("z", F16, 0) },
		`Input: z: the shape is [], want at least one dimension, each 0 or more`: func(g *Graph) { g.Input("z", F32) },
		`Output: z is nil, want a value`:                                         func(g *Graph) { g.Output("z", nil) },
		`Output: z is f32[2 48 8], want a value`:                                 func(g *Graph) { g.Output("z", real) },
		`Output: z is the value v, which is not computed yet`:                    func(g *Graph) { g.Output("z", g.Value("v")) },
		`Output: z is the value y f32[* * 8], which is an output already`:        func(g *Graph) { g.Output("z", g.outputs[0].value) },
		`Output: z is the value x f32[* * 8], which is an input`:                 func(g *Graph) { g.Output("z", g.inputs[0]) },
		`Add: b is the value z f32[* 3], want f32[* * 8]`:                        func(g *Graph) { g.Add(g.inputs[0], g.Input("z", F32, 0, 3)) },
		`Add: a is nil, want f32[]`:                                              func(g *Graph) { g.Add(nil, g.inputs[0]) },
		`Add: b is f32[2 48 8], want a value of this graph`:                      func(g *Graph) { g.Add(g.inputs[0], real) },
		`Mean: mask is the value z u8[* 3 1], want u8[* *]`:                      func(g *Graph) { g.Mean(g.inputs[0], g.Input("z", U8, 0, 3, 1)) },
		`Rows: first is -1 and count 2`:                                          func(g *Graph) { g.Rows(g.inputs[0], -1, 2) },
		`Rows: tokens 3 to 5 of the value z f32[* 5 1], which has 5`:             func(g *Graph) { g.Rows(g.Input("z", F32, 0, 5, 1), 3, 3) },
		`Concat: axis is 3, want -3 to 2`:                                        func(g *Graph) { g.Concat(3, g.inputs[0]) },
		`Concat: there is no value`:                                              func(g *Graph) { g.Concat(0) },
		`Concat: 9 tensors, want at most 8`:                                      func(g *Graph) { g.Concat(0, slices.Repeat([]*Tensor{g.inputs[0]}, 9)...) },
		`ConditionalRoutedFeedForward.Forward: x is the value z f32[* * 7], want f32[* * 8]`: func(g *Graph) {
			assert.Error(t, ff.Forward(t.Context(), g.Value(""), g.Input("z", F32, 0, 0, 7), FeedForwardOptions{}))
		},
		`y is the value x f32[* * 8], want a new one, made by Graph.Value`: func(g *Graph) {
			assert.Error(t, ff.Forward(t.Context(), g.inputs[0], g.outputs[0].value, FeedForwardOptions{}))
		},
		`x is the value z, which is not computed yet`: func(g *Graph) {
			assert.Error(t, ff.Forward(t.Context(), g.Value(""), g.Value("z"), FeedForwardOptions{}))
		},
		`the options have Stats or Routing, want nil`: func(g *Graph) {
			assert.Error(t, ff.Forward(t.Context(), g.Value(""), g.inputs[0], FeedForwardOptions{Stats: new(CallStats)}))
		},
	}
	newGraph := func() *Graph {
		g := fx.graph()
		x, y := g.Input("x", F32, 0, 0, smallDim), g.Value("y")
		require.NoError(t, ff.Forward(t.Context(), y, x, FeedForwardOptions{}))
		g.Output("y", y)
		return g
	}
	y := fx.tensor(F32, 2, smallN, smallDim)
	for want, mistake := range building {
		g := newGraph()
		mistake(g)
		err := g.Run(t.Context(), feed{"x": real, "y": y}, GraphOptions{})
		require.ErrorContains(t, err, want, want)
		assert.Equal(t, 1, strings.Count(err.Error(), "colt5: "), err)
		assert.NotContains(t, err.Error(), "Graph.Run: Graph.Run")
	}
	g := newGraph()
	closed := fx.tensor(F32, 2, smallN, smallDim)
	require.NoError(t, closed.Close())
	for want, tensors := range map[string]feed{
		`colt5: Graph.Run: y: x is the value x f32[* * 8], an input that is not given`:       {"y": y},
		`colt5: Graph.Run: no tensor is given for an output, want one for at least one of y`: {"x": real},
		`the graph has no input or output "X", it has x, y`:                                  {"X": real, "y": y},
		`x is f32[2 48], want f32[* * 8]`:                                                    {"x": fx.tensor(F32, 2, smallN), "y": y},
		`y is f32[2 47 8], want f32[2 48 8]`:                                                 {"x": real, "y": fx.tensor(F32, 2, 47, smallDim)},
		`y is u8[2 48 8], want f32[2 48 8]`:                                                  {"x": real, "y": fx.tensor(U8, 2, smallN, smallDim)},
		`x is the value x f32[* * 8], want a tensor with memory`:                             {"x": g.inputs[0], "y": y},
		`x is a tensor that is closed`:                                                       {"x": closed, "y": y},
		`"x" and "y" are bound to overlapping parts`:                                         {"x": y, "y": y},
	} {
		assert.ErrorContains(t, g.Run(t.Context(), tensors, GraphOptions{}), want)
	}
	assert.ErrorContains(t, ff.Forward(t.Context(), y, g.Input("late", F32, 0), FeedForwardOptions{}), "the graph has been run or measured: nothing can be added")
	assert.ErrorContains(t, fx.graph().Run(t.Context(), nil, GraphOptions{}), "the graph has no output")
	for _, v := range []*Tensor{g.inputs[0]} {
		assert.ErrorContains(t, v.Write(t.Context(), []float32{1}), "the value x f32[* * 8], which has no memory")
		assert.Nil(t, v.Device())
		assert.NoError(t, v.Close())
	}

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	good := newGraph()
	assert.ErrorIs(t, good.Run(cancelled, feed{"x": real, "y": y}, GraphOptions{}), context.Canceled)
	require.NoError(t, good.Run(t.Context(), feed{"x": real, "y": y}, GraphOptions{}))
	gone := newGraph()
	require.NoError(t, gone.Close())
	assert.ErrorContains(t, gone.Run(t.Context(), feed{"x": real, "y": y}, GraphOptions{}), "the graph is closed")
	require.NoError(t, ff.Close())
	assert.ErrorContains(t, good.Run(t.Context(), feed{"x": real, "y": y}, GraphOptions{}), "the module ConditionalRoutedFeedForward is closed")
	var zero Graph
	assert.ErrorContains(t, zero.Run(t.Context(), nil, GraphOptions{}), "colt5: Graph.Run: it is the zero value")
	_, err := zero.Memory(fx.dev.Caps(), nil)
	assert.ErrorContains(t, err, "it is the zero value")
	assert.NoError(t, zero.Close())
	var none context.Context
	assert.ErrorContains(t, newGraph().Run(none, nil, GraphOptions{}), "colt5: Graph.Run: the context is nil")
}

// TestGraphPrecision: modules of several precisions in one graph.
func TestGraphPrecision(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	if F16.Supported(fx.dev.Caps()) != nil {
		t.Skip("no 16-bit products on this device")
	}
	c, f := fx.classifier(F16), fx.classifier(F32)
	x := fx.bytes(make([]uint8, smallN), 1, smallN)
	half, full := fx.runGraph(c.graph, feed{"x": x}, "logits", 1, 5), fx.runGraph(f.graph, feed{"x": x}, "logits", 1, 5)
	assert.NotEqual(t, half, full)
	assert.InDeltaSlice(t, float64s(full), float64s(half), 0.05)
}
