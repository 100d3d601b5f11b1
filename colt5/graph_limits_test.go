package colt5

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGraphLimits: Memory and Run refuse the same sizes.
func TestGraphLimits(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	g := fx.graph()
	g.Output("y", g.Mean(g.Input("x", F32, 0, 0, 1), nil))
	for tokens, want := range map[int]string{maxPooled: "", maxPooled + 1: "Mean: the mean is of 520001 tokens, want at most 520000"} {
		_, planned := g.Memory(fx.dev.Caps(), map[string][]int{"x": {1, tokens, 1}})
		run := g.Run(t.Context(), feed{"x": fx.tensor(F32, 1, tokens, 1), "y": fx.tensor(F32, 1, 1)}, GraphOptions{})
		for _, err := range []error{planned, run} {
			if want == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, strings.TrimPrefix(want, "Mean: "))
			}
		}
	}
	big := fx.graph()
	x := big.Input("x", F32, 0)
	for i := range 64 {
		big.Output(fmt.Sprint(i), big.Add(x, x))
	}
	_, err := big.Memory(fx.dev.Caps(), map[string][]int{"x": {1 << 30}})
	require.NoError(t, err)
	wide := fx.graph()
	a := wide.Input("a", F32, 0, 0, 0)
	wide.Output("sum", wide.Add(a, a))
	_, err = wide.Memory(fx.dev.Caps(), map[string][]int{"a": {1 << 10, 1 << 12, 1<<12 + 1}})
	assert.ErrorContains(t, err, "elements, want at most 17179869184")
	huge := fx.graph()
	for i := range 8 {
		huge.Input(fmt.Sprint("x", i), F32, 0, 0, 0)
	}
	small := huge.Input("small", F32, 1)
	huge.Output("y", huge.Add(small, small))
	shapes := map[string][]int{"small": {1}}
	for i := range 8 {
		shapes[fmt.Sprint("x", i)] = []int{1 << 28, 1 << 20, 1 << 10}
	}
	_, err = huge.Memory(fx.dev.Caps(), shapes)
	assert.ErrorIs(t, err, vk.ErrOutOfMemory)
}

// TestGraphMemoryOfOutputs: an input that no output needs may be left out of Memory as of Run.
func TestGraphMemoryOfOutputs(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	g := fx.graph()
	x, unused := g.Input("x", F32, 0, 0, 4), g.Input("unused", F32, 0, 0, 4)
	g.Add(x, unused)
	g.Output("y", g.Add(x, x))
	m, err := g.Memory(fx.dev.Caps(), map[string][]int{"x": {1, 2, 4}})
	require.NoError(t, err)
	assert.EqualValues(t, 32, m.Inputs)
	data := normal(1, 8)
	got := fx.runGraph(g, feed{"x": fx.floats(data, 1, 2, 4)}, "y", 1, 2, 4)
	for i := range data {
		assert.Equal(t, 2*data[i], got[i])
	}
}

// TestGraphOfManyNodes: the names of nodes are found in time that is linear in their number.
func TestGraphOfManyNodes(t *testing.T) {
	fx := newFixture(t)
	g := fx.graph()
	x := g.Input("x", F32, 0)
	const nodes = 20_000
	start, sum := time.Now(), x
	for range nodes {
		sum = g.Add(sum, x)
	}
	assert.Less(t, time.Since(start), 10*time.Second)
	require.Len(t, g.nodes, nodes)
	names := map[string]bool{}
	for _, n := range g.nodes {
		names[n.name] = true
	}
	assert.Len(t, names, nodes)
	assert.Equal(t, "Add", g.nodes[0].name)
	assert.Equal(t, "Add#2", g.nodes[1].name)
	assert.Equal(t, "Add#20000", g.nodes[nodes-1].name)
}

// TestGraphNamesInErrors: names are escaped and shortened.
func TestGraphNamesInErrors(t *testing.T) {
	fx := newFixture(t)
	long, ugly := strings.Repeat("long", 2000), "x\x1b[31m\n"
	build := func() *Graph {
		g := fx.graph()
		g.Output(long, g.Add(g.Input(ugly, F32, 0, 4), g.Input(long+"b", F32, 0, 4)))
		for i := range 20 {
			g.Input(fmt.Sprint("unused", i), F32, 1)
		}
		return g
	}
	x, y := fx.tensor(F32, 2, 4), fx.tensor(F32, 3, 4)
	g := build()
	for i, tensors := range []feed{
		{ugly: x, long + "b": x, long: y}, {ugly: x, long: y}, {ugly: g.inputs[0], long: y}, {ugly: fx.tensor(F32, 2), long: y},
		{ugly: x, long + "c": x}, {ugly: x, long + "b": x, long: x},
	} {
		checkText(t, g.Run(t.Context(), tensors, GraphOptions{}), fmt.Sprint("run ", i))
	}
	for i, mistake := range []func(g *Graph){
		func(g *Graph) { g.Input(ugly, F32) }, func(g *Graph) { g.Input(long+"d", F16, 1) }, func(g *Graph) { g.Input(ugly+"d", F32) },
		func(g *Graph) { g.Output(ugly+"d", g.inputs[0]) }, func(g *Graph) { g.Output(long+"d", nil) }, func(g *Graph) { g.Add(g.Value(ugly), g.Value(long)) },
	} {
		g := build()
		mistake(g)
		checkText(t, g.Run(t.Context(), nil, GraphOptions{}), fmt.Sprint("mistake ", i))
	}
}

// checkText checks that an error has a short, printable text.
func checkText(t *testing.T, err error, name string) {
	t.Helper()
	require.Error(t, err, name)
	assert.Less(t, len(err.Error()), 1000, name)
	assert.False(t, strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }), "%s: %q", name, err.Error())
}

// TestPrepareAfterSubmit: Prepare may close the plan of the submitted run; Wait still returns its error.
func TestPrepareAfterSubmit(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewEmbedding, EmbeddingConfig{NumTokens: 5, Dim: 4})
	g := fx.graph()
	y := g.Value("y")
	require.NoError(t, m.Forward(t.Context(), y, g.Input("x", I32, 0, 0), CallOptions{}))
	g.Output("y", y)
	require.NoError(t, g.LimitPlans(t.Context(), PlanLimits{Count: 1}))
	wrong := feed{"x": fx.ints([]int32{1, 9}, 1, 2), "y": fx.tensor(F32, 1, 2, 4)}
	other := feed{"x": fx.ints([]int32{1, 2, 3}, 1, 3), "y": fx.tensor(F32, 1, 3, 4)}
	require.NoError(t, g.Submit(t.Context(), wrong, GraphOptions{}))
	require.NoError(t, g.Prepare(t.Context(), other, GraphOptions{}))
	assert.ErrorContains(t, g.Wait(t.Context()), "x has 1 token ids")
	assert.NoError(t, g.Wait(t.Context()))
	assert.NoError(t, g.Run(t.Context(), other, GraphOptions{}))

	require.NoError(t, g.Submit(t.Context(), other, GraphOptions{}))
	require.NoError(t, m.Close())
	assert.NoError(t, g.Wait(t.Context()), "the run was submitted before")
}
