package colt5

import (
	"context"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGraphDropout compares results and gradients with the CPU reference, of two nodes, and of parts of a batch. Without the
// option the nodes are views.
func TestGraphDropout(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	const items, n, c, rate = 3, 5, 8, 0.25
	g := fx.graph()
	x := g.Input("x", F32, 0, 0, c)
	first := g.Dropout(x, rate)
	g.Output("y", g.Dropout(g.Add(first, x), rate))
	data, dy := normal(1, items*n*c), normal(2, items*n*c)
	at := Dropout{Seed: 0x123456789a, Step: 7}
	run := func(data, dy []float32, o *Dropout) (y, dx []float32) {
		b := len(data) / (n * c)
		in, out, gradient := fx.floats(data, b, n, c), fx.tensor(F32, b, n, c), fx.tensor(F32, b, n, c)
		back := &Backward{Upstream: feed{"y": fx.floats(dy, b, n, c)}, Inputs: feed{"x": gradient}}
		require.NoError(t, g.Run(t.Context(), feed{"x": in, "y": out}, GraphOptions{Dropout: o, Backward: back}))
		return fx.read(out), fx.read(gradient)
	}
	drop := func(x []float32, node uint32) []float32 {
		var y []float32
		for _, v := range ref.Dropout(ref.DropoutArgs{X: x, Seed: at.Seed, Step: at.Step, Layer: node << 16, Rate: rate}) {
			y = append(y, float32(v))
		}
		return y
	}
	sum := func(a, b []float32) []float32 {
		y := slices.Clone(a)
		for i := range y {
			y[i] += b[i]
		}
		return y
	}
	y, dx := run(data, dy, &at)
	want, dsum := drop(sum(drop(data, 0), data), 2), drop(dy, 2)
	assert.InDeltaSlice(t, want, y, 1e-5)
	assert.InDeltaSlice(t, sum(drop(dsum, 0), dsum), dx, 1e-5)
	part, dpart := run(data[n*c:], dy[n*c:], &Dropout{Seed: at.Seed, Step: at.Step, FirstItem: 1})
	assert.Equal(t, y[n*c:], part)
	assert.Equal(t, dx[n*c:], dpart)
	for _, other := range []Dropout{{Seed: 1, Step: 7}, {Seed: at.Seed, Step: 8}, {Seed: at.Seed, Step: 7, FirstItem: 1}} {
		changed, _ := run(data, dy, &other)
		assert.NotEqual(t, y, changed, "%+v", other)
	}
	y, dx = run(data, dy, nil)
	assert.Equal(t, sum(data, data), y)
	assert.Equal(t, sum(dy, dy), dx)

	odd := fx.graph()
	odd.Output("y", odd.Dropout(odd.Input("x", F32, 0, 3), rate))
	tensors := feed{"x": fx.floats(normal(1, 6), 2, 3), "y": fx.tensor(F32, 2, 3)}
	require.NoError(t, odd.Run(t.Context(), tensors, GraphOptions{Dropout: &at}))
	assert.ErrorContains(t, odd.Run(t.Context(), tensors, GraphOptions{Dropout: &Dropout{FirstItem: 2}}), "GraphOptions.Dropout.FirstItem is 2, want 0")
	require.NoError(t, odd.Run(t.Context(), tensors, GraphOptions{}))
	assert.Equal(t, fx.read(tensors["x"]), fx.read(tensors["y"]), "an output that is the input")
	bad := fx.graph()
	bad.Output("y", bad.Dropout(bad.Input("x", F32, 0, 3), 1))
	assert.ErrorContains(t, bad.Run(t.Context(), tensors, GraphOptions{}), "colt5: Graph.Run: Graph.Dropout: rate is 1, want at least 0 and below 1")
}

// TestModelDropout: models with dropout have the bits of those without while it is off. While it is on, gradients agree with
// differences, and parts of a batch have the bits of the whole.
func TestModelDropout(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	fx := newFixture(t)
	a, e := smallTransformer(), smallEncoder()
	a.Depth, e.Depth = 1, 1
	plainA, plainE := mustNewSeeded(fx, NewAutoregressiveTransformer, a), mustNewSeeded(fx, NewEncoder, e)
	a.Dropout, e.Dropout = 0.2, 0.2
	dropA, dropE := mustNewSeeded(fx, NewAutoregressiveTransformer, a), mustNewSeeded(fx, NewEncoder, e)
	const items = 4
	ids := make([]uint8, items*smallN)
	for i := range ids {
		ids[i] = uint8(i * i)
	}
	type forward func(ctx context.Context, y *Tensor, in feed) error
	predict := func(m *AutoregressiveTransformer, seed uint64) forward {
		return func(ctx context.Context, y *Tensor, in feed) error {
			return m.Forward(ctx, y, in["x"], AutoregressiveOptions{RandomSeed: seed})
		}
	}
	encode := func(m *Encoder, seed uint64) forward {
		return func(ctx context.Context, y *Tensor, in feed) error {
			return m.Forward(ctx, y, in["x"], BlockOptions{RandomSeed: seed})
		}
	}
	for _, test := range []struct {
		name              string
		width             int
		plain, on, random forward
		parameters        []Parameter
	}{
		{"transformer", 256, predict(plainA, 0), predict(dropA, 0), predict(dropA, 5), dropA.Parameters()},
		{"encoder", smallDim, encode(plainE, 0), encode(dropE, 0), encode(dropE, 5), dropE.Parameters()},
	} {
		t.Run(test.name, func(t *testing.T) {
			gputest.CountCase()
			fx := fx.sub(t)
			run := func(g *Graph, from, to int, o GraphOptions) []float32 {
				x, y := fx.bytes(ids[from*smallN:to*smallN], to-from, smallN), fx.tensor(F32, to-from, smallN, test.width)
				require.NoError(t, g.Run(t.Context(), feed{"x": x, "y": y}, o))
				return fx.readFinite(y)
			}
			x := fx.bytes(ids, items, smallN)
			plain, on := fx.backwardGraph(feed{"x": x}, test.plain), fx.backwardGraph(feed{"x": x}, test.on)
			at := &Dropout{Seed: 3, Step: 9}
			want := run(plain, 0, items, GraphOptions{})
			assert.True(t, sameBits(want, run(on, 0, items, GraphOptions{})), "off")
			dropped := run(on, 0, items, GraphOptions{Dropout: at})
			assert.NotEqual(t, want, dropped)
			assert.True(t, sameBits(dropped, run(on, 0, items, GraphOptions{Dropout: at})))
			assert.True(t, sameBits(dropped[len(dropped)/2:], run(on, 2, 4, GraphOptions{Dropout: &Dropout{Seed: 3, Step: 9, FirstItem: 2}})), "a part")

			// Routing is random, so that y is a smooth function of the weights.
			dy := normal(7, len(dropped))
			r := fx.backwardRun(test.parameters, feed{"x": x}, dy, []int{items, smallN, test.width}, test.random)
			r.options.Dropout = at
			gradients := fx.gradients(r)
			assert.True(t, sameBits(run(r.graph, 0, items, GraphOptions{Dropout: at}), fx.read(r.y)), "a run with a backward pass")
			assert.Equal(t, gradients, fx.gradients(r))
			loss := func() float64 { return dot(run(r.graph, 0, items, GraphOptions{Dropout: at}), dy) }
			fx.checkDifferences(test.parameters, gradients, loss)
			embedding := slices.IndexFunc(test.parameters, func(p Parameter) bool { return p.Name == "embed.weight" })
			fx.checkDifference(test.parameters[embedding], gradients, loss)
		})
	}
}
