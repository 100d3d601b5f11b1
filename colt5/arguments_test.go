package colt5

import (
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInvalidCalls(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[ConditionalRoutedFeedForwardConfig]()
	config.Dim, config.NumHeavyTokens = 8, 4
	f := mustNew(fx, NewConditionalRoutedFeedForward, config)
	rc := Default[RouterConfig]()
	rc.Dim = 8
	r := mustNew(fx, NewCoordinateDescentRouter, rc)
	k := mustNewOperation(fx, NewTopK, TopKConfig{K: 3, NIters: 2, Eps: 1, CoorDescentKRatio: 1, NonDifferentiable: true})
	d := mustNewOperation(fx, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 2, Eps: 1, EpsDecay: 1})
	x, y, flat, ints := fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 20, 8), fx.tensor(I32, 2, 10, 8)
	mask, rows := fx.tensor(U8, 2, 9), fx.tensor(F32, 2, 10)
	closed, err := NewTensor(fx.dev, F32, 2, 10, 8)
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for want, err := range map[string]error{
		"Forward: x is nil, want f32[* * 8]":                              f.Forward(t.Context(), y, nil, FeedForwardOptions{}),
		"x is f32[20 8], want f32[* * 8]":                                 f.Forward(t.Context(), y, flat, FeedForwardOptions{}),
		"x is i32[2 10 8], want f32[* * 8]":                               f.Forward(t.Context(), y, ints, FeedForwardOptions{}),
		"y is f32[20 8], want f32[2 10 8]":                                f.Forward(t.Context(), flat, x, FeedForwardOptions{}),
		"y is nil, want f32[2 10 8]":                                      f.Forward(t.Context(), nil, x, FeedForwardOptions{}),
		"Mask is u8[2 9], want u8[2 10]":                                  f.Forward(t.Context(), y, x, FeedForwardOptions{Mask: mask}),
		"Mask is f32[2 10], want u8[2 10]":                                f.Forward(t.Context(), y, x, FeedForwardOptions{Mask: rows}),
		"NumHeavyTokens is -1, want 0":                                    f.Forward(t.Context(), y, x, FeedForwardOptions{NumHeavyTokens: -1}),
		"closed":                                                          f.Forward(t.Context(), y, closed, FeedForwardOptions{}),
		"tokens is 0, want 1 to 2147483647":                               r.Forward(t.Context(), Routing{Scores: rows}, x, 0, RoutingOptions{}),
		"Router.Forward: out has no tensors":                              r.Forward(t.Context(), Routing{}, x, 4, RoutingOptions{}),
		"Indices is f32[2 10], want i32[2 1 4]":                           r.Forward(t.Context(), Routing{Indices: rows}, x, 4, RoutingOptions{}),
		"Logits is f32[2 10], want f32[2 1 10]":                           r.Forward(t.Context(), Routing{Logits: rows}, x, 4, RoutingOptions{}),
		"RoutingTokens is f32[2 10 8], want a tensor if, and only if, Le": r.Forward(t.Context(), Routing{Logits: rows}, x, 4, RoutingOptions{RoutingTokens: x}),
		"x is nil, want f32[*]":                                           k.Forward(t.Context(), TopKResult{Values: rows}, nil, SelectOptions{}),
		"x is i32[2 10 8], want f32[2 10 *]":                              k.Forward(t.Context(), TopKResult{Values: rows}, ints, SelectOptions{}),
		"Values is f32[2 10], want f32[2 3]":                              k.Forward(t.Context(), TopKResult{Values: rows}, fx.tensor(F32, 2, 20), SelectOptions{}),
		"TopK.Forward: out has no tensors":                                k.Forward(t.Context(), TopKResult{}, rows, SelectOptions{}),
		"TopK.Forward: Mask is u8[2 9], want u8[2 10]":                    k.Forward(t.Context(), TopKResult{Values: rows}, rows, SelectOptions{Mask: mask}),
		"CoorDescentValues is f32[2 10], want nil":                        k.Forward(t.Context(), TopKResult{CoorDescentValues: rows}, rows, SelectOptions{}),
		"s is f32[2 10 8], want f32[* *]":                                 d.Forward(t.Context(), rows, x, SelectOptions{}),
		"CoordinateDescent.Forward: y is f32[2 10 8], want f32[2":         d.Forward(t.Context(), x, rows, SelectOptions{}),
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestInvalidModuleCalls(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	at, bl := mustNewSeeded(fx, NewConditionalRoutedAttention, smallAttention()), mustNewSeeded(fx, NewConditionalRoutedTransformerBlock, smallBlock())
	au, cr := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, smallAutoregressive()), mustNewSeeded(fx, NewConditionalRoutedCrossAttention, smallCross())
	im, vi := mustNewSeeded(fx, NewConditionalRoutedImageAttention, smallImage()), mustNewSeeded(fx, NewConditionalRoutedViT, smallViT())
	x, y, context, ints := fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 30, 8), fx.tensor(I32, 2, 10, 8)
	flat, wide, mask, short, longer := fx.tensor(F32, 20, 8), fx.tensor(F32, 2, 10, 9), fx.tensor(U8, 2, 10), fx.tensor(U8, 2, 9), fx.tensor(F32, 3, 30, 8)
	img, narrow, channelLast, photo := fx.tensor(F32, 2, 8, 8, 12), fx.tensor(F32, 2, 8, 8, 10), fx.tensor(F32, 2, 8, 12, 8), fx.tensor(F32, 2, 3, 16, 24)
	big, logits := fx.tensor(F32, 2, 3, 16, 26), fx.tensor(F32, 2, 5)
	for want, err := range map[string]error{
		"ConditionalRoutedAttention.Forward: x is nil, want f32[* * 8]":  at.Forward(t.Context(), y, nil, AttentionOptions{}),
		"Attention.Forward: x is f32[20 8], want f32[* * 8]":             at.Forward(t.Context(), y, flat, AttentionOptions{}),
		"Attention.Forward: x is i32[2 10 8], want f32[* * 8]":           at.Forward(t.Context(), y, ints, AttentionOptions{}),
		"Attention.Forward: x is f32[2 10 9], want f32[* * 8]":           at.Forward(t.Context(), y, wide, AttentionOptions{}),
		"Attention.Forward: y is nil, want f32[2 10 8]":                  at.Forward(t.Context(), nil, x, AttentionOptions{}),
		"Attention.Forward: y is f32[2 30 8], want f32[2 10 8]":          at.Forward(t.Context(), context, x, AttentionOptions{}),
		"Attention.Forward: Mask is u8[2 9], want u8[2 10]":              at.Forward(t.Context(), y, x, AttentionOptions{Mask: short}),
		"Attention.Forward: Mask is f32[20 8], want u8[2 10]":            at.Forward(t.Context(), y, x, AttentionOptions{Mask: flat}),
		"Attention.Forward: NumHeavyTokensQ is -1, want 0":               at.Forward(t.Context(), y, x, AttentionOptions{NumHeavyTokensQ: -1}),
		"Attention.Forward: NumHeavyTokensKV is -2, want 0":              at.Forward(t.Context(), y, x, AttentionOptions{NumHeavyTokensKV: -2}),
		"Block.Forward: x is f32[2 10 9], want f32[* * 8]":               bl.Forward(t.Context(), y, wide, BlockOptions{}),
		"Block.Forward: y is f32[20 8], want f32[2 10 8]":                bl.Forward(t.Context(), flat, x, BlockOptions{}),
		"Block.Forward: Mask is u8[2 9], want u8[2 10]":                  bl.Forward(t.Context(), y, x, BlockOptions{Mask: short}),
		"NumHeavyAttnTokensQ is -1, want 0":                              bl.Forward(t.Context(), y, x, BlockOptions{NumHeavyAttnTokensQ: -1}),
		"NumHeavyAttnTokensKV is -1, want 0":                             bl.Forward(t.Context(), y, x, BlockOptions{NumHeavyAttnTokensKV: -1}),
		"NumHeavyFFTokens is -1, want 0":                                 bl.Forward(t.Context(), y, x, BlockOptions{NumHeavyFFTokens: -1}),
		"AutoregressiveAttention.Forward: x is i32[2 10 8], want f32":    au.Forward(t.Context(), y, ints, AutoregressiveOptions{}),
		"AutoregressiveAttention.Forward: y is f32[2 10 9], want f32[2":  au.Forward(t.Context(), wide, x, AutoregressiveOptions{}),
		"AutoregressiveAttention.Forward: NumHeavyTokensQ is -1, want":   au.Forward(t.Context(), y, x, AutoregressiveOptions{NumHeavyTokensQ: -1}),
		"AutoregressiveAttention.Forward: NumHeavyTokensKV is -1, want":  au.Forward(t.Context(), y, x, AutoregressiveOptions{NumHeavyTokensKV: -1}),
		"CrossAttention.Forward: x is nil, want f32[* * 8]":              cr.Forward(t.Context(), y, nil, context, CrossAttentionOptions{}),
		"CrossAttention.Forward: context is nil, want f32[2 * 8]":        cr.Forward(t.Context(), y, x, nil, CrossAttentionOptions{}),
		"CrossAttention.Forward: context is f32[3 30 8], want f32[2":     cr.Forward(t.Context(), y, x, longer, CrossAttentionOptions{}),
		"CrossAttention.Forward: context is f32[2 10 9], want f32[2":     cr.Forward(t.Context(), y, x, wide, CrossAttentionOptions{}),
		"CrossAttention.Forward: y is f32[2 30 8], want f32[2 10 8]":     cr.Forward(t.Context(), context, x, context, CrossAttentionOptions{}),
		"CrossAttention.Forward: Mask is u8[2 9], want u8[2 10]":         cr.Forward(t.Context(), y, x, context, CrossAttentionOptions{Mask: short}),
		"CrossAttention.Forward: ContextMask is u8[2 10], want u8[2 30]": cr.Forward(t.Context(), y, x, context, CrossAttentionOptions{ContextMask: mask}),
		"NumTokensQ is -1, want 0":                                       cr.Forward(t.Context(), y, x, context, CrossAttentionOptions{NumTokensQ: -1}),
		"NumTokensKV is -1, want 0":                                      cr.Forward(t.Context(), y, x, context, CrossAttentionOptions{NumTokensKV: -1}),
		"ImageAttention.Forward: x is f32[2 10 8], want f32[* 8 * *]":    im.Forward(t.Context(), img, x, ImageOptions{}),
		"ImageAttention.Forward: x is f32[2 3 16 24], want f32[* 8 * *]": im.Forward(t.Context(), photo, photo, ImageOptions{}),
		"ImageAttention.Forward: y is f32[2 8 12 8], want f32[2 8 8 12]": im.Forward(t.Context(), channelLast, img, ImageOptions{}),
		"the image is 8 by 10 pixels, want multiples of LightWindowSize": im.Forward(t.Context(), narrow, narrow, ImageOptions{}),
		"ImageAttention.Forward: NumHeavyTokensQ is -1, want 0":          im.Forward(t.Context(), img, img, ImageOptions{NumHeavyTokensQ: -1}),
		"ImageAttention.Forward: NumHeavyTokensKV is -1, want 0":         im.Forward(t.Context(), img, img, ImageOptions{NumHeavyTokensKV: -1}),
		"ViT.Forward: x is f32[2 3 16 26], want f32[* 3 16 24]":          vi.Forward(t.Context(), logits, big, ImageOptions{}),
		"ViT.Forward: x is nil, want f32[* 3 16 24]":                     vi.Forward(t.Context(), logits, nil, ImageOptions{}),
		"ViT.Forward: y is f32[20 8], want f32[2 5]":                     vi.Forward(t.Context(), flat, photo, ImageOptions{}),
		"ViT.Forward: y is nil, want f32[2 5]":                           vi.Forward(t.Context(), nil, photo, ImageOptions{}),
	} {
		assert.ErrorContains(t, err, want)
	}
}

