package colt5

import (
	"context"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The number of rows of a batch item decides whether matrix products are split over K. A ViT's config fixes that
// number; no call and no batch size changes it.
func TestSplitKRows(t *testing.T) {
	fx := newFixture(t)
	c := smallViT()
	check := func(heavy int) {
		v := mustNewSeeded(fx, NewConditionalRoutedViT, c)
		for _, f := range v.layer.(*routedViT).feedForward {
			assert.Equal(t, [2]int{96, heavy}, [2]int{f.light.fixedRows, f.heavy.fixedRows})
		}
	}
	check(7)
	c.FFNumHeavyTokens = 100
	check(96)
	f := mustNewSeeded(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	layer := f.layer.(*routedFeedForward)
	assert.Equal(t, [2]int{}, [2]int{layer.light.fixedRows, layer.heavy.fixedRows}, "the config does not fix the sequence length")
}

// A feedforward whose config fixes few rows, as in a ViT, splits the product over its many hidden channels (split K).
// The bits of an item are the same in any batch, and Memory includes the partial sums.
func TestSplitKProducts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s")
	}
	fx := newFixture(t)
	c := smallFeedForward()
	c.Dim, c.HeavyFFMult = 32, 64 // 2,048 hidden channels: 2 parts of 1,024
	const items, n = 3, 20
	exact, x := mustNewSeeded(fx, NewConditionalRoutedFeedForward, c), normal(3, items*n*c.Dim)
	run := func(fx *fixture, m *ConditionalRoutedFeedForward, items int, x []float32) (y []float32, stats CallStats, sums int) {
		m.layer.(*routedFeedForward).heavy.fixedRows = c.NumHeavyTokens
		y = fx.finiteOutput(func(y *Tensor) error {
			return m.Forward(t.Context(), y, fx.floats(x, items, n, c.Dim), FeedForwardOptions{Stats: &stats})
		}, items, n, c.Dim)
		return y, stats, strings.Count(strings.Join(stats.StepNames, " "), "linear_sum")
	}
	want, _, sums := run(fx, exact, items, x)
	assert.Zero(t, sums, "f32 is not split")
	for _, p := range []DType{F16, BF16} {
		t.Run(p.String(), func(t *testing.T) {
			if missing := p.Supported(fx.dev.Caps()); missing != nil {
				t.Skip(missing)
			}
			gputest.CountCase()
			sub, c := fx.sub(t), c
			c.Precision = p
			m := mustNewSeeded(sub, NewConditionalRoutedFeedForward, c)
			got, stats, sums := run(sub, m, items, x)
			assert.Equal(t, 1, sums)
			for i := range want {
				require.InDelta(t, want[i], got[i], 4e-2, "element %d", i)
			}
			for j := range items {
				alone, _, sums := run(sub, m, 1, batchItem(x, j, items))
				assert.Equal(t, 1, sums)
				assert.True(t, sameBits(alone, batchItem(got, j, items)), "item %d", j)
			}
			fixed := fixedRows{c}
			planned, err := fixed.call(nil, nil, FeedForwardOptions{}).measure("split", fx.dev.Caps(), fixed, dimSize{dimB, items}, dimSize{dimN, n})
			require.NoError(t, err)
			assert.Equal(t, planned.Workspace, stats.Workspace)
			unsplit, err := c.Memory(fx.dev.Caps(), items, n)
			require.NoError(t, err)
			assert.Greater(t, planned.Workspace, unsplit.Workspace)
		})
	}
}

// fixedRows is a feedforward config that fixes the number of rows, as a ViT's does.
type fixedRows struct {
	ConditionalRoutedFeedForwardConfig
}

func (c fixedRows) build(w *weights) layer {
	l := w.routedFeedForward("", c.ConditionalRoutedFeedForwardConfig)
	l.heavy.fixedRows = c.NumHeavyTokens
	return l
}

// The gradient of the rows of such a feedforward is a split product too.
func TestSplitKGradients(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the kernels of a backward pass in two precisions")
	}
	fx := newFixture(t)
	if missing := F16.Supported(fx.dev.Caps()); missing != nil {
		t.Skip(missing)
	}
	gputest.CountCase()
	const items, n = 2, 20
	run := func(p DType) (dx []float32, sums int) {
		c := smallFeedForward()
		c.Dim, c.HeavyFFMult, c.Precision = 32, 64, p
		m, stats, shape := mustNewSeeded(fx, NewConditionalRoutedFeedForward, c), CallStats{}, []int{items, n, c.Dim}
		m.layer.(*routedFeedForward).heavy.fixedRows = c.NumHeavyTokens
		size := product(shape)
		r := fx.backwardRun(nil, feed{"x": fx.floats(normal(3, size), shape...)}, normal(4, size), shape, func(ctx context.Context, y *Tensor, in feed) error {
			return m.Forward(ctx, y, in["x"], FeedForwardOptions{})
		})
		r.options.Stats = &stats
		dx = fx.gradients(r)["in.x"]
		return dx, strings.Count(strings.Join(stats.StepNames, " "), "linear_sum")
	}
	want, sums := run(F32)
	assert.Zero(t, sums, "f32 is not split")
	got, sums := run(F16)
	assert.Equal(t, 2, sums, "one in the forward pass, one in the backward pass")
	for i := range want {
		require.InDelta(t, want[i], got[i], 4e-2, "element %d", i)
	}
}
