package colt5

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// feed is the tensors of a run by name.
type feed = map[string]*Tensor

// graph makes an empty graph.
func (fx *fixture) graph() *Graph {
	g := NewGraph(fx.dev)
	fx.closeAtEnd(g)
	return g
}

// runGraph runs a graph and returns one output, all elements of which were NaN before.
func (fx *fixture) runGraph(g *Graph, inputs feed, output string, shape ...int) []float32 {
	fx.t.Helper()
	return fx.finiteOutput(func(y *Tensor) error {
		tensors := feed{output: y}
		for name, t := range inputs {
			tensors[name] = t
		}
		return g.Run(fx.t.Context(), tensors, GraphOptions{})
	}, shape...)
}

// TestGraphOfEveryModule: each module computes the same bits as a node as it does alone, for several shapes, with and
// without masks.
func TestGraphOfEveryModule(t *testing.T) {
	fx := newFixture(t)
	for _, s := range fx.testModules(F32) {
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			fx := fx.sub(t)
			g := fx.graph()
			input := func(name string, dtype DType, shape []int) *Tensor {
				return g.Input(name, dtype, make([]int, 1+len(shape))...)
			}
			var in callArgs
			if s.vocabulary > 0 {
				in.x = input("x", U8, s.x)
			} else {
				in.x = input("x", F32, s.x)
			}
			if s.masked {
				in.mask = input("mask", U8, s.maskShape())
			}
			if s.context != nil {
				in.context, in.contextMask = input("context", F32, s.context), input("context mask", U8, s.context[:1])
			}
			y := g.Value("")
			require.NoError(t, s.forward(t.Context(), y, in))
			g.Output("y", y)
			for _, items := range []int{1, 3} {
				for _, masks := range []bool{false, true} {
					v := s.randomInput(uint64(items), items, masks)
					_, tensors := fx.upload(s, items, v)
					inputs := feed{"x": tensors.x}
					for name, t := range (feed{"mask": tensors.mask, "context": tensors.context, "context mask": tensors.contextMask}) {
						if t != nil {
							inputs[name] = t
						}
					}
					got := fx.runGraph(g, inputs, "y", append([]int{items}, s.y...)...)
					assert.True(t, sameBits(fx.run(s, items, v), got), "%d items, masks %v", items, masks)
				}
			}
		})
	}
}

// classifier is an encoder, the masked mean of its tokens, and a linear head.
type classifier struct {
	encoder *Encoder
	head    *Linear
	graph   *Graph
}

func (fx *fixture) classifier(p DType) classifier {
	c := classifier{
		encoder: mustNewSeeded(fx, NewEncoder, withPrecision(p, smallEncoder())),
		head:    mustNewSeeded(fx, NewLinear, LinearConfig{In: smallDim, Out: 5, Bias: true, Precision: p}),
		graph:   fx.graph(),
	}
	g := c.graph
	x, mask, h, logits := g.Input("x", U8, 0, 0), g.Input("mask", U8, 0, 0), g.Value("encoder"), g.Value("head")
	require.NoError(fx.t, c.encoder.Forward(fx.t.Context(), h, x, BlockOptions{Mask: mask}))
	require.NoError(fx.t, c.head.Forward(fx.t.Context(), logits, g.Mean(h, mask), CallOptions{}))
	g.Output("logits", logits)
	g.Output("hidden", h)
	return c
}

