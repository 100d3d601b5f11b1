package colt5

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBackwardModuleUsedTwice: a module with several routes of keys and values that two nodes use has twice the gradient of one
// use, whatever the size of the batch and the alignment of a route's rows.
func TestBackwardModuleUsedTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	gputest.CountCase()
	fx := newFixture(t)
	c := smallAttention()
	m := mustNewSeeded(fx, NewConditionalRoutedAttention, c)
	const n = 20
	for _, items := range []int{1, 2} {
		x, dy := normal(1, items*n*c.Dim), normal(2, items*n*c.Dim)
		shape := []int{items, n, c.Dim}
		run := func(uses int) map[string][]float32 {
			return fx.gradients(fx.backwardRun(m.Parameters(), feed{"x": fx.floats(x, shape...)}, dy, shape,
				func(ctx context.Context, y *Tensor, in feed) error {
					if uses == 1 {
						return m.Forward(ctx, y, in["x"], AttentionOptions{})
					}
					g := y.value.graph
					a, b := g.Value("a"), g.Value("b")
					if err := m.Forward(ctx, a, in["x"], AttentionOptions{}); err != nil {
						return err
					}
					if err := m.Forward(ctx, b, in["x"], AttentionOptions{}); err != nil {
						return err
					}
					*y = *g.Add(a, b)
					return nil
				}))
		}
		one, two := run(1), run(2)
		for name, g := range one {
			twice := make([]float32, len(g))
			for i, v := range g {
				twice[i] = 2 * v
			}
			assert.InDeltaSlice(t, twice, two[name], 1e-3, "%s, %d items", name, items)
		}
	}
}

// TestBackwardOfLinearTwice: the gradients of a layer that is applied twice are those of both uses, and those of a layer whose
// result has no upstream gradient are 0. Neither layer has a multiple of four parameters.
func TestBackwardOfLinearTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	const n, c = 5, 3
	used, unused := mustNewSeeded(fx, NewLinear, LinearConfig{In: c, Out: c, Bias: true}), mustNewSeeded(fx, NewLinear, LinearConfig{In: c, Out: 1, Bias: true})
	var parameters []Parameter
	for name, m := range map[string]*Linear{"used.": used, "unused.": unused} {
		for _, p := range m.Parameters() {
			parameters = append(parameters, Parameter{Name: name + p.Name, Tensor: p.Tensor})
		}
	}
	weight, bias := fx.read(used.Parameters()[0].Tensor), fx.read(used.Parameters()[1].Tensor)
	for _, items := range []int{1, 2} {
		x, dy := normal(1, items*n*c), normal(2, items*n*c)
		shape := []int{items, n, c}
		got := fx.gradients(fx.backwardRun(parameters, feed{"x": fx.floats(x, shape...)}, dy, shape, func(ctx context.Context, y *Tensor, in feed) error {
			g := y.value.graph
			middle, other := g.Value("middle"), g.Value("other")
			err := errors.Join(used.Forward(ctx, middle, in["x"], CallOptions{}), used.Forward(ctx, y, middle, CallOptions{}),
				unused.Forward(ctx, other, in["x"], CallOptions{}))
			g.Output("other", other)
			return err
		}))
		dweight, dbias := make([]float32, c*c), make([]float32, c)
		for r := 0; r < len(x); r += c {
			for o := range c {
				dmiddle := float32(0)
				for i := range c {
					dmiddle += dy[r+i] * weight[i*c+o]
				}
				dbias[o] += dy[r+o] + dmiddle
				for i := range c {
					middle := bias[i]
					for j := range c {
						middle += x[r+j] * weight[i*c+j]
					}
					dweight[o*c+i] += dy[r+o]*middle + dmiddle*x[r+i]
				}
			}
		}
		assert.InDeltaSlice(t, dweight, got["used.weight"], 1e-4)
		assert.InDeltaSlice(t, dbias, got["used.bias"], 1e-4)
		assert.Equal(t, make([]float32, c), got["unused.weight"])
		assert.Equal(t, make([]float32, 1), got["unused.bias"])
	}
}

