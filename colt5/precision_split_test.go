package colt5

import (
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A ViT's config says how many rows an item has; no call and no batch changes that. It decides whether products are split.
func TestPrecisionSplitRows(t *testing.T) {
	b := newBench(t)
	c := smallViT()
	check := func(heavy int) {
		v := create(b, NewConditionalRoutedViT, c)
		for _, f := range v.layer.feedForward {
			assert.Equal(t, [2]int{96, heavy}, [2]int{f.light.rows, f.heavy.rows})
		}
	}
	check(7)
	c.FFNumHeavyTokens = 100
	check(96)
	f := create(b, NewConditionalRoutedFeedForward, smallFeedForward())
	assert.Equal(t, [2]int{}, [2]int{f.layer.light.rows, f.layer.heavy.rows}, "how long a sequence is, no config says")
}

// A feedforward of few rows by configuration, as a ViT has them, splits the product of its many hidden channels: an item's bits are the same in any
// batch, and the memory for the parts is told beforehand.
func TestPrecisionSplitProducts(t *testing.T) {
	b := newBench(t)
	c := smallFeedForward()
	c.Dim, c.HeavyFFMult = 32, 64 // 2 parts of 1,024
	const items, n = 3, 20
	exact, x := create(b, NewConditionalRoutedFeedForward, c), normal(3, items*n*c.Dim)
	run := func(b *bench, m *ConditionalRoutedFeedForward, items int, x []float32) (y []float32, stats CallStats, sums int) {
		m.layer.heavy.rows = c.NumHeavyTokens
		y = b.output(func(y *Tensor) error { return m.Forward(y, b.floats(x, items, n, c.Dim), FeedForwardOptions{}) }, items, n, c.Dim)
		stats, err := m.LastCall()
		require.NoError(b.t, err)
		return y, stats, strings.Count(strings.Join(stats.Steps, " "), "linear_sum")
	}
	want, _, sums := run(b, exact, items, x)
	assert.Zero(t, sums, "float32 is not split")
	for _, p := range []DType{F16, BF16} {
		t.Run(p.String(), func(t *testing.T) {
			if missing := p.Supported(b.dev.Caps()); missing != nil {
				t.Skip(missing)
			}
			gputest.CountCase()
			in, c := &bench{t, b.dev}, c
			c.Precision = p
			m := create(in, NewConditionalRoutedFeedForward, c)
			got, stats, sums := run(in, m, items, x)
			assert.Equal(t, 1, sums)
			for i := range want {
				require.InDelta(t, want[i], got[i], 4e-2, "number %d", i)
			}
			for j := range items {
				alone, _, sums := run(in, m, 1, part(x, j, items))
				assert.Equal(t, 1, sums)
				assert.True(t, sameBits(alone, part(got, j, items)), "item %d", j)
			}
			var layer routedFeedForward
			told, err := measure("split", b.dev.Caps(), p, 0, 0, func(w *weights) {
				layer = w.routedFeedForward("", c)
				layer.heavy.rows = c.NumHeavyTokens
			}, func(to *builder) { layer.forward(to, feedForwardInput{b: items, n: n, tokens: c.NumHeavyTokens}) })
			require.NoError(t, err)
			assert.Equal(t, told.Workspace, stats.Workspace)
			whole, err := c.Memory(b.dev.Caps(), items, n)
			require.NoError(t, err)
			assert.Greater(t, told.Workspace, whole.Workspace, "without parts")
		})
	}
}
