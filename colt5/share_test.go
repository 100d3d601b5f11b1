package colt5

import (
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// TestShareViews: parameters can be parts of one tensor, first one and then another.
func TestShareViews(t *testing.T) {
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewLinear, LinearConfig{In: 8, Out: 4})
	w := m.Parameters()[0]
	data := normal(3, 8*8)
	all := fx.floats(data, 8, 8)
	for _, first := range []int{0, 4} {
		part, err := all.Rows(first, 4)
		require.NoError(t, err)
		require.NoError(t, m.Share(t.Context(), []Parameter{{Name: w.Name, Tensor: part}}))
		require.NoError(t, part.Close())
		assert.Equal(t, data[8*first:][:32], fx.read(w.Tensor))
	}
	require.NoError(t, all.Close())
	assert.Equal(t, data[32:], fx.read(w.Tensor), "the memory stays while the module uses it")
}

// TestShareExchange: a list may have the module's own parameters under other names.
func TestShareExchange(t *testing.T) {
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewFeedForward, FeedForwardConfig{Dim: 8, Mult: 1})
	buffers := fx.dev.Stats().Buffers
	tensors := map[string]*Tensor{}
	for _, p := range m.Parameters() {
		tensors[p.Name] = p.Tensor
	}
	before := fx.parameters(m.Parameters())
	require.NoError(t, m.Share(t.Context(), []Parameter{{Name: "1.weight", Tensor: tensors["3.weight"]}, {Name: "3.weight", Tensor: tensors["1.weight"]}}))
	after := fx.parameters(m.Parameters())
	assert.Equal(t, before["3.weight"], after["1.weight"])
	assert.Equal(t, before["1.weight"], after["3.weight"])
	assert.Equal(t, buffers, fx.dev.Stats().Buffers)
	assert.ErrorContains(t, m.Share(t.Context(), []Parameter{{Name: "1.weight", Tensor: tensors["3.weight"]}, {Name: "x"}}), "which is not a parameter")
	require.NoError(t, m.Close())
	assert.Equal(t, buffers-5, fx.dev.Stats().Buffers, "a failed Share keeps no memory")
}

// TestShareAllOrNone: if the casts of the new elements cannot be recorded, the parameters keep theirs, and the module
// computes what it did.
func TestShareAllOrNone(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	// A copy in 16 bits, although the products read 32: not all devices have 16-bit products.
	m := mustNewSeeded(fx, NewLinear, LinearConfig{In: 8, Out: 4})
	weight, newBuffer := m.Parameters()[0].Tensor, func(bytes uint64) *vk.Buffer {
		b, err := fx.dev.NewBuffer("copy", bytes)
		require.NoError(t, err)
		return b
	}
	m.weights.precision, m.weights.matrices, weight.cast = F16, []*Tensor{weight}, newBuffer(castMatrixBytes(F16, weight))
	require.NoError(t, m.weights.recordCasts(&m.kernels))
	x, w := fx.floats(normal(5, 3*8), 3, 8), fx.floats(normal(7, 4*8), 4, 8)
	forward := func() []float32 {
		return fx.finiteOutput(func(y *Tensor) error { return m.Forward(t.Context(), y, x, CallOptions{}) }, 3, 4)
	}
	output, before := forward(), fx.parameters(m.Parameters())
	copied, small := weight.cast, newBuffer(2)
	weight.cast = small
	assert.ErrorContains(t, m.Share(t.Context(), []Parameter{{Name: "weight", Tensor: w}}), "colt5: Linear.Share: ")
	weight.cast = copied
	require.NoError(t, small.Close())
	assert.Equal(t, before, fx.parameters(m.Parameters()))
	assert.True(t, sameBits(output, forward()))
	require.NoError(t, m.Share(t.Context(), []Parameter{{Name: "weight", Tensor: w}}))
	assert.False(t, sameBits(output, forward()))
}

// TestSharePrecision: 16-bit products read the elements of a shared weight, whoever wrote them last.
func TestSharePrecision(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	if F16.Supported(fx.dev.Caps()) != nil {
		t.Skip("no 16-bit products on this device")
	}
	half := mustNewSeeded(fx, NewLinear, LinearConfig{In: 8, Out: 4, Precision: F16})
	full := mustNewSeeded(fx, NewLinear, LinearConfig{In: 8, Out: 4})
	norm := mustNew(fx, NewRMSNorm, RMSNormConfig{8})
	x, from := fx.floats(normal(5, 3*8), 3, 8), fx.floats(normal(6, 4*8), 4, 8)
	w := fx.floats(normal(7, 4*8), 4, 8)
	for _, m := range []*Linear{half, full} {
		require.NoError(t, m.Share(t.Context(), []Parameter{{Name: "weight", Tensor: w}}))
	}
	for _, step := range []struct {
		name  string
		write func() error
	}{
		{"nothing since FromSlice", func() error { return nil }},
		{"Init", func() error { return full.Init(t.Context(), 77) }},
		{"Write", func() error { return w.Write(t.Context(), normal(9, 4*8)) }},
		{"Forward", func() error { return norm.Forward(t.Context(), w, from, CallOptions{}) }},
	} {
		require.NoError(t, step.write(), step.name)
		var y [2][]float64
		for i, m := range []*Linear{half, full} {
			y[i] = float64s(fx.finiteOutput(func(y *Tensor) error { return m.Forward(t.Context(), y, x, CallOptions{}) }, 3, 4))
		}
		assert.InDeltaSlice(t, y[1], y[0], 0.05, step.name)
	}
}

// TestStorage: memory that is freed is not used again, also where Close and Rows or Share run at the same time.
func TestStorage(t *testing.T) {
	s := newStorage(nil)
	require.True(t, s.acquire())
	require.NoError(t, s.release())
	require.True(t, s.acquire())
	require.NoError(t, s.release())
	require.NoError(t, s.release())
	assert.False(t, s.acquire())
}
