package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLossParts(t *testing.T) {
	parts := func(items, rows, classes int) []rowPart {
		return head{weight: &Tensor{shape: []int{classes, 1}}, budget: lossBytes}.lossParts(items, rows)
	}
	assert.Equal(t, []rowPart{{items: 2, rows: 8192}}, parts(2, 8192, 256))
	assert.Equal(t, []rowPart{{items: 8, rows: 8192}, {item: 8, items: 1, rows: 8192}}, parts(9, 8192, 256))
	assert.Equal(t, []rowPart{
		{items: 1, rows: 512}, {items: 1, row: 512, rows: 512}, {items: 1, row: 1024, rows: 1},
		{item: 1, items: 1, rows: 512}, {item: 1, items: 1, row: 512, rows: 512}, {item: 1, items: 1, row: 1024, rows: 1},
	}, parts(2, 1025, 32768))
	assert.Equal(t, []rowPart{{items: 1, rows: 16}, {items: 1, row: 16, rows: 1}}, parts(1, 17, 1<<23), "rows longer than the limit")
	assert.Equal(t, []rowPart{{items: 1, rows: 12}}, parts(1, 12, 1<<23))
}

// lossRun is what a graph with a loss computes.
type lossRun struct {
	loss, gradients, dx []float32
	workspace           uint64
}

// runLoss runs a graph that computes the cross-entropy of a module's logits, and all gradients. With logits, they are an
// output too, so that the cross-entropy is a node of its own. x is f32, with a gradient, or i32.
func (fx *fixture) runLoss(parameters []Parameter, forward func(y, x *Tensor) error, x *Tensor, labels []int32, classes int, logits bool) (r lossRun) {
	g := fx.graph()
	y, lead := g.Value(""), x.shape
	if x.dtype == F32 {
		lead = x.shape[:len(x.shape)-1]
	}
	require.NoError(fx.t, forward(y, g.Input("x", x.dtype, x.shape...)))
	g.Output("logits", y)
	g.Output("loss", g.CrossEntropy(y, g.Input("labels", I32, lead...)))
	gradients, err := NewGradients(fx.dev, parameters)
	require.NoError(fx.t, err)
	fx.closeAtEnd(gradients)
	loss, dx := fx.tensor(F32, 2), fx.tensor(F32, x.shape...)
	tensors := feed{"x": x, "labels": fx.ints(labels, lead...), "loss": loss}
	if logits {
		tensors["logits"] = fx.tensor(F32, append(append([]int(nil), lead...), classes)...)
	}
	back := &Backward{Upstream: feed{"loss": fx.floats([]float32{0.5, 7}, 2)}, Parameters: gradients}
	if x.dtype == F32 {
		back.Inputs = feed{"x": dx}
	}
	var stats CallStats
	require.NoError(fx.t, g.Run(fx.t.Context(), tensors, GraphOptions{Backward: back, Stats: &stats}))
	r = lossRun{fx.read(loss), fx.read(gradients.Flat()), nil, stats.Workspace}
	if x.dtype == F32 {
		r.dx = fx.read(dx)
	}
	tensors["labels"] = fx.ints(append([]int32{int32(classes)}, labels[1:]...), lead...)
	assert.ErrorContains(fx.t, g.Run(fx.t.Context(), tensors, GraphOptions{Backward: back}), "labels has 1 labels that are neither -1 nor below")
	return r
}

// TestLossPrecisions: in all precisions that the device supports, a loss whose logits nothing else uses has the bits of one with logits, also where they are computed in
// parts. Only gradients of parameters are then sums in another order.
func TestLossPrecisions(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 3 s on CPU drivers")
	}
	fx := newFixture(t)
	for _, p := range []DType{F32, F16, BF16} {
		if p.Supported(fx.dev.Caps()) == nil {
			t.Run(p.String(), func(t *testing.T) { checkLoss(fx.sub(t), p) })
		}
	}
}

// checkLoss checks losses of a precision.
func checkLoss(fx *fixture, p DType) {
	t := fx.t
	const items, n, classes = 3, 24, 16
	labels := make([]int32, items*n)
	for i := range labels {
		labels[i] = int32(i*5%8) - 1
	}
	check := func(parameters []Parameter, forward func(y, x *Tensor) error, x *Tensor, classes int, budget *int) {
		gputest.CountCase()
		separate := fx.runLoss(parameters, forward, x, labels, classes, true)
		for name, bytes := range map[string]int{"at once": lossBytes, "two items": 8 * n * classes, "parts of an item": 4 * 16 * classes} {
			*budget = bytes
			fused := fx.runLoss(parameters, forward, x, labels, classes, false)
			assert.Equal(t, separate.loss, fused.loss, name)
			if name == "parts of an item" {
				assert.NoError(t, ref.MaxErr(fused.gradients, float64s(separate.gradients)).Within(1e-6), name)
			} else {
				assert.Equal(t, separate.gradients, fused.gradients, name)
			}
			assert.Equal(t, separate.dx, fused.dx, name)
		}
	}
	for _, bias := range []bool{false, true} {
		l := mustNewSeeded(fx, NewLinear, LinearConfig{In: 8, Out: classes, Bias: bias, Precision: p})
		forward := func(y, x *Tensor) error { return l.Forward(t.Context(), y, x, CallOptions{}) }
		check(l.Parameters(), forward, fx.floats(normal(1, items*n*8), items, n, 8), classes, &l.layer.(*linearLayer).budget)
	}
	if p != F32 && fx.dev.Caps().CPU {
		return // the attention's gradients take minutes
	}
	config := smallTransformer()
	config.Depth, config.Precision = 1, p
	m := mustNewSeeded(fx, NewAutoregressiveTransformer, config)
	forward := func(y, x *Tensor) error { return m.Forward(t.Context(), y, x, AutoregressiveOptions{}) }
	ids := make([]int32, items*n)
	for i := range ids {
		ids[i] = int32(i * 7 % config.NumTokens)
	}
	check(m.Parameters(), forward, fx.ints(ids, items, n), config.NumTokens, &m.layer.(*autoregressiveTransformer).budget)
}

// TestLossMemory: the logits of a loss are never in memory all at once.
func TestLossMemory(t *testing.T) {
	fx := newFixture(t)
	g := NewGraph(nil)
	defer g.Close()
	l, err := NewLinear(t.Context(), nil, LinearConfig{In: 512, Out: 32768})
	require.NoError(t, err)
	y := g.Value("")
	require.NoError(t, l.Forward(t.Context(), y, g.Input("x", F32, 0, 0, 512), CallOptions{}))
	g.Output("loss", g.CrossEntropy(y, g.Input("labels", I32, 0, 0)))
	inputs := map[string][]int{"x": {4, 16384, 512}, "labels": {4, 16384}}
	for training, want := range map[bool]uint64{false: 80 << 20, true: 700 << 20} {
		m, err := g.Memory(fx.dev.Caps(), inputs)
		if training {
			m, err = g.TrainingMemory(fx.dev.Caps(), inputs, 0)
		}
		require.NoError(t, err)
		assert.Less(t, m.Workspace, want, "training: %v, logits have 8 GiB", training)
	}
}
