package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBackwardOfOutputs: outputs that other nodes use too, parts of them, and parts of parts, all with upstream gradients. The
// graph is linear, so that differences of its results are its gradients.
func TestBackwardOfOutputs(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	const n, dim = 6, 4
	first := mustNewSeeded(fx, NewLinear, LinearConfig{In: dim, Out: dim})
	second := mustNewSeeded(fx, NewLinear, LinearConfig{In: dim, Out: dim})
	for _, items := range []int{1, 2} { // with one item, parts are views
		g := fx.graph()
		x, h, y := g.Input("x", F32, 0, 0, dim), g.Value("h"), g.Value("y")
		require.NoError(t, first.Forward(t.Context(), h, x, CallOptions{}))
		part := g.Rows(h, 1, 4)
		inner := g.Rows(part, 1, 2)
		sum := g.Add(inner, g.Rows(h, 2, 2))
		require.NoError(t, second.Forward(t.Context(), y, g.Add(sum, inner), CallOptions{}))
		shapes := map[string][]int{"h": {items, n, dim}, "part": {items, 4, dim}, "sum": {items, 2, dim}, "y": {items, 2, dim}}
		for name, v := range map[string]*Tensor{"h": h, "part": part, "sum": sum, "y": y} {
			g.Output(name, v)
		}
		given, results, upstream, weights := normal(1, items*n*dim), feed{}, feed{}, map[string][]float32{}
		for name, s := range shapes {
			weights[name] = normal(uint64(len(name)), product(s))
			results[name], upstream[name] = fx.tensor(F32, s...), fx.floats(weights[name], s...)
		}
		results["x"] = fx.floats(given, items, n, dim)
		dx := fx.tensor(F32, items, n, dim)
		gradients, err := NewGradients(fx.dev, append(first.Parameters(), second.Parameters()...))
		require.NoError(t, err)
		fx.closeAtEnd(gradients)
		require.NoError(t, g.Run(t.Context(), results, GraphOptions{Backward: &Backward{
			Upstream: upstream, Inputs: feed{"x": dx}, Parameters: gradients,
		}}))
		loss := func() (sum float64) {
			require.NoError(t, g.Run(t.Context(), results, GraphOptions{}))
			for name, w := range weights {
				for i, v := range fx.read(results[name]) {
					sum += float64(v) * float64(w[i])
				}
			}
			return sum
		}
		check := func(name string, of, gradient *Tensor) {
			old, g, direction := fx.read(of), fx.read(gradient), normal(9, of.Len())
			moved, want := make([]float32, len(old)), 0.0
			for i := range old {
				moved[i] = old[i] + direction[i]
				want += float64(direction[i]) * float64(g[i])
			}
			before := loss()
			require.NoError(t, of.Write(t.Context(), moved))
			assert.InDelta(t, want, loss()-before, 2e-3, "%s, %d items", name, items)
			require.NoError(t, of.Write(t.Context(), old))
		}
		check("x", results["x"], dx)
		for _, p := range append(first.Parameters(), second.Parameters()...) {
			check(p.Name, p.Tensor, gradients.Of(p.Tensor))
		}
	}
}
