package colt5

import (
	"context"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBackwardComposition compares the gradients of a graph with differences of its results: a value that is used three times, a
// sum, parts, a concatenation, a masked mean, a weight that two nodes share, and a tied embedding.
func TestBackwardComposition(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	gputest.CountCase()
	fx := newFixture(t)
	const items, n, dim, vocabulary = 3, 5, 4, 11
	embedding := mustNewSeeded(fx, NewEmbedding, EmbeddingConfig{NumTokens: vocabulary, Dim: dim})
	ff := mustNewSeeded(fx, NewFeedForward, FeedForwardConfig{Dim: dim, Mult: 2})
	head := mustNewSeeded(fx, NewLinear, LinearConfig{In: dim, Out: vocabulary})
	require.NoError(t, head.Share(t.Context(), []Parameter{{Name: "weight", Tensor: embedding.Parameters()[0].Tensor}}))
	forward := func(ctx context.Context, y *Tensor, in feed) error {
		g := y.value.graph
		h, a, b := g.Value("h"), g.Value("a"), g.Value("b")
		if err := embedding.Forward(ctx, h, in["ids"], CallOptions{}); err != nil {
			return err
		}
		x := g.Add(h, in["x"])
		if err := ff.Forward(ctx, a, x, CallOptions{}); err != nil {
			return err
		}
		if err := ff.Forward(ctx, b, g.Add(x, a), CallOptions{}); err != nil { // the same weights again
			return err
		}
		all := g.Concat(1, g.Rows(b, 1, 3), g.Rows(x, 0, 2), a)
		mean := g.Add(g.Mean(g.Rows(all, 0, n), in["mask"]), g.First(all))
		return head.Forward(ctx, y, mean, CallOptions{})
	}
	x, ids := normal(1, items*n*dim), []int32{0, 3, 3, 10, 5, 1, 1, 1, 2, 9, 8, 7, 6, 0, 4}
	inputs := feed{"x": fx.floats(x, items, n, dim), "ids": fx.ints(ids, items, n), "mask": fx.bytes(randomMask(2, items, n), items, n)}
	parameters := append(embedding.Parameters(), ff.Parameters()...)
	parameters = append(parameters, head.Parameters()...) // shared: counts once
	dy := normal(3, items*vocabulary)
	r := fx.backwardRun(parameters, inputs, dy, []int{items, vocabulary}, forward)
	require.Len(t, r.options.Backward.Parameters.List(), 1+5)
	got := fx.gradients(r)

	loss := func() float64 {
		tensors := feed{"y": r.y}
		for name, in := range inputs {
			tensors[name] = in
		}
		require.NoError(t, r.graph.Run(t.Context(), tensors, GraphOptions{}))
		sum := 0.0
		for i, v := range fx.read(r.y) {
			sum += float64(v) * float64(dy[i])
		}
		return sum
	}
	check := func(name string, of *Tensor, gradient []float32) {
		data := fx.read(of)
		scale := 0.0
		for _, v := range gradient {
			scale = max(scale, math.Abs(float64(v)))
		}
		for i := range data {
			const step = 1.0 / 64
			old := data[i]
			data[i] = old + step
			require.NoError(t, of.Write(t.Context(), data))
			up := loss()
			data[i] = old - step
			require.NoError(t, of.Write(t.Context(), data))
			down := loss()
			data[i] = old
			require.NoError(t, of.Write(t.Context(), data))
			assert.InDelta(t, (up-down)/(2*step), gradient[i], 0.01*max(scale, 1), "%s[%d]", name, i)
		}
	}
	check("x", inputs["x"], got["in.x"])
	for _, p := range r.options.Backward.Parameters.List() {
		for _, of := range parameters {
			if r.options.Backward.Parameters.Of(of.Tensor) == p.Tensor {
				check(p.Name, of.Tensor, got[p.Name])
				break
			}
		}
	}
}

// TestBackwardOfParts: gradients that nothing needs are not computed, a part of the parameters gets the same bits as all of them,
// and outputs without an upstream gradient have none.
func TestBackwardOfParts(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 11 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	c := fx.classifier(F32)
	x, mask := fx.bytes(make([]uint8, 2*smallN), 2, smallN), fx.bytes(randomMask(9, 2, smallN), 2, smallN)
	logits, hidden := fx.tensor(F32, 2, 5), fx.tensor(F32, 2, smallN, smallDim)
	up := fx.floats(normal(3, 10), 2, 5)
	run := func(list []Parameter, upstream feed) (map[string][]float32, CallStats) {
		g, err := NewGradients(fx.dev, list)
		require.NoError(t, err)
		fx.closeAtEnd(g)
		require.NoError(t, g.Flat().Write(t.Context(), nanFill(g.Flat().Len())))
		var stats CallStats
		require.NoError(t, c.graph.Run(t.Context(), feed{"x": x, "mask": mask, "logits": logits, "hidden": hidden},
			GraphOptions{Backward: &Backward{Upstream: upstream, Parameters: g}, Stats: &stats}))
		return fx.parameters(g.List()), stats
	}
	whole, all := run(append(c.encoder.Parameters(), c.head.Parameters()...), feed{"logits": up})
	head, few := run(c.head.Parameters(), feed{"logits": up})
	for name, g := range head {
		assert.True(t, sameBits(whole[name], g), name)
	}
	assert.Less(t, len(few.StepNames), len(all.StepNames)/2, "the encoder has no backward pass")
	none, _ := run(c.head.Parameters(), feed{"hidden": fx.floats(normal(4, 2*smallN*smallDim), 2, smallN, smallDim)})
	for name, g := range none {
		assert.Equal(t, make([]float32, len(g)), g, name)
	}
}

// TestBackwardErrors checks the messages for wrong tensors of a backward pass.
func TestBackwardErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	c := fx.classifier(F32)
	other := mustNewSeeded(fx, NewLinear, LinearConfig{In: 3, Out: 3})
	x, logits, up := fx.bytes(make([]uint8, smallN), 1, smallN), fx.tensor(F32, 1, 5), fx.tensor(F32, 1, 5)
	gradients, err := NewGradients(fx.dev, other.Parameters())
	require.NoError(t, err)
	fx.closeAtEnd(gradients)
	for want, b := range map[string]*Backward{
		"Backward.Upstream is empty, want the gradient of at least one output":  {},
		"Backward.Upstream: logits is f32[5 1], want f32[1 5]":                  {Upstream: feed{"logits": fx.tensor(F32, 5, 1)}},
		`Backward.Upstream: the graph has no input or output "y"`:               {Upstream: feed{"y": up}},
		"Backward.Inputs: x is f32[1 5], want a tensor of the shape of the inp": {Upstream: feed{"logits": up}, Inputs: feed{"x": up}},
		"Backward.Upstream has 1 names that are not of outputs":                 {Upstream: feed{"x": up}},
		"Backward.Inputs has 1 names that are not of inputs":                    {Upstream: feed{"logits": up}, Inputs: feed{"logits": up, "x": nil}},
		"Backward.Upstream: hidden is f32[1 5], want nil: the run leaves the o": {Upstream: feed{"hidden": up, "logits": nil}},
		"Backward.Parameters is the zero value":                                 {Upstream: feed{"logits": up}, Parameters: &Gradients{}},
		"Backward.Parameters has a parameter of no module of the graph":         {Upstream: feed{"logits": up}, Parameters: gradients},
	} {
		err := c.graph.Run(t.Context(), feed{"x": x, "logits": logits}, GraphOptions{Backward: b})
		assert.ErrorContains(t, err, "colt5: Graph.Run: "+want)
	}
	assert.NoError(t, c.graph.Run(t.Context(), feed{"x": x, "logits": logits},
		GraphOptions{Backward: &Backward{Upstream: feed{"logits": up, "hidden": nil}, Inputs: feed{"x": nil}}}))
	_, err = (&Gradients{}).At(up)
	assert.ErrorContains(t, err, "colt5: Gradients.At: the gradients are the zero value")
	_, err = NewGradients(fx.dev, nil)
	assert.EqualError(t, err, "colt5: NewGradients: there are no parameters, want at least one")
	_, err = NewGradients(fx.dev, []Parameter{{Name: "w", Tensor: x}})
	assert.ErrorContains(t, err, "colt5: NewGradients: parameter w is u8[1 48], want an f32 parameter of a module on this device")
}