// TestGraphComposition compares a classifier with its parts, one after the other.
func TestGraphComposition(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := fx.classifier(F32)
	const items = 3
	for _, n := range []int{smallN, 7, 61} {
		ids := make([]uint8, items*n)
		for i := range ids {
			ids[i] = uint8(i * 7)
		}
		x, mask := fx.bytes(ids, items, n), randomMask(9, items, n)
		masked := fx.bytes(mask, items, n)
		h := fx.finiteOutput(func(y *Tensor) error { return c.encoder.Forward(t.Context(), y, x, BlockOptions{Mask: masked}) }, items, n, smallDim)
		w := fx.parameters(c.head.Parameters())
		pooled := ref.MeanPool(h, mask, items, n, smallDim)
		hidden := fx.tensor(F32, items, n, smallDim)
		before := fx.dev.Stats().Submits
		got := fx.runGraph(c.graph, feed{"x": x, "mask": masked, "hidden": hidden}, "logits", items, 5)
		assert.LessOrEqual(t, fx.dev.Stats().Submits-before, uint64(3), "the filling of the output, the run, the download")
		assert.Equal(t, h, fx.read(hidden), "an output that other nodes read")
		for i := range items {
			for j := range 5 {
				want := float64(w["bias"][j])
				for k := range smallDim {
					want += pooled[i*smallDim+k] * float64(w["weight"][j*smallDim+k])
				}
				assert.InDelta(t, want, got[i*5+j], 1e-5)
			}
		}
	}
}

// TestGraphRepeatedRun: a run with known shapes is one submit and allocates nothing.
func TestGraphRepeatedRun(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := fx.classifier(F32)
	x, mask, y := fx.bytes(make([]uint8, 2*smallN), 2, smallN), fx.bytes(randomMask(1, 2, smallN), 2, smallN), fx.tensor(F32, 2, 5)
	tensors := feed{"x": x, "mask": mask, "logits": y}
	fx.checkAllocatesNothing(func() error { return c.graph.Run(t.Context(), tensors, GraphOptions{}) })
}

// TestGraphStatistics: work and steps add up over the nodes, and routers are named after their nodes.
func TestGraphStatistics(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := fx.classifier(F32)
	x, y := fx.bytes(make([]uint8, 2*smallN), 2, smallN), fx.tensor(F32, 2, 5)
	stats, routing := CallStats{Profile: true}, []RoutingRecord{}
	require.NoError(t, c.graph.Run(t.Context(), feed{"x": x, "logits": y}, GraphOptions{Stats: &stats, Routing: &routing}))
	var names []string
	steps, flops, bytes := 0, 0.0, 0.0
	for _, n := range stats.Nodes {
		names = append(names, n.Name)
		assert.Equal(t, steps, n.FirstStep)
		assert.Positive(t, n.Time)
		steps, flops, bytes = steps+n.Steps, flops+n.Flops, bytes+n.Bytes
	}
	assert.Equal(t, []string{"encoder", "Mean", "head"}, names)
	assert.Equal(t, len(stats.StepNames), steps)
	assert.InEpsilon(t, stats.Flops, flops, 1e-12)
	assert.InEpsilon(t, stats.Bytes, bytes, 1e-12)
	require.Len(t, routing, 6)
	assert.Equal(t, "encoder.layers.0.conditional_attn.q_router", routing[0].Router)
	var alone []RoutingRecord
	h := fx.tensor(F32, 2, smallN, smallDim)
	require.NoError(t, c.encoder.Forward(t.Context(), h, x, BlockOptions{Routing: &alone}))
	for i := range alone {
		assert.Equal(t, "encoder."+alone[i].Router, routing[i].Router)
		assert.Equal(t, alone[i].Indices, routing[i].Indices)
	}
	stats.Profile = false
	require.NoError(t, c.graph.Run(t.Context(), feed{"x": x, "hidden": h}, GraphOptions{Stats: &stats}))
	require.Len(t, stats.Nodes, 1, "nodes that no output needs do not run")
	assert.Zero(t, stats.Nodes[0].Time, "without Profile")
}

