package colt5

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
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

// moduleGraph makes a graph of a module, with all inputs.
func (fx *fixture) moduleGraph(s moduleCase) *Graph {
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
	require.NoError(fx.t, s.forward(fx.t.Context(), y, in))
	g.Output("y", y)
	return g
}

// graphInputs makes the inputs of a module's graph.
func (fx *fixture) graphInputs(s moduleCase, items int, v inputData) feed {
	_, tensors := fx.upload(s, items, v)
	inputs := feed{"x": tensors.x}
	for name, t := range (feed{"mask": tensors.mask, "context": tensors.context, "context mask": tensors.contextMask}) {
		if t != nil {
			inputs[name] = t
		}
	}
	return inputs
}

// TestGraphOfEveryModule: each module computes the same bits as a node as it does alone, for several shapes, with and
// without masks.
func TestGraphOfEveryModule(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 2 s")
	}
	fx := newFixture(t)
	for _, s := range fx.testModules(F32) {
		t.Run(s.name, func(t *testing.T) {
			gputest.CountCase()
			fx := fx.sub(t)
			g := fx.moduleGraph(s)
			for _, items := range []int{1, 3} {
				for _, masks := range []bool{false, true} {
					v := s.randomInput(uint64(items), items, masks)
					inputs := fx.graphInputs(s, items, v)
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
	assert.ErrorContains(t, planned.LimitPlans(t.Context(), PlanLimits{}), "colt5: Graph.LimitPlans: the graph was made without a device")
	other := fx.graph()
	err = head.Forward(t.Context(), other.Value(""), other.Input("x", F32, 0, smallDim), CallOptions{})
	assert.ErrorContains(t, err, "the graph or the module was made without a device, want both with the same vk.Device or both without one")
	_, err = planned.Memory(fx.dev.Caps(), map[string][]int{"x": {1, smallN, 3}})
	assert.ErrorContains(t, err, "x is the value x u8[1 48 3], want the value x u8[* *]")
	_, err = planned.Memory(fx.dev.Caps(), map[string][]int{"x": {1, 8}, "z": {1}})
	assert.ErrorContains(t, err, `the graph has no input or output "z", it has x, logits`)
	_, err = planned.Memory(fx.dev.Caps(), nil)
	assert.ErrorContains(t, err, "encoder: x is the value x u8[* *], an input that is not given")
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
