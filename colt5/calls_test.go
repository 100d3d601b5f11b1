package colt5

import (
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBadModuleCalls: arguments that do not fit.
func TestBadModuleCalls(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	at, bl := create(b, NewConditionalRoutedAttention, smallAttention()), create(b, NewConditionalRoutedTransformerBlock, smallBlock())
	au, cr := create(b, NewConditionalRoutedAutoregressiveAttention, smallAutoregressive()), create(b, NewConditionalRoutedCrossAttention, smallCross())
	im, vi := create(b, NewConditionalRoutedImageAttention, smallImage()), create(b, NewConditionalRoutedViT, smallViT())
	x, y, context, ints := b.tensor(F32, 2, 10, 8), b.tensor(F32, 2, 10, 8), b.tensor(F32, 2, 30, 8), b.tensor(I32, 2, 10, 8)
	flat, wide, mask, short, longer := b.tensor(F32, 20, 8), b.tensor(F32, 2, 10, 9), b.tensor(U8, 2, 10), b.tensor(U8, 2, 9), b.tensor(F32, 3, 30, 8)
	img, odd, last, photo := b.tensor(F32, 2, 8, 8, 12), b.tensor(F32, 2, 8, 8, 10), b.tensor(F32, 2, 8, 12, 8), b.tensor(F32, 2, 3, 16, 24)
	big, logits := b.tensor(F32, 2, 3, 16, 26), b.tensor(F32, 2, 5)
	for want, err := range map[string]error{
		"ConditionalRoutedAttention.Forward: x is nil, want F32[* * 8]":  at.Forward(y, nil, AttentionOptions{}),
		"Attention.Forward: x is F32[20 8], want F32[* * 8]":             at.Forward(y, flat, AttentionOptions{}),
		"Attention.Forward: x is I32[2 10 8], want F32[* * 8]":           at.Forward(y, ints, AttentionOptions{}),
		"Attention.Forward: x is F32[2 10 9], want F32[* * 8]":           at.Forward(y, wide, AttentionOptions{}),
		"Attention.Forward: y is nil, want F32[2 10 8]":                  at.Forward(nil, x, AttentionOptions{}),
		"Attention.Forward: y is F32[2 30 8], want F32[2 10 8]":          at.Forward(context, x, AttentionOptions{}),
		"Attention.Forward: Mask is U8[2 9], want U8[2 10]":              at.Forward(y, x, AttentionOptions{Mask: short}),
		"Attention.Forward: Mask is F32[20 8], want U8[2 10]":            at.Forward(y, x, AttentionOptions{Mask: flat}),
		"Attention.Forward: NumHeavyTokensQ is -1, want 0":               at.Forward(y, x, AttentionOptions{NumHeavyTokensQ: -1}),
		"Attention.Forward: NumHeavyTokensKV is -2, want 0":              at.Forward(y, x, AttentionOptions{NumHeavyTokensKV: -2}),
		"Block.Forward: x is F32[2 10 9], want F32[* * 8]":               bl.Forward(y, wide, BlockOptions{}),
		"Block.Forward: y is F32[20 8], want F32[2 10 8]":                bl.Forward(flat, x, BlockOptions{}),
		"Block.Forward: Mask is U8[2 9], want U8[2 10]":                  bl.Forward(y, x, BlockOptions{Mask: short}),
		"NumHeavyAttnTokensQ is -1, want 0":                              bl.Forward(y, x, BlockOptions{NumHeavyAttnTokensQ: -1}),
		"NumHeavyAttnTokensKV is -1, want 0":                             bl.Forward(y, x, BlockOptions{NumHeavyAttnTokensKV: -1}),
		"NumHeavyFFTokens is -1, want 0":                                 bl.Forward(y, x, BlockOptions{NumHeavyFFTokens: -1}),
		"AutoregressiveAttention.Forward: x is I32[2 10 8], want F32":    au.Forward(y, ints, AutoregressiveOptions{}),
		"AutoregressiveAttention.Forward: y is F32[2 10 9], want F32[2":  au.Forward(wide, x, AutoregressiveOptions{}),
		"AutoregressiveAttention.Forward: NumHeavyTokensQ is -1, want":   au.Forward(y, x, AutoregressiveOptions{NumHeavyTokensQ: -1}),
		"AutoregressiveAttention.Forward: NumHeavyTokensKV is -1, want":  au.Forward(y, x, AutoregressiveOptions{NumHeavyTokensKV: -1}),
		"CrossAttention.Forward: x is nil, want F32[* * 8]":              cr.Forward(y, nil, context, CrossAttentionOptions{}),
		"CrossAttention.Forward: context is nil, want F32[2 * 8]":        cr.Forward(y, x, nil, CrossAttentionOptions{}),
		"CrossAttention.Forward: context is F32[3 30 8], want F32[2":     cr.Forward(y, x, longer, CrossAttentionOptions{}),
		"CrossAttention.Forward: context is F32[2 10 9], want F32[2":     cr.Forward(y, x, wide, CrossAttentionOptions{}),
		"CrossAttention.Forward: y is F32[2 30 8], want F32[2 10 8]":     cr.Forward(context, x, context, CrossAttentionOptions{}),
		"CrossAttention.Forward: Mask is U8[2 9], want U8[2 10]":         cr.Forward(y, x, context, CrossAttentionOptions{Mask: short}),
		"CrossAttention.Forward: ContextMask is U8[2 10], want U8[2 30]": cr.Forward(y, x, context, CrossAttentionOptions{ContextMask: mask}),
		"NumTokensQ is -1, want 0":                                       cr.Forward(y, x, context, CrossAttentionOptions{NumTokensQ: -1}),
		"NumTokensKV is -1, want 0":                                      cr.Forward(y, x, context, CrossAttentionOptions{NumTokensKV: -1}),
		"ImageAttention.Forward: x is F32[2 10 8], want F32[* 8 * *]":    im.Forward(img, x, ImageOptions{}),
		"ImageAttention.Forward: x is F32[2 3 16 24], want F32[* 8 * *]": im.Forward(photo, photo, ImageOptions{}),
		"ImageAttention.Forward: y is F32[2 8 12 8], want F32[2 8 8 12]": im.Forward(last, img, ImageOptions{}),
		"the image is 8 by 10 pixels, want multiples of LightWindowSize": im.Forward(odd, odd, ImageOptions{}),
		"ImageAttention.Forward: NumHeavyTokensQ is -1, want 0":          im.Forward(img, img, ImageOptions{NumHeavyTokensQ: -1}),
		"ImageAttention.Forward: NumHeavyTokensKV is -1, want 0":         im.Forward(img, img, ImageOptions{NumHeavyTokensKV: -1}),
		"ViT.Forward: x is F32[2 3 16 26], want F32[* 3 16 24]":          vi.Forward(logits, big),
		"ViT.Forward: x is nil, want F32[* 3 16 24]":                     vi.Forward(logits, nil),
		"ViT.Forward: y is F32[20 8], want F32[2 5]":                     vi.Forward(flat, photo),
		"ViT.Forward: y is nil, want F32[2 5]":                           vi.Forward(nil, photo),
	} {
		assert.ErrorContains(t, err, want)
	}
}

// TestBadTokenIDs: ids of wrong types, and ids outside the vocabulary, which are counted and never read elsewhere.
func TestBadTokenIDs(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	config, text := smallEncoder(), smallTransformer()
	en, plain := create(b, NewEncoder, config), config
	plain.NumTokens = 0
	floats := create(b, NewEncoder, plain)
	config.NumTokens, text.NumTokens = 100, 100
	few, next := create(b, NewEncoder, config), create(b, NewAutoregressiveTransformer, text)
	x, y, logits, bytes := b.tensor(F32, 2, 10, 8), b.tensor(F32, 2, 10, 8), b.tensor(F32, 2, 10, 100), b.bytes(make([]uint8, 20), 2, 10)
	ids, err := FromInt32(b.dev, make([]int32, 20), 2, 10)
	require.NoError(t, err)
	b.keep(ids)
	for want, err := range map[string]error{
		"Encoder.Forward: x is F32[2 10 8], want I32[* *]":                  en.Forward(y, x, BlockOptions{}),
		"Encoder.Forward: x is nil, want I32[* *]":                          en.Forward(y, nil, BlockOptions{}),
		"Encoder.Forward: x is U8[2 10], want I32[* *]":                     few.Forward(y, bytes, BlockOptions{}),
		"Encoder.Forward: x is I32[2 10], want F32[* * 8]":                  floats.Forward(y, ids, BlockOptions{}),
		"Encoder.Forward: y is nil, want F32[2 10 8]":                       en.Forward(nil, ids, BlockOptions{}),
		"Encoder.Forward: Mask is F32[2 10 8], want U8[2 10]":               en.Forward(y, ids, BlockOptions{Mask: x}),
		"Encoder.Forward: NumHeavyFFTokens is -1":                           en.Forward(y, ids, BlockOptions{NumHeavyFFTokens: -1}),
		"AutoregressiveTransformer.Forward: x is U8[2 10], want I32[* *]":   next.Forward(logits, bytes, AutoregressiveOptions{}),
		"AutoregressiveTransformer.Forward: x is F32[2 10 8], want I32[* *": next.Forward(logits, x, AutoregressiveOptions{}),
		"AutoregressiveTransformer.Forward: y is F32[2 10 8], want F32[2 1": next.Forward(y, ids, AutoregressiveOptions{}),
		"AutoregressiveTransformer.Forward: NumHeavyTokensQ is -1":          next.Forward(logits, ids, AutoregressiveOptions{NumHeavyTokensQ: -1}),
	} {
		assert.ErrorContains(t, err, want)
	}
	list := make([]int32, 20)
	list[3], list[4], list[19] = 100, -1, math.MinInt32
	require.NoError(t, ids.Write(list))
	assert.ErrorContains(t, few.Forward(y, ids, BlockOptions{}), "Encoder.Forward: x holds 3 token ids outside the vocabulary of 100")
	assert.ErrorContains(t, next.Forward(logits, ids, AutoregressiveOptions{}), "x holds 3 token ids outside the vocabulary of 100")
	_, err = few.LastCall()
	assert.Error(t, err, "the call that failed is not the last one")
	list[3], list[4], list[19] = 99, 0, 1
	require.NoError(t, ids.Write(list))
	assert.NoError(t, few.Forward(y, ids, BlockOptions{}))
	assert.NoError(t, next.Forward(logits, ids, AutoregressiveOptions{}))
}

// IDs and bytes give the same, bit for bit.
func TestIDsAreBytes(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	en, next := create(b, NewEncoder, smallEncoder()), create(b, NewAutoregressiveTransformer, smallTransformer())
	text, ids := []uint8("It was the best of times, it was the worst of times, it was the age of wisdom..."), []int32{}
	for _, c := range text {
		ids = append(ids, int32(c))
	}
	n := len(text)
	x, err := FromInt32(b.dev, ids, 1, n)
	require.NoError(t, err)
	b.keep(x)
	y, logits, bytes := b.tensor(F32, 1, n, smallDim), b.tensor(F32, 1, n, 256), b.bytes(text, 1, n)
	require.NoError(t, en.Forward(y, x, BlockOptions{}))
	want := b.read(y)
	require.NoError(t, en.Forward(y, bytes, BlockOptions{}))
	assert.True(t, sameBits(want, b.read(y)))
	require.NoError(t, next.Forward(logits, x, AutoregressiveOptions{}))
	want = b.read(logits)
	require.NoError(t, next.Forward(logits, bytes, AutoregressiveOptions{}))
	assert.True(t, sameBits(want, b.read(logits)))
}

// TestOtherDeviceAndClosedModules: tensors of another device, the output over the input, and closed modules are refused.
func TestOtherDeviceAndClosedModules(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	other, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, other.Close()) })
	for _, s := range b.subjects(F32) {
		y, in := b.upload(s, 1, s.some(1, 1, true))
		foreign := func(like *Tensor) *Tensor {
			x, err := NewTensor(other, like.dtype, like.shape...)
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, x.Close()) })
			return x
		}
		elsewhere := in
		elsewhere.x = foreign(in.x)
		assert.ErrorContains(t, s.forward(y, elsewhere), "x is on another device", s.name)
		assert.ErrorContains(t, s.forward(foreign(y), in), "y is on another device", s.name)
		if in.mask != nil {
			elsewhere = in
			elsewhere.mask = foreign(in.mask)
			assert.ErrorContains(t, s.forward(y, elsewhere), "Mask is on another device", s.name)
		}
		if in.second != nil {
			elsewhere = in
			elsewhere.second = foreign(in.second)
			assert.ErrorContains(t, s.forward(y, elsewhere), "context is on another device", s.name)
			elsewhere = in
			elsewhere.secondMask = foreign(in.secondMask)
			assert.ErrorContains(t, s.forward(y, elsewhere), "ContextMask is on another device", s.name)
		}
		if in.x.dtype == F32 && in.x.Len() == y.Len() {
			assert.ErrorContains(t, s.forward(in.x, in), "overlapping", s.name)
			assert.NoError(t, s.forward(y, in), "the plan works on after a refused call")
		}
		require.NoError(t, s.module.Close())
		require.NoError(t, s.module.Close())
		assert.ErrorIs(t, s.forward(y, in), vk.ErrClosed, s.name)
		assert.ErrorIs(t, s.module.Load("x"), vk.ErrClosed, s.name)
		assert.ErrorIs(t, s.module.Save("x"), vk.ErrClosed, s.name)
		assert.ErrorIs(t, s.module.Init(1), vk.ErrClosed, s.name)
		_, err := s.module.LastCall()
		assert.ErrorIs(t, err, vk.ErrClosed, s.name)
		_, err = s.module.LastRouting()
		assert.ErrorIs(t, err, vk.ErrClosed, s.name)
	}
	for _, k := range kinds(F32) {
		assert.NoError(t, k.none.Close())
	}
}

