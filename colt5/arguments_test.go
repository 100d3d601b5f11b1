package colt5

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// argument is one tensor argument of a module, for tests that replace it by an invalid one.
type argument struct {
	name     string
	want     string // what an error says is wanted
	shape    []int  // a valid shape
	free     []int  // dimensions of any size
	dtypes   []DType
	required bool
	of       func(c *testCall) **Tensor
}

// testCall is a call with all arguments that the module takes.
type testCall struct {
	y *Tensor
	callArgs
}

// arguments lists the tensor arguments of a module for a batch of two items.
func (s moduleCase) arguments() []argument {
	f32 := func(shape []int) string { return F32.String() + shapeString(shape) }
	u8 := func(shape ...int) string { return U8.String() + shapeString(shape) }
	x, y := append([]int{2}, s.x...), append([]int{2}, s.y...)
	list := []argument{
		{"x", "f32[* * 8]", x, []int{0, 1}, []DType{F32}, true, func(c *testCall) **Tensor { return &c.x }},
		{"y", f32(y), y, nil, []DType{F32}, true, func(c *testCall) **Tensor { return &c.y }},
	}
	switch {
	case s.vocabulary > 0:
		list[0].want, list[0].dtypes = "i32[* *] or u8[* *]", []DType{I32, U8}
	case s.name == "image":
		list[0].want, list[0].free = "f32[* 8 * *]", []int{0, 2, 3}
	case s.name == "vit":
		list[0].want, list[0].free = "f32[* 3 16 24]", []int{0}
	}
	if s.masked {
		list = append(list, argument{"Mask", u8(append([]int{2}, s.maskShape()...)...), append([]int{2}, s.maskShape()...), nil, []DType{U8}, false, func(c *testCall) **Tensor { return &c.mask }})
	}
	if s.context != nil {
		shape := append([]int{2}, s.context...)
		list = append(list,
			argument{"context", "f32[2 * 8]", shape, []int{1}, []DType{F32}, true, func(c *testCall) **Tensor { return &c.context }},
			argument{"ContextMask", u8(shape[:2]...), shape[:2], nil, []DType{U8}, false, func(c *testCall) **Tensor { return &c.contextMask }})
	}
	return list
}

// invalidTensors returns tensors that are not valid for an argument.
func (fx *fixture) invalidTensors(a argument) []*Tensor {
	var list []*Tensor
	for _, dtype := range []DType{F32, I32, U8} {
		if !slices.Contains(a.dtypes, dtype) {
			list = append(list, fx.tensor(dtype, a.shape...))
		}
	}
	dtype := a.dtypes[0]
	list = append(list, fx.tensor(dtype, append(slices.Clone(a.shape), 1)...), fx.tensor(dtype, a.shape[1:]...))
	for i := range a.shape {
		if slices.Contains(a.free, i) {
			continue
		}
		for _, change := range []int{-1, 1} {
			shape := slices.Clone(a.shape)
			shape[i] += change
			list = append(list, fx.tensor(dtype, shape...))
		}
	}
	list = append(list, &Tensor{})
	if a.required {
		list = append(list, nil)
	}
	return list
}

// checkInvalidArguments: for each argument, an error about a nil tensor, a wrong type, rank or size names the
// operation, the argument, what it was and what was wanted. The call does not run, and the module stays usable.
func checkInvalidArguments(fx *fixture, s moduleCase) {
	t := fx.t
	if s.anyRank {
		return // other shapes are valid, see TestRowModulesArguments
	}
	other, err := vk.Open(vk.Options{CacheDir: "-"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, other.Close()) })
	v := s.randomInput(1, 2, true)
	want := fx.run(s, 2, v)
	lists := fx.dev.Stats().CommandLists
	y, in := fx.upload(s, 2, v)
	for _, a := range s.arguments() {
		replace := func(x *Tensor) error {
			c := testCall{y, in}
			*a.of(&c) = x
			return s.forward(t.Context(), c.y, c.callArgs)
		}
		message := fmt.Sprintf("colt5: %s.Forward: %s is ", typeName(s.module), a.name)
		for _, x := range fx.invalidTensors(a) {
			assert.ErrorContains(t, replace(x), fmt.Sprintf("%s%v, want %s", message, x, a.want))
		}
		dtype := a.dtypes[len(a.dtypes)-1]
		x, err := NewTensor(other, dtype, a.shape...)
		require.NoError(t, err)
		assert.ErrorContains(t, replace(x), message+"on another device than the module: it was made with another vk.Device")
		require.NoError(t, x.Close())
		closed, err := NewTensor(fx.dev, dtype, a.shape...)
		require.NoError(t, err)
		require.NoError(t, closed.Close())
		assert.ErrorIs(t, replace(closed), vk.ErrClosed, "%s is closed", a.name)
	}
	if in.x.dtype == F32 && in.x.Len() == y.Len() {
		assert.ErrorContains(t, s.forward(t.Context(), in.x, in), "overlapping", "y is x")
	}
	assert.Equal(t, lists, fx.dev.Stats().CommandLists, "invalid calls record no plan")
	assert.True(t, sameBits(want, fx.run(s, 2, v)), "the module stays usable")
}

