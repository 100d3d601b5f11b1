package colt5

import (
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// anyModule is what the tests need of every module with weights.
type anyModule interface {
	closer
	Parameters() []Parameter
	Init(seed uint64) error
	Load(path string) error
	Save(path string) error
	LastCall() (CallStats, error)
	Inspect(on bool)
	LastRouting() ([]RoutingRecord, error)
	Profile(on bool)
}

// goldenModule makes the module of a golden case with the weights of the case.
func goldenModule[C any, M anyModule](b *bench, c *golden.Case, make func(*vk.Device, C) (M, error)) M {
	b.t.Helper()
	var config C
	require.NoError(b.t, c.DecodeConfig(&config))
	m, err := make(b.dev, config)
	require.NoError(b.t, err)
	b.keep(m)
	b.set(m.Parameters(), c)
	return m
}

// checkGolden runs a case three times, which gives the same bits, and once more, with Inspect, for the decisions of its routers.
func (b *bench) checkGolden(c *golden.Case, m anyModule, forward func(y *Tensor) error) {
	b.t.Helper()
	y := b.tensor(F32, c.Outputs["y"].Shape...)
	var first []float32
	for range 3 {
		require.NoError(b.t, y.Write(nans(y.Len())))
		require.NoError(b.t, forward(y))
		now := b.read(y)
		if first == nil {
			first = now
			b.near(c, "y", now, c.Outputs["y"], c.OutputBound("y"))
		}
		require.True(b.t, sameBits(first, now), "another run gave other bits")
	}
	m.Inspect(true)
	require.NoError(b.t, forward(y))
	assert.True(b.t, sameBits(first, b.read(y)), "with Inspect the output has other bits")
	b.checkDecisions(c, m)
}

func nans(n int) []float32 { return slices.Repeat([]float32{float32(math.NaN())}, n) }

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
}

// checkDecisions compares what routers decided with the routes of a case.
func (b *bench) checkDecisions(c *golden.Case, m anyModule) {
	b.t.Helper()
	list, err := m.LastRouting()
	require.NoError(b.t, err)
	require.Len(b.t, list, len(c.Routes))
	for _, d := range list {
		want, ok := c.Routes[d.Router]
		require.True(b.t, ok, d.Router)
		require.Len(b.t, d.SoftScores, d.Lists*(len(d.SoftScores)/d.Lists))
		got := decisionRows(d, c.Module == "ConditionalRoutedAutoregressiveAttention")
		k := want.Indices.Shape[len(want.Indices.Shape)-1]
		require.Len(b.t, got.chosen, len(want.Indices.I32)/k, d.Router)
		for i, row := range got.chosen {
			wanted := chosenOf(want.Indices.I32[i*k:][:k], want.Scores.F32[i*k:][:k], 0)
			require.Len(b.t, row, len(wanted), "%s, row %d", d.Router, i)
			for token, score := range wanted {
				require.InDelta(b.t, score, row[token], c.ScoreBound(), "%s, row %d, token %d", d.Router, i, token)
			}
		}
		b.near(c, d.Router+" soft scores", got.soft, want.ScoresAll, c.ScoreBound())
	}
}

// decided is a decision in the order of the rows of golden cases.
type decided struct {
	chosen []map[int32]float32 // score by token
	soft   []float32
}

func chosenOf(indices []int32, scores []float32, from int) map[int32]float32 {
	m := map[int32]float32{}
	for i, s := range scores {
		if s != 0 {
			m[indices[i]-int32(from)] = s
		}
	}
	return m
}