// TestInvalidTokenIDs: tensors of wrong types, and ids outside the vocabulary. The latter are counted on the device and
// never used as an index.
func TestInvalidTokenIDs(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	config, text := smallEncoder(), smallTransformer()
	en, plain := mustNewSeeded(fx, NewEncoder, config), config
	plain.NumTokens = 0
	floats := mustNewSeeded(fx, NewEncoder, plain)
	config.NumTokens, text.NumTokens = 100, 100
	few, next := mustNewSeeded(fx, NewEncoder, config), mustNewSeeded(fx, NewAutoregressiveTransformer, text)
	x, y, logits, bytes := fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 10, 100), fx.bytes(make([]uint8, 20), 2, 10)
	ids, err := FromSlice(t.Context(), fx.dev, make([]int32, 20), 2, 10)
	require.NoError(t, err)
	fx.closeAtEnd(ids)
	for want, err := range map[string]error{
		"Encoder.Forward: x is f32[2 10 8], want i32[* *]":                  en.Forward(t.Context(), y, x, BlockOptions{}),
		"Encoder.Forward: x is nil, want i32[* *]":                          en.Forward(t.Context(), y, nil, BlockOptions{}),
		"Encoder.Forward: x is u8[2 10], want i32[* *]":                     few.Forward(t.Context(), y, bytes, BlockOptions{}),
		"Encoder.Forward: x is i32[2 10], want f32[* * 8]":                  floats.Forward(t.Context(), y, ids, BlockOptions{}),
		"Encoder.Forward: y is nil, want f32[2 10 8]":                       en.Forward(t.Context(), nil, ids, BlockOptions{}),
		"Encoder.Forward: Mask is f32[2 10 8], want u8[2 10]":               en.Forward(t.Context(), y, ids, BlockOptions{Mask: x}),
		"Encoder.Forward: NumHeavyFFTokens is -1":                           en.Forward(t.Context(), y, ids, BlockOptions{NumHeavyFFTokens: -1}),
		"AutoregressiveTransformer.Forward: x is u8[2 10], want i32[* *]":   next.Forward(t.Context(), logits, bytes, AutoregressiveOptions{}),
		"AutoregressiveTransformer.Forward: x is f32[2 10 8], want i32[* *": next.Forward(t.Context(), logits, x, AutoregressiveOptions{}),
		"AutoregressiveTransformer.Forward: y is f32[2 10 8], want f32[2 1": next.Forward(t.Context(), y, ids, AutoregressiveOptions{}),
		"AutoregressiveTransformer.Forward: NumHeavyTokensQ is -1":          next.Forward(t.Context(), logits, ids, AutoregressiveOptions{NumHeavyTokensQ: -1}),
	} {
		assert.ErrorContains(t, err, want)
	}
	list := make([]int32, 20)
	list[3], list[4], list[19] = 100, -1, math.MinInt32
	require.NoError(t, ids.Write(t.Context(), list))
	stats, routing := CallStats{Flops: 1}, []RoutingRecord{{K: 1}}
	assert.ErrorContains(t, few.Forward(t.Context(), y, ids, BlockOptions{Stats: &stats, Routing: &routing}),
		"Encoder.Forward: x has 3 token ids outside the vocabulary of 100")
	assert.Equal(t, CallStats{}, stats, "a failed call has no statistics")
	assert.Empty(t, routing)
	assert.ErrorContains(t, next.Forward(t.Context(), logits, ids, AutoregressiveOptions{}), "x has 3 token ids outside the vocabulary of 100")
	list[3], list[4], list[19] = 99, 0, 1
	require.NoError(t, ids.Write(t.Context(), list))
	assert.NoError(t, few.Forward(t.Context(), y, ids, BlockOptions{}))
	assert.NoError(t, next.Forward(t.Context(), logits, ids, AutoregressiveOptions{}))
}

// Operations without a device are errors, and closing a nil pointer is none.
func TestNilDeviceAndNilModules(t *testing.T) {
	var noDevice *vk.Device
	_, err := NewCoordinateDescentRouter(t.Context(), noDevice, Default[RouterConfig]())
	assert.ErrorContains(t, err, "device is nil")
	_, err = NewTopK(noDevice, TopKConfig{K: 1})
	assert.ErrorContains(t, err, "device is nil")
	_, err = NewCoordinateDescent(noDevice, CoordinateDescentConfig{})
	assert.ErrorContains(t, err, "device is nil")
	assert.NoError(t, (*CoordinateDescentRouter)(nil).Close())
	assert.NoError(t, (*TopK)(nil).Close())
	assert.NoError(t, (*CoordinateDescent)(nil).Close())
	for _, k := range moduleTypes(F32) {
		assert.NoError(t, k.nilModule.Close())
	}
}