// Invalid arguments of the operations that TestEveryModule does not include.
func TestInvalidArguments(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	config := Default[RouterConfig]()
	config.Dim = 8
	router := mustNew(fx, NewCoordinateDescentRouter, config)
	topK := mustNewWithoutWeights(fx, NewTopK, TopKConfig{K: 3, NIters: 2, Eps: 1, EpsDecay: 1, CoorDescentKRatio: 1, NonDifferentiable: true})
	descent := mustNewWithoutWeights(fx, NewCoordinateDescent, CoordinateDescentConfig{K: 3, NIters: 2, Eps: 1, EpsDecay: 1})
	x, ints := fx.tensor(F32, 2, 10, 8), fx.tensor(I32, 2, 10, 8)
	rows, wideRows, shortMask := fx.tensor(F32, 2, 10), fx.tensor(F32, 2, 20), fx.tensor(U8, 2, 9)

	route := func(out RouterResult, tokens int, o RouterOptions) error {
		return router.Forward(t.Context(), out, x, tokens, o)
	}
	for want, err := range map[string]error{
		"tokens is 0, want 1 to 2147483647":                                                 route(RouterResult{Scores: rows}, 0, RouterOptions{}),
		"out has no tensors":                                                                route(RouterResult{}, 4, RouterOptions{}),
		"Indices is f32[2 10], want i32[2 4]":                                               route(RouterResult{Indices: rows}, 4, RouterOptions{}), // one route: without its dimension too
		"Indices is f32[2 10 8], want i32[2 1 4]":                                           route(RouterResult{Indices: x}, 4, RouterOptions{}),
		"Logits is f32[2 20], want f32[2 10]":                                               route(RouterResult{Logits: wideRows}, 4, RouterOptions{}),
		"RoutedMask is f32[2 10], want u8[2 4]":                                             route(RouterResult{RoutedMask: rows}, 4, RouterOptions{}),
		"RoutingTokens is f32[2 10 8], want a tensor if, and only if, LearnedRoutingTokens": route(RouterResult{Logits: rows}, 4, RouterOptions{RoutingTokens: x}),
		"x is i32[2 10 8], want f32[* * 8]":                                                 router.Forward(t.Context(), RouterResult{Logits: rows}, ints, 4, RouterOptions{}),
	} {
		assert.ErrorContains(t, err, "colt5: CoordinateDescentRouter.Forward: "+want)
	}

	selectK := func(out TopKResult, x, mask *Tensor) error {
		return topK.Forward(t.Context(), out, x, TopKOptions{Mask: mask})
	}
	for want, err := range map[string]error{
		"out has no tensors":                       selectK(TopKResult{}, rows, nil),
		"x is nil, want f32[*]":                    selectK(TopKResult{Values: rows}, nil, nil),
		"x is i32[2 10 8], want f32[2 10 *]":       selectK(TopKResult{Values: rows}, ints, nil),
		"Values is f32[2 10], want f32[2 3]":       selectK(TopKResult{Values: rows}, wideRows, nil),
		"Mask is u8[2 9], want u8[2 10]":           selectK(TopKResult{Values: rows}, rows, shortMask),
		"CoorDescentValues is f32[2 10], want nil": selectK(TopKResult{CoorDescentValues: rows}, rows, nil),
	} {
		assert.ErrorContains(t, err, "colt5: TopK.Forward: "+want)
	}

	for want, err := range map[string]error{
		"s is nil, want f32[*]":            descent.Forward(t.Context(), rows, nil, CoordinateDescentOptions{}),
		"y is f32[2 10], want f32[2 10 8]": descent.Forward(t.Context(), rows, x, CoordinateDescentOptions{}),
		"y is f32[2 10 8], want f32[2 10]": descent.Forward(t.Context(), x, rows, CoordinateDescentOptions{}),
		"K is f32[2], want f32[2 10]":      descent.Forward(t.Context(), fx.tensor(F32, 2, 10, 8), x, CoordinateDescentOptions{K: fx.tensor(F32, 2)}),
		"K is i32[2], want f32[2]":         descent.Forward(t.Context(), fx.tensor(F32, 2, 10), rows, CoordinateDescentOptions{K: fx.tensor(I32, 2)}),
		"K is f32[2], want f32[1]":         descent.Forward(t.Context(), fx.tensor(F32, 10), fx.tensor(F32, 10), CoordinateDescentOptions{K: fx.tensor(F32, 2)}),
		"Mask is u8[2 9], want u8[2 10]":   descent.Forward(t.Context(), fx.tensor(F32, 2, 10), rows, CoordinateDescentOptions{Mask: shortMask}),
	} {
		assert.ErrorContains(t, err, "colt5: CoordinateDescent.Forward: "+want)
	}
}