// TestGraphMemory: Memory predicts a run exactly, also without a device.
func TestGraphMemory(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	build := func(c classifier) *Graph {
		g := c.graph
		x, h, logits := g.Input("x", U8, 0, 0), g.Value("encoder"), g.Value("head")
		require.NoError(t, c.encoder.Forward(t.Context(), h, x, BlockOptions{}))
		require.NoError(t, c.head.Forward(t.Context(), logits, g.Mean(h, nil), CallOptions{}))
		g.Output("logits", logits)
		return g
	}
	encoder, err := NewEncoder(t.Context(), nil, smallEncoder())
	require.NoError(t, err)
	head, err := NewLinear(t.Context(), nil, LinearConfig{In: smallDim, Out: 5, Bias: true})
	require.NoError(t, err)
	planned := build(classifier{encoder, head, NewGraph(nil)})
	real := build(classifier{mustNewSeeded(fx, NewEncoder, smallEncoder()), mustNewSeeded(fx, NewLinear, head.Config()), fx.graph()})
	for _, items := range []int{1, 3} {
		x, y := fx.bytes(make([]uint8, items*smallN), items, smallN), fx.tensor(F32, items, 5)
		var stats CallStats
		require.NoError(t, real.Run(t.Context(), feed{"x": x, "logits": y}, GraphOptions{Stats: &stats}))
		for _, g := range []*Graph{planned, real} {
			m, err := g.Memory(fx.dev.Caps(), map[string][]int{"x": {items, smallN}})
			require.NoError(t, err)
			assert.Equal(t, stats.Workspace, m.Workspace)
			assert.Equal(t, uint64(items*smallN), m.Inputs)
			assert.Equal(t, uint64(4*items*5), m.Outputs)
			alone, err := smallEncoder().Memory(fx.dev.Caps(), items, smallN)
			require.NoError(t, err)
			assert.Equal(t, alone.Weights+4*(5*smallDim+5), m.Weights)
		}
	}
	assert.ErrorContains(t, planned.Run(t.Context(), feed{}, GraphOptions{}), "colt5: Graph.Run: the graph was made without a device")
	_, err = planned.Memory(fx.dev.Caps(), map[string][]int{"x": {1, smallN, 3}})
	assert.ErrorContains(t, err, "x is the value x u8[1 48 3], want the value x u8[* *]")
	_, err = planned.Memory(fx.dev.Caps(), map[string][]int{"x": {1, 8}, "z": {1}})
	assert.ErrorContains(t, err, `the graph has no input or output "z", it has x, logits`)
	_, err = planned.Memory(fx.dev.Caps(), nil)
	assert.ErrorContains(t, err, "encoder: x is the value x u8[* *], which the run leaves out")
	_, err = planned.Memory(fx.dev.Caps(), map[string][]int{"x": {1, 0}})
	assert.ErrorContains(t, err, "x: dimension 1 of shape [1 0] is 0, want 1")
}

// TestGraphOperations compares the operations with the host, including parts that are views.
func TestGraphOperations(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	for _, items := range []int{1, 3} {
		const n, c = 5, 4
		g := fx.graph()
		a, b := g.Input("a", F32, 0, 0, c), g.Input("b", F32, 0, 0, 0)
		g.Output("sum", g.Add(g.Add(a, b), a))
		g.Output("elements", g.Concat(-1, a, b, a))
		g.Output("tokens", g.Concat(1, a, b))
		g.Output("items", g.Concat(0, a, b))
		rows := g.Rows(a, 1, 3)
		g.Output("rows", rows)
		part := g.Rows(rows, 1, 2) // of a view, where items is 1
		g.Output("doubled", g.Add(part, part))
		g.Output("first", g.First(g.Rows(b, 2, 2)))
		g.Output("mean", g.Mean(part, nil))
		x, y := normal(1, items*n*c), normal(2, items*n*c)
		in := feed{"a": fx.floats(x, items, n, c), "b": fx.floats(y, items, n, c)}
		element := func(from []float32, item, token, i int) float32 { return from[(item*n+token)*c+i] }
		check := func(name string, shape []int, want func(i []int) float32) {
			got := fx.runGraph(g, in, name, shape...)
			index := make([]int, 3)
			for k := range got {
				rest := k
				for d := len(shape) - 1; d >= 0; d-- {
					index[d], rest = rest%shape[d], rest/shape[d]
				}
				require.Equal(t, want(index), got[k], "%s %v of %d items", name, index[:len(shape)], items)
			}
		}
		check("sum", []int{items, n, c}, func(i []int) float32 {
			return element(x, i[0], i[1], i[2]) + element(y, i[0], i[1], i[2]) + element(x, i[0], i[1], i[2])
		})
		check("elements", []int{items, n, 3 * c}, func(i []int) float32 {
			return element([][]float32{x, y, x}[i[2]/c], i[0], i[1], i[2]%c)
		})
		check("tokens", []int{items, 2 * n, c}, func(i []int) float32 { return element([][]float32{x, y}[i[1]/n], i[0], i[1]%n, i[2]) })
		check("items", []int{2 * items, n, c}, func(i []int) float32 {
			return element([][]float32{x, y}[i[0]/items], i[0]%items, i[1], i[2])
		})
		check("rows", []int{items, 3, c}, func(i []int) float32 { return element(x, i[0], i[1]+1, i[2]) })
		check("doubled", []int{items, 2, c}, func(i []int) float32 { return 2 * element(x, i[0], i[1]+2, i[2]) })
		check("first", []int{items, c}, func(i []int) float32 { return element(y, i[0], 2, i[1]) })
		check("mean", []int{items, c}, func(i []int) float32 { return (element(x, i[0], 2, i[1]) + element(x, i[0], 3, i[1])) / 2 })
	}
}

