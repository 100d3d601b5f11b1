package colt5

import (
	"context"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// anyModule is the interface of all modules with weights that these tests use.
type anyModule interface {
	closer
	Parameters() []Parameter
	Init(ctx context.Context, seed uint64) error
	Load(ctx context.Context, path string) error
	Save(ctx context.Context, path string) error
}

// goldenModule creates the module of a golden case and loads the weights of the case.
func goldenModule[C any, M anyModule](fx *fixture, c *golden.Case, newModule func(context.Context, *vk.Device, C) (M, error)) M {
	fx.t.Helper()
	var config C
	require.NoError(fx.t, c.DecodeConfig(&config))
	m, err := newModule(fx.t.Context(), fx.dev, config)
	require.NoError(fx.t, err)
	fx.closeAtEnd(m)
	fx.setWeights(m.Parameters(), c)
	return m
}

// checkGolden runs a case three times and fails if the output bits differ between runs or from the case. A fourth run
// checks the routing records.
func (fx *fixture) checkGolden(c *golden.Case, forward func(y *Tensor, routing *[]RoutingRecord) error) {
	fx.t.Helper()
	y := fx.tensor(F32, c.Outputs["y"].Shape...)
	var first []float32
	for range 3 {
		require.NoError(fx.t, y.Write(fx.t.Context(), nanFill(y.Len())))
		require.NoError(fx.t, forward(y, nil))
		now := fx.read(y)
		if first == nil {
			first = now
			fx.checkNear(c, "y", now, c.Outputs["y"], c.OutputBound("y"))
		}
		require.True(fx.t, sameBits(first, now), "runs differ")
	}
	var routing []RoutingRecord
	require.NoError(fx.t, forward(y, &routing))
	assert.True(fx.t, sameBits(first, fx.read(y)), "recording the routing changes the output")
	fx.checkRoutingRecords(c, routing)
}

// checkRoutingRecords compares routing records with those of a golden case.
func (fx *fixture) checkRoutingRecords(c *golden.Case, list []RoutingRecord) {
	fx.t.Helper()
	require.Len(fx.t, list, len(c.Routings))
	for _, d := range list {
		want, ok := c.Routings[d.Router]
		require.True(fx.t, ok, d.Router)
		require.Len(fx.t, d.SoftScores, d.Lists*(len(d.SoftScores)/d.Lists))
		got := goldenRows(d, c.Module == "ConditionalRoutedAutoregressiveAttention")
		k := want.Indices.Shape[len(want.Indices.Shape)-1]
		require.Len(fx.t, got.selected, len(want.Indices.I32)/k, d.Router)
		for i, row := range got.selected {
			wantRow := scoreByToken(want.Indices.I32[i*k:][:k], want.Scores.F32[i*k:][:k], 0)
			require.Len(fx.t, row, len(wantRow), "%s, row %d", d.Router, i)
			for token, score := range wantRow {
				require.InDelta(fx.t, score, row[token], c.ScoreBound(), "%s, row %d, token %d", d.Router, i, token)
			}
		}
		fx.checkNear(c, d.Router+" soft scores", got.soft, want.ScoresAll, c.ScoreBound())
	}
}

// goldenRouting is a routing record in the row order of golden cases.
type goldenRouting struct {
	selected []map[int32]float32 // score by token, a map for each row
	soft     []float32
}

// scoreByToken maps the tokens of the slots that are not empty, relative to token from, to their scores.
func scoreByToken(indices []int32, scores []float32, from int) map[int32]float32 {
	m := map[int32]float32{}
	for i, s := range scores {
		if s != 0 {
			m[indices[i]-int32(from)] = s
		}
	}
	return m
}

// goldenRows converts a routing record to the row order of golden cases.
func goldenRows(d RoutingRecord, autoregressive bool) goldenRouting {
	n := len(d.SoftScores) / d.Lists
	if autoregressive && d.Windows == 0 {
		return goldenQueryRows(d, n)
	}
	var r goldenRouting
	if d.Windows > 0 {
		padded := d.Block
		for list := range d.Lists {
			if list/d.Routes%d.Windows == 0 {
				continue // golden cases have no rows of the first window
			}
			r.selected = append(r.selected, scoreByToken(d.Indices[list*d.K:][:d.K], d.Scores[list*d.K:][:d.K], 0))
			r.soft = append(append(r.soft, d.SoftScores[list*n:][:n]...), make([]float32, padded-n)...)
		}
		return r
	}
	for list := range d.Lists {
		r.selected = append(r.selected, scoreByToken(d.Indices[list*d.K:][:d.K], d.Scores[list*d.K:][:d.K], 0))
	}
	r.soft = blockRows(d.SoftScores, d.Lists/d.Routes, d.Routes, n/d.Block, d.Block)
	return r
}

// goldenQueryRows is goldenRows for the query router of an autoregressive attention: a row for each window but the
// first. Token indices are relative to the window.
func goldenQueryRows(d RoutingRecord, n int) goldenRouting {
	var r goldenRouting
	windows := (n + d.Block - 1) / d.Block
	count := d.K / windows
	for item := range d.Lists {
		soft := append(slices.Clone(d.SoftScores[item*n:][:n]), make([]float32, windows*d.Block-n)...)
		r.soft = append(r.soft, soft[d.Block:]...)
		for window := 1; window < windows; window++ {
			at := item*d.K + window*count
			r.selected = append(r.selected, scoreByToken(d.Indices[at:][:count], d.Scores[at:][:count], window*d.Block))
		}
	}
	return r
}

func TestGoldenAttention(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedAttention", func(fx *fixture, c *golden.Case) {
		m := goldenModule(fx, c, NewConditionalRoutedAttention)
		x, mask := fx.goldenInput(c, "x"), fx.goldenInput(c, "mask")
		fx.checkGolden(c, func(y *Tensor, routing *[]RoutingRecord) error {
			return m.Forward(fx.t.Context(), y, x, AttentionOptions{Mask: mask, Routing: routing})
		})
	})
}