// A negative token count in the options of a call is an error.
func TestInvalidTokenCounts(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	feedForward := mustNew(fx, NewConditionalRoutedFeedForward, smallFeedForward())
	attention := mustNew(fx, NewConditionalRoutedAttention, smallAttention())
	block := mustNew(fx, NewConditionalRoutedTransformerBlock, smallBlock())
	encoder := mustNew(fx, NewEncoder, smallEncoder())
	cross := mustNew(fx, NewConditionalRoutedCrossAttention, smallCross())
	autoregressive := mustNew(fx, NewConditionalRoutedAutoregressiveAttention, smallAutoregressive())
	transformer := mustNew(fx, NewAutoregressiveTransformer, smallTransformer())
	image := mustNew(fx, NewConditionalRoutedImageAttention, smallImage())
	vit := mustNew(fx, NewConditionalRoutedViT, smallViT())
	ctx, x, y, ids := t.Context(), fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 10, 8), fx.bytes(make([]uint8, 20), 2, 10)
	pixels, tokenLogits := fx.tensor(F32, 2, 8, 8, 12), fx.tensor(F32, 2, 10, 256)
	photo, classLogits := fx.tensor(F32, 2, 3, 16, 24), fx.tensor(F32, 2, 5)
	for want, err := range map[string]error{
		"ConditionalRoutedFeedForward.Forward: NumHeavyTokens is -1":               feedForward.Forward(ctx, y, x, FeedForwardOptions{NumHeavyTokens: -1}),
		"ConditionalRoutedAttention.Forward: NumHeavyTokensQ is -1":                attention.Forward(ctx, y, x, AttentionOptions{NumHeavyTokensQ: -1}),
		"ConditionalRoutedAttention.Forward: NumHeavyTokensKV is -2":               attention.Forward(ctx, y, x, AttentionOptions{NumHeavyTokensKV: -2}),
		"ConditionalRoutedTransformerBlock.Forward: NumHeavyAttnTokensQ is -1":     block.Forward(ctx, y, x, BlockOptions{NumHeavyAttnTokensQ: -1}),
		"ConditionalRoutedTransformerBlock.Forward: NumHeavyAttnTokensKV is -1":    block.Forward(ctx, y, x, BlockOptions{NumHeavyAttnTokensKV: -1}),
		"ConditionalRoutedTransformerBlock.Forward: NumHeavyFFTokens is -1":        block.Forward(ctx, y, x, BlockOptions{NumHeavyFFTokens: -1}),
		"Encoder.Forward: NumHeavyFFTokens is -1":                                  encoder.Forward(ctx, y, ids, BlockOptions{NumHeavyFFTokens: -1}),
		"ConditionalRoutedCrossAttention.Forward: NumTokensQ is -1":                cross.Forward(ctx, y, x, x, CrossAttentionOptions{NumTokensQ: -1}),
		"ConditionalRoutedCrossAttention.Forward: NumTokensKV is -1":               cross.Forward(ctx, y, x, x, CrossAttentionOptions{NumTokensKV: -1}),
		"ConditionalRoutedAutoregressiveAttention.Forward: NumHeavyTokensQ is -1":  autoregressive.Forward(ctx, y, x, AutoregressiveOptions{NumHeavyTokensQ: -1}),
		"ConditionalRoutedAutoregressiveAttention.Forward: NumHeavyTokensKV is -1": autoregressive.Forward(ctx, y, x, AutoregressiveOptions{NumHeavyTokensKV: -1}),
		"AutoregressiveTransformer.Forward: NumHeavyTokensQ is -1":                 transformer.Forward(ctx, tokenLogits, ids, AutoregressiveOptions{NumHeavyTokensQ: -1}),
		"ConditionalRoutedImageAttention.Forward: NumHeavyTokensQ is -1":           image.Forward(ctx, pixels, pixels, ImageOptions{NumHeavyTokensQ: -1}),
		"ConditionalRoutedImageAttention.Forward: NumHeavyTokensKV is -1":          image.Forward(ctx, pixels, pixels, ImageOptions{NumHeavyTokensKV: -1}),
		"ConditionalRoutedViT.Forward: NumHeavyTokensQ is -1":                      vit.Forward(ctx, classLogits, photo, ViTOptions{NumHeavyTokensQ: -1}),
	} {
		assert.ErrorContains(t, err, "colt5: "+want+", want 0")
	}
	narrow := fx.tensor(F32, 2, 8, 8, 10)
	assert.ErrorContains(t, image.Forward(ctx, narrow, narrow, ImageOptions{}),
		"colt5: ConditionalRoutedImageAttention.Forward: the image is 8 by 10 pixels, want multiples of LightWindowSize")
}