// TestGraphViewsOutliveTheirSource: the workspace of a value is not reused while a view of it is needed.
func TestGraphViewsOutliveTheirSource(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	g := fx.graph()
	x := g.Input("x", F32, 1, 0, smallDim)
	double := g.Add(x, x)
	part := g.Rows(double, 4, 8)
	other := g.Add(g.Add(x, double), double) // 5 x, in memory that is free once double is not needed
	for range 5 {
		other = g.Add(other, x)
	}
	g.Output("y", g.Concat(1, part, other))
	data := normal(3, 20*smallDim)
	got := fx.runGraph(g, feed{"x": fx.floats(data, 1, 20, smallDim)}, "y", 1, 28, smallDim)
	for i := range 8 * smallDim {
		require.Equal(t, 2*data[4*smallDim+i], got[i])
	}
	for i := range data {
		require.InDelta(t, 10*data[i], got[8*smallDim+i], 1e-4)
	}
}

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

// TestGraphRandomRouting: the seeds of runs differ by GraphOptions.RandomSeed.
func TestGraphRandomRouting(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	router := Default[RouterConfig]()
	router.Dim = smallDim
	r := mustNewSeeded(fx, NewCoordinateDescentRouter, router)
	g := fx.graph()
	x, indices := g.Input("x", F32, 0, 0, 0), g.Value("indices")
	require.NoError(t, r.Forward(t.Context(), RouterResult{Indices: indices}, x, 6, RouterOptions{RandomSeed: 4}))
	g.Output("indices", indices)
	in := fx.floats(normal(1, 40*smallDim), 1, 40, smallDim)
	run := func(seed uint64) []int32 {
		y := fx.tensor(I32, 1, 1, 6)
		require.NoError(t, g.Run(t.Context(), feed{"x": in, "indices": y}, GraphOptions{RandomSeed: seed}))
		return fx.readInts(y)
	}
	alone := fx.tensor(I32, 1, 1, 6)
	require.NoError(t, r.Forward(t.Context(), RouterResult{Indices: alone}, in, 6, RouterOptions{RandomSeed: 5}))
	assert.Equal(t, fx.readInts(alone), run(1))
	assert.NotEqual(t, run(0), run(1))
	assert.Equal(t, run(0), run(0))
}