// TestBackwardOfViews: weights that are views of one tensor have gradients of their own; views that overlap are an error.
func TestBackwardOfViews(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	all := fx.floats(normal(1, 32), 8, 4)
	view := func(first int) *Tensor {
		v, err := all.Rows(first, 4)
		require.NoError(t, err)
		fx.closeAtEnd(v)
		return v
	}
	run := func(share bool) map[string][]float32 {
		var parameters []Parameter
		var list []*Linear
		for i, name := range []string{"a", "b"} {
			m := mustNewSeeded(fx, NewLinear, LinearConfig{In: 4, Out: 4})
			weight := m.Parameters()[0]
			if share {
				require.NoError(t, m.Share(t.Context(), []Parameter{{Name: "weight", Tensor: view(4 * i)}}))
			} else {
				require.NoError(t, weight.Tensor.Write(t.Context(), fx.read(view(4*i))))
			}
			parameters = append(parameters, Parameter{Name: name, Tensor: weight.Tensor})
			list = append(list, m)
		}
		return fx.gradients(fx.backwardRun(parameters, feed{"x": fx.floats(normal(2, 8), 2, 4)}, normal(3, 8), []int{2, 4},
			func(ctx context.Context, y *Tensor, in feed) error {
				h := y.value.graph.Value("h")
				if err := list[0].Forward(ctx, h, in["x"], CallOptions{}); err != nil {
					return err
				}
				return list[1].Forward(ctx, y, h, CallOptions{})
			}))
	}
	assert.Equal(t, run(false), run(true))
	_, err := NewGradients(fx.dev, []Parameter{{Name: "a", Tensor: view(0)}, {Name: "b", Tensor: view(2)}})
	assert.EqualError(t, err, "colt5: NewGradients: parameters a and b share some of their elements, want all or none")
}

// TestBackwardRandomRouting compares the gradients of a stack whose layers route at random with differences of its results.
func TestBackwardRandomRouting(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 6 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewAutoregressiveTransformer, smallTransformer())
	const n = 40
	ids := fx.bytes([]byte("the quick brown fox jumps over the lazy "), 1, n)
	shape := []int{1, n, 256}
	dy := normal(3, product(shape))
	r := fx.backwardRun(m.Parameters(), feed{"ids": ids}, dy, shape, func(ctx context.Context, y *Tensor, in feed) error {
		return m.Forward(ctx, y, in["ids"], AutoregressiveOptions{RandomSeed: 7})
	})
	r.options.RandomSeed = 2
	got := fx.gradients(r)
	loss := func() (sum float64) {
		require.NoError(t, r.graph.Run(t.Context(), feed{"ids": ids, "y": r.y}, GraphOptions{RandomSeed: 2}))
		for i, v := range fx.read(r.y) {
			sum += float64(v) * float64(dy[i])
		}
		return sum
	}
	for i, p := range m.Parameters() {
		old, direction := fx.read(p.Tensor), normal(uint64(100+i), p.Tensor.Len())
		const step = 1.0 / 256
		at := func(step float32) float64 {
			moved := make([]float32, len(old))
			for i := range moved {
				moved[i] = old[i] + step*direction[i]
			}
			require.NoError(t, p.Tensor.Write(t.Context(), moved))
			return loss()
		}
		want := (at(step) - at(-step)) / (2 * step)
		require.NoError(t, p.Tensor.Write(t.Context(), old))
		sum, squares := 0.0, 0.0
		for i, g := range got[p.Name] {
			sum += float64(g) * float64(direction[i])
			squares += float64(g) * float64(g)
		}
		assert.InDelta(t, want, sum, 0.02*max(1, math.Sqrt(squares)), p.Name)
	}
}