// TestConfigIsKept: a module tells what it was made with.
func TestConfigIsKept(t *testing.T) {
	b := newBench(t)
	for _, k := range kinds(F32) {
		k.kept(b)
	}
}

// Numbers of tokens that come with a call are those of a config.
func TestTokensOfACall(t *testing.T) {
	gputest.CountCase()
	b := newBench(t)
	const n = 48
	attention, cross, autoregressive, image := smallAttention(), smallCross(), smallAutoregressive(), smallImage()
	run := func(shape []int, forward func(y, x *Tensor) error) []float32 {
		t.Helper()
		y := b.tensor(F32, shape...)
		require.NoError(t, forward(y, b.floats(normal(1, product(shape)), shape...)))
		return b.read(y)
	}
	tokens, pixels, context := []int{2, n, smallDim}, []int{2, smallDim, 8, 12}, b.floats(normal(2, 2*70*smallDim), 2, 70, smallDim)
	var got [2][][]float32
	for i, with := range []int{0, 1} { // with the config, or with the call
		q, kv := 11*(1-with), 12*(1-with) // of the config
		of := func(given, own int) int {
			if given == 0 {
				return own
			}
			return given
		}
		a, c, w, m := attention, cross, autoregressive, image
		a.NumHeavyTokensQ, a.NumHeavyTokensKV = of(q, a.NumHeavyTokensQ), of(kv, a.NumHeavyTokensKV)
		c.NumTokensQ, c.NumTokensKV = of(q, c.NumTokensQ), of(kv, c.NumTokensKV)
		w.NumHeavyTokensQ, w.NumHeavyTokensKV = of(q, w.NumHeavyTokensQ), of(kv, w.NumHeavyTokensKV)
		m.NumHeavyTokensQ, m.NumHeavyTokensKV = of(q, m.NumHeavyTokensQ), of(kv, m.NumHeavyTokensKV)
		at, cr := create(b, NewConditionalRoutedAttention, a), create(b, NewConditionalRoutedCrossAttention, c)
		au, im := create(b, NewConditionalRoutedAutoregressiveAttention, w), create(b, NewConditionalRoutedImageAttention, m)
		q, kv = 11*with, 12*with // of the call
		got[i] = [][]float32{
			run(tokens, func(y, x *Tensor) error {
				return at.Forward(y, x, AttentionOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}),
			run(tokens, func(y, x *Tensor) error {
				return cr.Forward(y, x, context, CrossAttentionOptions{NumTokensQ: q, NumTokensKV: kv})
			}),
			run(tokens, func(y, x *Tensor) error {
				return au.Forward(y, x, AutoregressiveOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}),
			run(pixels, func(y, x *Tensor) error {
				return im.Forward(y, x, ImageOptions{NumHeavyTokensQ: q, NumHeavyTokensKV: kv})
			}),
		}
	}
	assert.True(t, slices.EqualFunc(got[0], got[1], sameBits))
}