// TestGraphConcurrently: graphs and modules that share modules are used by several goroutines at once.
func TestGraphConcurrently(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := fx.classifier(F32)
	other := fx.graph()
	x, h := other.Input("x", U8, 0, 0), other.Value("")
	require.NoError(t, c.encoder.Forward(t.Context(), h, x, BlockOptions{}))
	other.Output("first", other.First(h))
	var wait sync.WaitGroup
	for worker := range 4 {
		ids := make([]uint8, smallN)
		for i := range ids {
			ids[i] = uint8(i * (worker + 1))
		}
		in, logits, first, alone := fx.bytes(ids, 1, smallN), fx.tensor(F32, 1, 5), fx.tensor(F32, 1, smallDim), fx.tensor(F32, 1, smallN, smallDim)
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range 5 {
				assert.NoError(t, c.graph.Run(t.Context(), feed{"x": in, "logits": logits}, GraphOptions{}))
				assert.NoError(t, other.Run(t.Context(), feed{"x": in, "first": first}, GraphOptions{}))
				assert.NoError(t, c.encoder.Forward(t.Context(), alone, in, BlockOptions{}))
				all, err := alone.Float32(t.Context())
				assert.NoError(t, err)
				got, err := first.Float32(t.Context())
				assert.NoError(t, err)
				assert.Equal(t, all[:smallDim], got)
			}
		}()
	}
	wait.Wait()
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
		assert.ErrorContains(t, g.Run(t.Context(), feed{"x": real, "y": y}, GraphOptions{}), want, want)
	}
	g := newGraph()
	closed := fx.tensor(F32, 2, smallN, smallDim)
	require.NoError(t, closed.Close())
	for want, tensors := range map[string]feed{
		`colt5: Graph.Run: y: x is the value x f32[* * 8], which the run leaves out`: {"y": y},
		`colt5: Graph.Run: no output is wanted, want a tensor for at least one of`:   {"x": real},
		`the graph has no input or output "X", it has x, y`:                          {"X": real, "y": y},
		`x is f32[2 48], want f32[* * 8]`:                                            {"x": fx.tensor(F32, 2, smallN), "y": y},
		`y is f32[2 47 8], want f32[2 48 8]`:                                         {"x": real, "y": fx.tensor(F32, 2, 47, smallDim)},
		`y is u8[2 48 8], want f32[2 48 8]`:                                          {"x": real, "y": fx.tensor(U8, 2, smallN, smallDim)},
		`x is the value x f32[* * 8], want a tensor with memory`:                     {"x": g.inputs[0], "y": y},
		`x is a tensor that is closed`:                                               {"x": closed, "y": y},
		`"x" and "y" are bound to overlapping parts`:                                 {"x": y, "y": y},
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

// TestShare: modules that share weights see the same elements, whoever changes them, and close in any order.
func TestShare(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := smallFeedForward()
	first := mustNewSeeded(fx, NewConditionalRoutedFeedForward, c)
	c.NumHeavyTokens += 5
	second := mustNewSeeded(fx, NewConditionalRoutedFeedForward, c)
	require.NoError(t, second.Init(t.Context(), 9))
	x := fx.floats(normal(1, smallN*smallDim), 1, smallN, smallDim)
	forward := func(m *ConditionalRoutedFeedForward, tokens int) []float32 {
		return fx.finiteOutput(func(y *Tensor) error { return m.Forward(t.Context(), y, x, FeedForwardOptions{NumHeavyTokens: tokens}) }, 1, smallN, smallDim)
	}
	assert.NotEqual(t, forward(first, 8), forward(second, 8))
	before := fx.dev.Stats()
	require.NoError(t, second.Share(t.Context(), first.Parameters()))
	assert.Less(t, fx.dev.Stats().Buffers, before.Buffers, "the old elements are freed")
	assert.Equal(t, forward(first, 8), forward(second, 8))
	require.NoError(t, second.Init(t.Context(), 11))
	assert.Equal(t, forward(first, 8), forward(second, 8))
	want := forward(first, 8)
	require.NoError(t, first.Close())
	assert.Equal(t, want, forward(second, 8), "the memory stays while a module uses it")

	table := mustNewSeeded(fx, NewEmbedding, EmbeddingConfig{NumTokens: 7, Dim: smallDim})
	head := mustNewSeeded(fx, NewLinear, LinearConfig{In: smallDim, Out: 7})
	require.NoError(t, head.Share(t.Context(), []Parameter{{Name: "weight", Tensor: table.Parameters()[0].Tensor}}))
	got := fx.finiteOutput(func(y *Tensor) error {
		return head.Forward(t.Context(), y, table.Parameters()[0].Tensor, CallOptions{})
	}, 7, 7)
	w := fx.read(table.Parameters()[0].Tensor)
	for i := range 7 {
		for j := range 7 {
			dot := 0.0
			for k := range smallDim {
				dot += float64(w[i*smallDim+k]) * float64(w[j*smallDim+k])
			}
			assert.InDelta(t, dot, got[i*7+j], 1e-5)
		}
	}
	tied := fx.graph()
	ids, h, logits := tied.Input("ids", I32, 0), tied.Value(""), tied.Value("")
	require.NoError(t, table.Forward(t.Context(), h, ids, CallOptions{}))
	require.NoError(t, head.Forward(t.Context(), logits, h, CallOptions{}))
	tied.Output("logits", logits)
	assert.Equal(t, got, fx.runGraph(tied, feed{"ids": fx.ints([]int32{0, 1, 2, 3, 4, 5, 6}, 7)}, "logits", 7, 7))
	m, err := tied.Memory(fx.dev.Caps(), map[string][]int{"ids": {7}})
	require.NoError(t, err)
	assert.EqualValues(t, 4*7*smallDim, m.Weights, "counted once")

	own := mustNewSeeded(fx, NewLinear, LinearConfig{In: smallDim, Out: 7})
	for want, list := range map[string][]Parameter{
		`Linear.Share: list has "wait", which is not a parameter`: {{Name: "wait", Tensor: table.Parameters()[0].Tensor}},
		`Linear.Share: list has "weight" twice`:                   {{Name: "weight", Tensor: table.Parameters()[0].Tensor}, {Name: "weight", Tensor: table.Parameters()[0].Tensor}},
		`Linear.Share: weight is f32[1 8], want f32[7 8]`:         {{Name: "weight", Tensor: second.Parameters()[0].Tensor}},
		`Linear.Share: weight is nil, want f32[7 8]`:              {{Name: "weight"}},
	} {
		assert.ErrorContains(t, own.Share(t.Context(), list), want)
	}
	assert.NotEqual(t, w, fx.read(own.Parameters()[0].Tensor), "a failed Share changes nothing")
}

// TestTensorRows: a view shares the elements, and keeps the memory until both are closed.
func TestTensorRows(t *testing.T) {
	fx := newFixture(t)
	data := normal(1, 6*4)
	x, err := FromSlice(t.Context(), fx.dev, data, 6, 4)
	require.NoError(t, err)
	view, err := x.Rows(2, 3)
	require.NoError(t, err)
	assert.Equal(t, []int{3, 4}, view.Shape())
	assert.Equal(t, data[8:20], fx.read(view))
	require.NoError(t, view.Write(t.Context(), make([]float32, 12)))
	assert.Equal(t, make([]float32, 12), fx.read(x)[8:20])
	part, err := view.Rows(1, 1)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	require.NoError(t, x.Close())
	_, err = x.Float32(t.Context())
	assert.ErrorContains(t, err, "closed")
	require.NoError(t, view.Close())
	assert.Equal(t, make([]float32, 4), fx.read(part))
	require.NoError(t, part.Close())
	_, err = part.Rows(0, 1)
	assert.ErrorContains(t, err, "colt5: Tensor.Rows: the tensor is closed")

	bytes := fx.bytes(make([]uint8, 60), 4, 15)
	_, err = bytes.Rows(1, 1)
	assert.ErrorContains(t, err, "row 1 starts at byte 15, want a multiple of 16")
	for _, bad := range [][2]int{{-1, 1}, {0, 0}, {0, 5}, {4, 1}} {
		_, err = bytes.Rows(bad[0], bad[1])
		assert.ErrorContains(t, err, "want rows of a tensor of 4")
	}
}
