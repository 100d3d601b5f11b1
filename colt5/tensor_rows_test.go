package colt5

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
)

// TestShare: modules that share weights see the same elements, whoever changes them, and close in any order.
func TestShare(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	c := smallFeedForward()
	first := mustNewSeeded(fx, NewConditionalRoutedFeedForward, c)
	c.NumHeavyTokens += 5
	second := mustNewSeeded(fx, NewConditionalRoutedFeedForward, c)
	require.NoError(t, second.Init(t.Context(), 9))
	x := fx.floats(normal(1, smallN*smallDim), 1, smallN, smallDim)
	forward := func(m *ConditionalRoutedFeedForward, tokens int) []float32 {
		return fx.finiteOutput(func(y *Tensor) error { return m.Forward(t.Context(), y, x, FeedForwardOptions{NumHeavyTokens: tokens}) }, 1, smallN, smallDim)
	}
	assert.NotEqual(t, forward(first, 8), forward(second, 8))
	before := fx.dev.Stats()
	require.NoError(t, second.Share(t.Context(), first.Parameters()))
	assert.Less(t, fx.dev.Stats().Buffers, before.Buffers, "the old elements are freed")
	assert.Equal(t, forward(first, 8), forward(second, 8))
	require.NoError(t, second.Init(t.Context(), 11))
	assert.Equal(t, forward(first, 8), forward(second, 8))
	want := forward(first, 8)
	require.NoError(t, first.Close())
	assert.Equal(t, want, forward(second, 8), "the memory stays while a module uses it")

	table := mustNewSeeded(fx, NewEmbedding, EmbeddingConfig{NumTokens: 7, Dim: smallDim})
	head := mustNewSeeded(fx, NewLinear, LinearConfig{In: smallDim, Out: 7})
	require.NoError(t, head.Share(t.Context(), []Parameter{{Name: "weight", Tensor: table.Parameters()[0].Tensor}}))
	got := fx.finiteOutput(func(y *Tensor) error {
		return head.Forward(t.Context(), y, table.Parameters()[0].Tensor, CallOptions{})
	}, 7, 7)
	w := fx.read(table.Parameters()[0].Tensor)
	for i := range 7 {
		for j := range 7 {
			dot := 0.0
			for k := range smallDim {
				dot += float64(w[i*smallDim+k]) * float64(w[j*smallDim+k])
			}
			assert.InDelta(t, dot, got[i*7+j], 1e-5)
		}
	}
	tied := fx.graph()
	ids, h, logits := tied.Input("ids", I32, 0), tied.Value(""), tied.Value("")
	require.NoError(t, table.Forward(t.Context(), h, ids, CallOptions{}))
	require.NoError(t, head.Forward(t.Context(), logits, h, CallOptions{}))
	tied.Output("logits", logits)
	assert.Equal(t, got, fx.runGraph(tied, feed{"ids": fx.ints([]int32{0, 1, 2, 3, 4, 5, 6}, 7)}, "logits", 7, 7))
	m, err := tied.Memory(fx.dev.Caps(), map[string][]int{"ids": {7}})
	require.NoError(t, err)
	assert.EqualValues(t, 4*7*smallDim, m.Weights, "counted once")

	own := mustNewSeeded(fx, NewLinear, LinearConfig{In: smallDim, Out: 7})
	for want, list := range map[string][]Parameter{
		`Linear.Share: list has "wait", which is not a parameter`: {{Name: "wait", Tensor: table.Parameters()[0].Tensor}},
		`Linear.Share: list has "weight" twice`:                   {{Name: "weight", Tensor: table.Parameters()[0].Tensor}, {Name: "weight", Tensor: table.Parameters()[0].Tensor}},
		`Linear.Share: weight is f32[1 8], want f32[7 8]`:         {{Name: "weight", Tensor: second.Parameters()[0].Tensor}},
		`Linear.Share: weight is nil, want f32[7 8]`:              {{Name: "weight"}},
	} {
		assert.ErrorContains(t, own.Share(t.Context(), list), want)
	}
	assert.NotEqual(t, w, fx.read(own.Parameters()[0].Tensor), "a failed Share changes nothing")
}

// TestTensorRows: a view shares the elements, and keeps the memory until both are closed.
func TestTensorRows(t *testing.T) {
	fx := newFixture(t)
	data := normal(1, 6*4)
	x, err := FromSlice(t.Context(), fx.dev, data, 6, 4)
	require.NoError(t, err)
	view, err := x.Rows(2, 3)
	require.NoError(t, err)
	assert.Equal(t, []int{3, 4}, view.Shape())
	assert.Equal(t, data[8:20], fx.read(view))
	require.NoError(t, view.Write(t.Context(), make([]float32, 12)))
	assert.Equal(t, make([]float32, 12), fx.read(x)[8:20])
	part, err := view.Rows(1, 1)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	require.NoError(t, x.Close())
	_, err = x.Float32(t.Context())
	assert.ErrorContains(t, err, "closed")
	require.NoError(t, view.Close())
	assert.Equal(t, make([]float32, 4), fx.read(part))
	require.NoError(t, part.Close())
	_, err = part.Rows(0, 1)
	assert.ErrorContains(t, err, "colt5: Tensor.Rows: the tensor is closed")

	bytes := fx.bytes(make([]uint8, 60), 4, 15)
	_, err = bytes.Rows(1, 1)
	assert.ErrorContains(t, err, "row 1 starts at byte 15, want a multiple of 16")
	for _, bad := range [][2]int{{-1, 1}, {0, 0}, {0, 5}, {4, 1}} {
		_, err = bytes.Rows(bad[0], bad[1])
		assert.ErrorContains(t, err, "want rows of a tensor of 4")
	}
}
