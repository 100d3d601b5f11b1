package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGraphCrossEntropy compares loss, count and gradients with the CPU reference, of logits that another node uses, too.
func TestGraphCrossEntropy(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	gputest.CountCase()
	fx := newFixture(t)
	const items, n, classes = 3, 5, 7
	head := mustNewSeeded(fx, NewLinear, LinearConfig{In: 4, Out: classes, Bias: true})
	for _, twice := range []bool{false, true} {
		g := fx.graph()
		logits := g.Value("logits")
		require.NoError(t, head.Forward(t.Context(), logits, g.Input("x", F32, 0, 0, 4), CallOptions{}))
		g.Output("loss", g.CrossEntropy(logits, g.Input("labels", I32, 0, 0)))
		other := logits
		if twice {
			other = g.Add(logits, logits)
		}
		g.Output("other", other)
		labels := []int32{0, -1, 6, 3, 3, -1, -1, -1, -1, -1, 2, 1, 0, 5, 4}
		x := normal(1, items*n*4)
		loss, out := fx.tensor(F32, 2), fx.tensor(F32, items, n, classes)
		scale, dx := fx.floats([]float32{0.5, 9}, 2), fx.tensor(F32, items, n, 4)
		gradients, err := NewGradients(fx.dev, head.Parameters())
		require.NoError(t, err)
		fx.closeAtEnd(gradients)
		tensors := feed{"x": fx.floats(x, items, n, 4), "labels": fx.ints(labels, items, n), "loss": loss, "other": out}
		back := &Backward{Upstream: feed{"loss": scale}, Inputs: feed{"x": dx}, Parameters: gradients}
		var up []float32
		if twice {
			up = normal(5, items*n*classes)
			back.Upstream["other"] = fx.floats(up, items, n, classes)
		}
		require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{Backward: back}))
		value := fx.read(out)
		if twice {
			for i := range value {
				value[i] /= 2
			}
		}
		result := ref.CrossEntropy(ref.CrossEntropyArgs{Logits: value, Labels: labels, Items: items, N: n, V: classes, Upstream: 1})
		want, sum, count := result.DLogits, 0.0, 0
		for i, l := range labels {
			if l >= 0 {
				sum, count = sum+result.Losses[i], count+1
			}
		}
		got := fx.read(loss)
		assert.InDelta(t, sum, got[0], 1e-5)
		assert.Equal(t, float32(count), got[1])
		w, dbias, wantX := fx.parameters(head.Parameters())["weight"], make([]float64, classes), make([]float64, items*n*4)
		for i := range value {
			d := 0.5 * want[i]
			if twice {
				d += 2 * float64(up[i])
			}
			dbias[i%classes] += d
			for k := range 4 {
				wantX[i/classes*4+k] += d * float64(w[i%classes*4+k])
			}
		}
		assert.NoError(t, ref.MaxErr(fx.read(dx), wantX).Within(1e-5))
		assert.NoError(t, ref.MaxErr(fx.parameters(gradients.List())["bias"], dbias).Within(1e-5))
		again := fx.read(gradients.Flat())
		require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{Backward: back}))
		assert.Equal(t, again, fx.read(gradients.Flat()))
		tensors["labels"] = fx.ints(append([]int32{7, -2}, labels[2:]...), items, n)
		assert.ErrorContains(t, g.Run(t.Context(), tensors, GraphOptions{Backward: back}), "labels has 2 labels that are neither -1 nor below 7")
	}
}

// TestGraphMeanSquaredError compares sum, count and gradients of both values with float64, of several ranks.
func TestGraphMeanSquaredError(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	for _, shape := range [][]int{{1}, {3}, {4, 7}, {3, 5, 9}} {
		g, sizes := fx.graph(), make([]int, len(shape))
		x, target := g.Input("x", F32, sizes...), g.Input("target", F32, sizes...)
		other := g.Add(x, target)
		g.Output("loss", g.MeanSquaredError(other, target))
		count := product(shape)
		a, b, loss := normal(1, count), normal(2, count), fx.tensor(F32, 2)
		dx, dtarget := fx.tensor(F32, shape...), fx.tensor(F32, shape...)
		tensors := feed{"x": fx.floats(a, shape...), "target": fx.floats(b, shape...), "loss": loss}
		back := &Backward{Upstream: feed{"loss": fx.floats([]float32{0.5, 7}, 2)}, Inputs: feed{"x": dx, "target": dtarget}}
		require.NoError(t, g.Run(t.Context(), tensors, GraphOptions{Backward: back}))
		sum, want := 0.0, make([]float64, count)
		for i := range a { // (a + b) - b: of the target both gradients cancel
			d := float64(float32(a[i]+b[i])) - float64(b[i])
			sum, want[i] = sum+d*d, 0.5*2*d
		}
		got := fx.read(loss)
		assert.InEpsilon(t, sum, got[0], 1e-5)
		assert.Equal(t, float32(count), got[1])
		assert.NoError(t, ref.MaxErr(fx.read(dx), want).Within(1e-6))
		assert.NoError(t, ref.MaxErr(fx.read(dtarget), make([]float64, count)).Within(1e-6))
	}
	g := fx.graph()
	g.Output("loss", g.MeanSquaredError(g.Input("x", F32, 0, 4), g.Input("target", F32, 0, 5)))
	assert.ErrorContains(t, g.Run(t.Context(), nil, GraphOptions{}), "colt5: Graph.Run: Graph.MeanSquaredError: target is the value target f32[* 5], want f32[* 4]")
}