func decisionRows(d RoutingRecord, autoregressive bool) decided {
	n := len(d.SoftScores) / d.Lists
	if autoregressive && d.Windows == 0 {
		return queryRows(d, n)
	}
	var r decided
	if d.Windows > 0 {
		padded := d.Block
		for list := range d.Lists {
			if list/d.Routes%d.Windows == 0 {
				continue // golden cases leave the first window out
			}
			r.chosen = append(r.chosen, chosenOf(d.Indices[list*d.K:][:d.K], d.Scores[list*d.K:][:d.K], 0))
			r.soft = append(append(r.soft, d.SoftScores[list*n:][:n]...), make([]float32, padded-n)...)
		}
		return r
	}
	for list := range d.Lists {
		r.chosen = append(r.chosen, chosenOf(d.Indices[list*d.K:][:d.K], d.Scores[list*d.K:][:d.K], 0))
	}
	r.soft = blockRows(d.SoftScores, d.Lists/d.Routes, d.Routes, n/d.Block, d.Block)
	return r
}

// queryRows is decisionRows for the queries of windows: a row for each window but the first, with tokens counted from its start.
func queryRows(d RoutingRecord, n int) decided {
	var r decided
	windows := (n + d.Block - 1) / d.Block
	count := d.K / windows
	for item := range d.Lists {
		soft := append(slices.Clone(d.SoftScores[item*n:][:n]), make([]float32, windows*d.Block-n)...)
		r.soft = append(r.soft, soft[d.Block:]...)
		for window := 1; window < windows; window++ {
			at := item*d.K + window*count
			r.chosen = append(r.chosen, chosenOf(d.Indices[at:][:count], d.Scores[at:][:count], window*d.Block))
		}
	}
	return r
}

func TestGoldenAttention(t *testing.T) {
	forEach(t, "ConditionalRoutedAttention", func(b *bench, c *golden.Case) {
		m := goldenModule(b, c, NewConditionalRoutedAttention)
		x, mask := b.input(c, "x"), b.input(c, "mask")
		b.checkGolden(c, m, func(y *Tensor) error { return m.Forward(y, x, AttentionOptions{Mask: mask}) })
	})
}

func TestGoldenBlock(t *testing.T) {
	forEach(t, "ConditionalRoutedTransformerBlock", func(b *bench, c *golden.Case) {
		m := goldenModule(b, c, NewConditionalRoutedTransformerBlock)
		x, mask := b.input(c, "x"), b.input(c, "mask")
		b.checkGolden(c, m, func(y *Tensor) error { return m.Forward(y, x, BlockOptions{Mask: mask}) })
	})
}

func TestGoldenCrossAttention(t *testing.T) {
	forEach(t, "ConditionalRoutedCrossAttention", func(b *bench, c *golden.Case) {
		m := goldenModule(b, c, NewConditionalRoutedCrossAttention)
		x, context := b.input(c, "x"), b.input(c, "context")
		o := CrossAttentionOptions{Mask: b.input(c, "mask"), ContextMask: b.input(c, "context_mask")}
		b.checkGolden(c, m, func(y *Tensor) error { return m.Forward(y, x, context, o) })
	})
}

func TestGoldenAutoregressiveAttention(t *testing.T) {
	forEach(t, "ConditionalRoutedAutoregressiveAttention", func(b *bench, c *golden.Case) {
		m := goldenModule(b, c, NewConditionalRoutedAutoregressiveAttention)
		x := b.input(c, "x")
		b.checkGolden(c, m, func(y *Tensor) error { return m.Forward(y, x, AutoregressiveOptions{}) })
	})
}

func TestGoldenImageAttention(t *testing.T) {
	forEach(t, "ConditionalRoutedImageAttention", func(b *bench, c *golden.Case) {
		m := goldenModule(b, c, NewConditionalRoutedImageAttention)
		x := b.input(c, "x")
		b.checkGolden(c, m, func(y *Tensor) error { return m.Forward(y, x, ImageOptions{}) })
	})
}

func TestGoldenViT(t *testing.T) {
	forEach(t, "ConditionalRoutedViT", func(b *bench, c *golden.Case) {
		m := goldenModule(b, c, NewConditionalRoutedViT)
		x := b.input(c, "x")
		b.checkGolden(c, m, func(y *Tensor) error { return m.Forward(y, x) })
	})
}