func TestGoldenBlock(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedTransformerBlock", func(fx *fixture, c *golden.Case) {
		m := goldenModule(fx, c, NewConditionalRoutedTransformerBlock)
		x, mask := fx.goldenInput(c, "x"), fx.goldenInput(c, "mask")
		fx.checkGolden(c, func(y *Tensor, routing *[]RoutingRecord) error {
			return m.Forward(fx.t.Context(), y, x, BlockOptions{Mask: mask, Routing: routing})
		})
	})
}

func TestGoldenCrossAttention(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedCrossAttention", func(fx *fixture, c *golden.Case) {
		m := goldenModule(fx, c, NewConditionalRoutedCrossAttention)
		x, context := fx.goldenInput(c, "x"), fx.goldenInput(c, "context")
		o := CrossAttentionOptions{Mask: fx.goldenInput(c, "mask"), ContextMask: fx.goldenInput(c, "context_mask")}
		fx.checkGolden(c, func(y *Tensor, routing *[]RoutingRecord) error {
			o.Routing = routing
			return m.Forward(fx.t.Context(), y, x, context, o)
		})
	})
}

func TestGoldenAutoregressiveAttention(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedAutoregressiveAttention", func(fx *fixture, c *golden.Case) {
		m := goldenModule(fx, c, NewConditionalRoutedAutoregressiveAttention)
		x := fx.goldenInput(c, "x")
		fx.checkGolden(c, func(y *Tensor, routing *[]RoutingRecord) error {
			return m.Forward(fx.t.Context(), y, x, AutoregressiveOptions{Routing: routing})
		})
	})
}

func TestGoldenImageAttention(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedImageAttention", func(fx *fixture, c *golden.Case) {
		m := goldenModule(fx, c, NewConditionalRoutedImageAttention)
		x := fx.goldenInput(c, "x")
		fx.checkGolden(c, func(y *Tensor, routing *[]RoutingRecord) error {
			return m.Forward(fx.t.Context(), y, x, ImageOptions{Routing: routing})
		})
	})
}

func TestGoldenViT(t *testing.T) {
	forEachGolden(t, "ConditionalRoutedViT", func(fx *fixture, c *golden.Case) {
		m := goldenModule(fx, c, NewConditionalRoutedViT)
		x := fx.goldenInput(c, "x")
		fx.checkGolden(c, func(y *Tensor, routing *[]RoutingRecord) error {
			return m.Forward(fx.t.Context(), y, x, ViTOptions{Routing: routing})
		})
	})
}
