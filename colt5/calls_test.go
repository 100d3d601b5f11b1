package colt5

import (
	"cmp"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Token ids as I32 and as U8 give the same bits.
func TestTokenIDTypes(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	en, next := mustNewSeeded(fx, NewEncoder, smallEncoder()), mustNewSeeded(fx, NewAutoregressiveTransformer, smallTransformer())
	text, ids := []uint8("It was the best of times, it was the worst of times, it was the age of wisdom..."), []int32{}
	for _, c := range text {
		ids = append(ids, int32(c))
	}
	n := len(text)
	x, err := FromSlice(t.Context(), fx.dev, ids, 1, n)
	require.NoError(t, err)
	fx.closeAtEnd(x)
	y, logits, bytes := fx.tensor(F32, 1, n, smallDim), fx.tensor(F32, 1, n, 256), fx.bytes(text, 1, n)
	require.NoError(t, en.Forward(t.Context(), y, x, BlockOptions{}))
	want := fx.read(y)
	require.NoError(t, en.Forward(t.Context(), y, bytes, BlockOptions{}))
	assert.True(t, sameBits(want, fx.read(y)))
	require.NoError(t, next.Forward(t.Context(), logits, x, AutoregressiveOptions{}))
	want = fx.read(logits)
	require.NoError(t, next.Forward(t.Context(), logits, bytes, AutoregressiveOptions{}))
	assert.True(t, sameBits(want, fx.read(logits)))
}

// Config returns the config that was passed to New.
func TestModuleConfig(t *testing.T) {
	fx := newFixture(t)
	for _, k := range moduleTypes(F32) {
		k.checkConfig(fx)
	}
}

// Token counts in the call options have the effect of the same counts in the config.
func TestTokenCountOptions(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 6 s on CPU drivers")
	}
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	const n = 48
	attention, cross, autoregressive, image, classifier := smallAttention(), smallCross(), smallAutoregressive(), smallImage(), smallViT()
	run := func(shape []int, forward func(y, x *Tensor) error) []float32 {
		t.Helper()
		y := fx.tensor(F32, shape...)
		require.NoError(t, forward(y, fx.floats(normal(1, product(shape)), shape...)))
		return fx.read(y)
	}
	tokens, pixels, context := []int{2, n, smallDim}, []int{2, smallDim, 8, 12}, fx.floats(normal(2, 2*70*smallDim), 2, 70, smallDim)
	var got [2][][]float32
	for i, inCall := range []int{0, 1} { // counts in the config or in the call
		q, kv := 11*(1-inCall), 12*(1-inCall) // of the config; 0: its own
		or := cmp.Or[int]
		a, c, w, m, v := attention, cross, autoregressive, image, classifier
		v.AttnNumHeavyTokensQ, v.AttnNumHeavyTokensKV = or(q, v.AttnNumHeavyTokensQ), or(kv, v.AttnNumHeavyTokensKV)
		a.NumHeavyTokensQ, a.NumHeavyTokensKV = or(q, a.NumHeavyTokensQ), or(kv, a.NumHeavyTokensKV)
		c.NumTokensQ, c.NumTokensKV = or(q, c.NumTokensQ), or(kv, c.NumTokensKV)
		w.NumHeavyTokensQ, w.NumHeavyTokensKV = or(q, w.NumHeavyTokensQ), or(kv, w.NumHeavyTokensKV)
		m.NumHeavyTokensQ, m.NumHeavyTokensKV = or(q, m.NumHeavyTokensQ), or(kv, m.NumHeavyTokensKV)
		at, cr := mustNewSeeded(fx, NewConditionalRoutedAttention, a), mustNewSeeded(fx, NewConditionalRoutedCrossAttention, c)
		au, im := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, w), mustNewSeeded(fx, NewConditionalRoutedImageAttention, m)
		vi := mustNewSeeded(fx, NewConditionalRoutedViT, v)
		q, kv = 11*inCall, 12*inCall // of the call; 0: those of the config
		got[i] = [][]float32{
			run(tokens, func(y, x *Tensor) error {
				return at.Forward(t.Context(), y, x, AttentionOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}),
			run(tokens, func(y, x *Tensor) error {
				return cr.Forward(t.Context(), y, x, context, CrossAttentionOptions{NumTokensQ: q, NumTokensKV: kv})
			}),
			run(tokens, func(y, x *Tensor) error {
				return au.Forward(t.Context(), y, x, AutoregressiveOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}),
			run(pixels, func(y, x *Tensor) error {
				return im.Forward(t.Context(), y, x, ImageOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}),
			fx.finiteOutput(func(y *Tensor) error {
				x := fx.floats(normal(1, 2*3*16*24), 2, 3, 16, 24)
				return vi.Forward(t.Context(), y, x, ViTOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}, 2, 5),
		}
	}
	assert.True(t, slices.EqualFunc(got[0], got[1], sameBits))
}

// TestRepeatedCallAllocatesNothing is checkRepeatedCall for operations that TestEveryModule does not include.
func TestRepeatedCallAllocatesNothing(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	router := Default[RouterConfig]()
	router.Dim = 16
	r := mustNew(fx, NewCoordinateDescentRouter, router)
	k := mustNewWithoutWeights(fx, NewTopK, TopKConfig{K: 4, NIters: 3, Eps: 0.1, EpsDecay: 1, CoorDescentKRatio: 1})
	d := mustNewWithoutWeights(fx, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 4, Eps: 0.1, EpsDecay: 1})
	x, mask := fx.floats(normal(1, 2*64*16), 2, 64, 16), fx.bytes(randomMask(1, 2, 64), 2, 64)
	s, scores := fx.floats(normal(2, 2*64), 2, 64), fx.tensor(F32, 2, 64)
	indices, values := fx.tensor(I32, 2, 1, 8), fx.tensor(F32, 2, 4)
	for _, stats := range []*CallStats{nil, new(CallStats)} {
		for name, call := range map[string]func() error{
			"router": func() error {
				return r.Forward(t.Context(), RouterResult{Indices: indices}, x, 8, RouterOptions{Mask: mask, Stats: stats})
			},
			"topk": func() error {
				return k.Forward(t.Context(), TopKResult{Values: values}, s, TopKOptions{Mask: mask, Stats: stats})
			},
			"coordinate descent": func() error {
				return d.Forward(t.Context(), scores, s, CoordinateDescentOptions{Mask: mask, Stats: stats})
			},
		} {
			t.Run(name, func(t *testing.T) { fx.sub(t).checkAllocatesNothing(call) })
		}
	}
}

// Calls with other tensors of the same shapes use the same plan.
func TestPlanReuse(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	f := fx.feedForward(16, 8)
	data := normal(1, 2*64*16)
	x, y := fx.floats(data, 2, 64, 16), fx.tensor(F32, 2, 64, 16)
	require.NoError(t, f.Forward(t.Context(), y, x, FeedForwardOptions{}))
	lists := fx.dev.Stats().CommandLists
	other, again := fx.floats(data, 2, 64, 16), fx.tensor(F32, 2, 64, 16)
	require.NoError(t, f.Forward(t.Context(), again, other, FeedForwardOptions{}))
	assert.Equal(t, lists, fx.dev.Stats().CommandLists)
	assert.Equal(t, fx.read(y), fx.read(again))
	assert.ErrorContains(t, f.Forward(t.Context(), x, x, FeedForwardOptions{}), "overlapping", "y is x")
	require.NoError(t, f.Forward(t.Context(), y, x, FeedForwardOptions{}), "a rejected call leaves the plan usable")
}