// Token ids of a wrong type are errors. Ids outside the vocabulary are counted on the device, and never used as an index.
func TestInvalidTokenIDs(t *testing.T) {
	t.Parallel()
	gputest.CountCase()
	fx := newFixture(t)
	config, textConfig := smallEncoder(), smallTransformer()
	config.NumTokens, textConfig.NumTokens = 100, 100
	withoutEmbedding := smallEncoder()
	withoutEmbedding.NumTokens = 0
	floatEncoder, encoder := mustNew(fx, NewEncoder, withoutEmbedding), mustNew(fx, NewEncoder, config)
	transformer := mustNew(fx, NewAutoregressiveTransformer, textConfig)
	ctx, y, logits := t.Context(), fx.tensor(F32, 2, 10, 8), fx.tensor(F32, 2, 10, 100)
	bytes, ids := fx.bytes(make([]uint8, 20), 2, 10), fx.ints(make([]int32, 20), 2, 10)
	for want, err := range map[string]error{
		"Encoder.Forward: x is u8[2 10], want i32[* *]":                   encoder.Forward(ctx, y, bytes, BlockOptions{}),
		"Encoder.Forward: x is i32[2 10], want f32[* * 8]":                floatEncoder.Forward(ctx, y, ids, BlockOptions{}),
		"AutoregressiveTransformer.Forward: x is u8[2 10], want i32[* *]": transformer.Forward(ctx, logits, bytes, AutoregressiveOptions{}),
	} {
		assert.ErrorContains(t, err, "colt5: "+want)
	}

	values := make([]int32, 20)
	values[3], values[4], values[19] = 100, -1, math.MinInt32
	require.NoError(t, ids.Write(ctx, values))
	stats, routing := CallStats{Flops: 1}, []RoutingRecord{{K: 1}}
	assert.ErrorContains(t, encoder.Forward(ctx, y, ids, BlockOptions{Stats: &stats, Routing: &routing}),
		"colt5: Encoder.Forward: x has 3 token ids outside the vocabulary of 100")
	assert.Equal(t, CallStats{}, stats, "a failed call has no statistics")
	assert.Empty(t, routing)
	assert.ErrorContains(t, transformer.Forward(ctx, logits, ids, AutoregressiveOptions{}), "x has 3 token ids outside the vocabulary of 100")
	values[3], values[4], values[19] = 99, 0, 1
	require.NoError(t, ids.Write(ctx, values))
	assert.NoError(t, encoder.Forward(ctx, y, ids, BlockOptions{}))
	assert.NoError(t, transformer.Forward(ctx, logits, ids, AutoregressiveOptions{}))
}

// A module without a device has parameters without elements. Whatever needs the device is an error.
func TestModulesWithoutADevice(t *testing.T) {
	m, err := NewConditionalRoutedFeedForward(t.Context(), nil, smallFeedForward())
	require.NoError(t, err)
	assert.Equal(t, []int{1, smallDim}, m.Parameters()[0].Tensor.Shape())
	x := newFixture(t).tensor(F32, 1, smallN, smallDim)
	for _, err := range []error{
		m.Forward(t.Context(), x, x, FeedForwardOptions{}), m.Init(t.Context(), 1), m.Load(t.Context(), "none"), m.Save(t.Context(), t.TempDir()+"/x"),
	} {
		assert.ErrorContains(t, err, "the module was made without a device")
	}
	assert.ErrorContains(t, m.Parameters()[0].Tensor.Write(t.Context(), []float32{1}), "nil")
	assert.NoError(t, m.Close())
	assert.NoError(t, m.Close())
}

// Closing a nil pointer is no error.
func TestNilModules(t *testing.T) {
	assert.NoError(t, (*CoordinateDescentRouter)(nil).Close())
	assert.NoError(t, (*TopK)(nil).Close())
	assert.NoError(t, (*CoordinateDescent)(nil).Close())
	assert.NoError(t, (*Graph)(nil).Close())
	for _, k := range moduleTypes(F32) {
		assert.NoError(t, k.nilModule.Close())
	}
}
