package colt5

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// moduleCase is a small module with a description of its inputs, for tests that run on every module.
type moduleCase struct {
	name       string
	module     anyModule
	x, y       []int // shapes without the batch dimension
	vocabulary int   // x holds token ids below this number, as U8; 0: x holds floats
	masked     bool  // Forward takes a mask of x's tokens
	pixels     []int // shape of the mask without the batch dimension; nil: the tokens of x
	sequential bool  // each step needs the one before
	anyRank    bool  // x and y may have any rank
	layers     int   // of a stack; 0: 1
	context    []int // shape of the context without the batch dimension; nil: Forward takes no context
	n          int   // argument of memory: tokens, or the height of an image; 0: the config fixes the size

	forward func(ctx context.Context, y *Tensor, in callArgs) error
	memory  func(caps vk.Caps, b, n int) (Memory, error)
}

// callArgs are the inputs and options of a call. Tensors that the module does not take are nil.
type callArgs struct {
	x, mask, context, contextMask *Tensor

	stats   *CallStats
	routing *[]RoutingRecord
}

const (
	smallN   = 48
	smallDim = 8
)

func smallAttention() ConditionalRoutedAttentionConfig {
	c := Default[ConditionalRoutedAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 6, 9, 4, 2, 8
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV = 4, 2, 2
	return c
}

func smallFeedForward() ConditionalRoutedFeedForwardConfig {
	c := Default[ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens, c.HeavyFFMult, c.LightFFMult = smallDim, 7, 2, 1
	return c
}

func smallBlock() ConditionalRoutedTransformerBlockConfig {
	a, f, c := smallAttention(), smallFeedForward(), Default[ConditionalRoutedTransformerBlockConfig]()
	c.Dim, c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = smallDim, a.NumHeavyTokensQ, a.NumHeavyTokensKV, f.NumHeavyTokens
	c.LightDimHead, c.LightHeads, c.LightWindowSize = a.LightDimHead, a.LightHeads, a.LightWindowSize
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.LightFFMult, c.HeavyFFMult = a.HeavyDimHead, a.HeavyHeads, a.NumRoutedKV, f.LightFFMult, f.HeavyFFMult
	return c
}

func smallEncoder() EncoderConfig {
	return EncoderConfig{Depth: 2, NumTokens: 256, ConditionalRoutedTransformerBlockConfig: smallBlock()}
}

func smallCross() ConditionalRoutedCrossAttentionConfig {
	c := Default[ConditionalRoutedCrossAttentionConfig]()
	c.Dim, c.NumTokensQ, c.NumTokensKV, c.DimHead, c.Heads, c.KVRoutingTokens = smallDim, 6, 9, 4, 2, 2
	return c
}

func smallAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	c := Default[ConditionalRoutedAutoregressiveAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 5, 9, 4, 2, 8
	c.HeavyWindowSize, c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.RotaryEmb, c.CausalQueryRouting = 16, 4, 2, 2, true, true
	return c
}

func smallTransformer() AutoregressiveTransformerConfig {
	return AutoregressiveTransformerConfig{
		Depth: 2, NumTokens: 256, FFMult: 2, ConditionalRoutedAutoregressiveAttentionConfig: smallAutoregressive(),
	}
}

func smallImage() ConditionalRoutedImageAttentionConfig {
	c := Default[ConditionalRoutedImageAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 6, 9, 4, 2, 4
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.ChannelFirst = 4, 2, 2, true
	return c
}

func smallViT() ConditionalRoutedViTConfig {
	c := Default[ConditionalRoutedViTConfig]()
	c.ImageSize, c.PatchSize, c.NumClasses, c.Dim, c.Depth = Size{16, 24}, Size{2, 2}, 5, smallDim, 2
	c.AttnNumHeavyTokensQ, c.AttnNumHeavyTokensKV, c.AttnNumRoutedKV, c.AttnHeavyDimHead, c.AttnHeavyHeads = 6, 9, 2, 4, 2
	c.AttnLightDimHead, c.AttnLightHeads, c.AttnLightWindowSize = 4, 2, 4
	c.FFNumHeavyTokens, c.FFHeavyMult, c.FFLightMult = 7, 2, 1
	return c
}

func smallLocalMHA() LocalMHAConfig {
	c := Default[LocalMHAConfig]()
	c.Dim, c.WindowSize, c.DimHead, c.Heads, c.Causal, c.PreNorm = smallDim, 4, 4, 2, true, true
	return c
}

func smallPlainFeedForward() FeedForwardConfig { return FeedForwardConfig{Dim: smallDim, Mult: 2} }

// moduleType is a moduleCase whose module is not created yet.
type moduleType struct {
	moduleCase
	create      func(fx *fixture) moduleCase
	checkConfig func(fx *fixture) // checks that Config returns the config that was passed to New
	nilModule   closer            // a nil pointer of the module's type
}

func newModuleType[C any, M interface {
	anyModule
	Config() C
}](s moduleCase, c C, newModule func(context.Context, *vk.Device, C) (M, error), forward func(ctx context.Context, m M, y *Tensor, in callArgs) error) moduleType {
	var none M
	return moduleType{moduleCase: s, nilModule: none,
		create: func(fx *fixture) moduleCase {
			fx.t.Helper()
			s, m := s, mustNewSeeded(fx, newModule, c)
			s.module, s.forward = m, func(ctx context.Context, y *Tensor, in callArgs) error { return forward(ctx, m, y, in) }
			return s
		},
		checkConfig: func(fx *fixture) { assert.Equal(fx.t, c, mustNewSeeded(fx, newModule, c).Config()) },
	}
}

// moduleTypes lists all modules with weights, with a config of precision p.
func moduleTypes(p DType) []moduleType {
	tokens, image := []int{smallN, smallDim}, []int{smallDim, 8, 12}
	return []moduleType{
		newModuleType(moduleCase{name: "feedforward", x: tokens, y: tokens, masked: true, n: smallN, memory: withPrecision(p, smallFeedForward()).Memory},
			withPrecision(p, smallFeedForward()), NewConditionalRoutedFeedForward, func(ctx context.Context, m *ConditionalRoutedFeedForward, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, FeedForwardOptions{Mask: in.mask, Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "attention", x: tokens, y: tokens, masked: true, n: smallN, memory: withPrecision(p, smallAttention()).Memory},
			withPrecision(p, smallAttention()), NewConditionalRoutedAttention, func(ctx context.Context, m *ConditionalRoutedAttention, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, AttentionOptions{Mask: in.mask, Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "block", x: tokens, y: tokens, masked: true, n: smallN, memory: withPrecision(p, smallBlock()).Memory},
			withPrecision(p, smallBlock()), NewConditionalRoutedTransformerBlock, func(ctx context.Context, m *ConditionalRoutedTransformerBlock, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, BlockOptions{Mask: in.mask, Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "encoder", layers: 2, x: tokens[:1], y: tokens, vocabulary: 256, masked: true, n: smallN, memory: withPrecision(p, smallEncoder()).Memory},
			withPrecision(p, smallEncoder()), NewEncoder, func(ctx context.Context, m *Encoder, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, BlockOptions{Mask: in.mask, Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "cross", x: tokens, y: tokens, masked: true, context: []int{70, smallDim},
			n: smallN, memory: func(caps vk.Caps, b, n int) (Memory, error) {
				return withPrecision(p, smallCross()).Memory(caps, b, n, 70)
			}},
			withPrecision(p, smallCross()), NewConditionalRoutedCrossAttention, func(ctx context.Context, m *ConditionalRoutedCrossAttention, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, in.context, CrossAttentionOptions{Mask: in.mask, ContextMask: in.contextMask, Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "autoregressive", x: tokens, y: tokens, n: smallN, memory: withPrecision(p, smallAutoregressive()).Memory},
			withPrecision(p, smallAutoregressive()), NewConditionalRoutedAutoregressiveAttention,
			func(ctx context.Context, m *ConditionalRoutedAutoregressiveAttention, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, AutoregressiveOptions{Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "autoregressive transformer", layers: 2, x: tokens[:1], y: []int{smallN, 256}, vocabulary: 256, n: smallN, memory: withPrecision(p, smallTransformer()).Memory},
			withPrecision(p, smallTransformer()), NewAutoregressiveTransformer, func(ctx context.Context, m *AutoregressiveTransformer, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, AutoregressiveOptions{Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "image", x: image, y: image, masked: true, pixels: image[1:],
			n: 8, memory: func(caps vk.Caps, b, height int) (Memory, error) {
				return withPrecision(p, smallImage()).Memory(caps, b, height, 12)
			}},
			withPrecision(p, smallImage()), NewConditionalRoutedImageAttention, func(ctx context.Context, m *ConditionalRoutedImageAttention, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, ImageOptions{Mask: in.mask, Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "vit", layers: 2, x: []int{3, 16, 24}, y: []int{5},
			memory: func(caps vk.Caps, b, _ int) (Memory, error) { return withPrecision(p, smallViT()).Memory(caps, b) }},
			withPrecision(p, smallViT()), NewConditionalRoutedViT, func(ctx context.Context, m *ConditionalRoutedViT, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, ViTOptions{Stats: in.stats, Routing: in.routing})
			}),
		newModuleType(moduleCase{name: "local attention", sequential: true, x: tokens, y: tokens, masked: true, n: smallN, memory: withPrecision(p, smallLocalMHA()).Memory},
			withPrecision(p, smallLocalMHA()), NewLocalMHA, func(ctx context.Context, m *LocalMHA, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, LocalMHAOptions{Mask: in.mask, Stats: in.stats})
			}),
		newModuleType(moduleCase{name: "plain feedforward", sequential: true, anyRank: true, x: tokens, y: tokens, n: smallN, memory: withPrecision(p, smallPlainFeedForward()).Memory},
			withPrecision(p, smallPlainFeedForward()), NewFeedForward, func(ctx context.Context, m *FeedForward, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, CallOptions{Stats: in.stats})
			}),
		newModuleType(moduleCase{name: "rmsnorm", sequential: true, anyRank: true, x: tokens, y: tokens, n: smallN, memory: RMSNormConfig{smallDim}.Memory},
			RMSNormConfig{smallDim}, NewRMSNorm, func(ctx context.Context, m *RMSNorm, y *Tensor, in callArgs) error {
				return m.Forward(ctx, y, in.x, CallOptions{Stats: in.stats})
			}),
	}
}

// withPrecision returns a config with another precision.
func withPrecision[C any](p DType, c C) C {
	reflect.ValueOf(&c).Elem().FieldByName("Precision").SetUint(uint64(p))
	return c
}

// testModules creates a small module of every type.
func (fx *fixture) testModules(p DType) (list []moduleCase) {
	fx.t.Helper()
	for _, k := range moduleTypes(p) {
		list = append(list, k.create(fx))
	}
	return list
}

// inputData is the contents of callArgs.
type inputData struct {
	x                 []float32
	ids               []uint8 // instead of x, if the module has a vocabulary
	mask, contextMask []uint8
	context           []float32
}

// randomInput returns random inputs for b items. Masks are included only if masks is true and the module takes them.
func (s moduleCase) randomInput(seed uint64, b int, masks bool) inputData {
	var v inputData
	if s.vocabulary > 0 {
		r := rand.New(rand.NewPCG(seed, 3))
		v.ids = make([]uint8, b*product(s.x))
		for i := range v.ids {
			v.ids[i] = uint8(r.IntN(s.vocabulary))
		}
	} else {
		v.x = normal(seed, b*product(s.x))
	}
	if s.context != nil {
		v.context = normal(seed+1, b*product(s.context))
	}
	if masks && s.masked {
		v.mask = randomMask(seed, b, product(s.maskShape()))
		if s.context != nil {
			v.contextMask = randomMask(seed+1, b, s.context[0])
		}
	}
	return v
}

// maskShape is the shape of the mask without the batch dimension.
func (s moduleCase) maskShape() []int {
	if s.pixels != nil {
		return s.pixels
	}
	return s.x[:1]
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// upload creates the tensors of a call for a batch of items; the contents of y are undefined.
func (fx *fixture) upload(s moduleCase, items int, v inputData) (*Tensor, callArgs) {
	fx.t.Helper()
	batch := func(shape []int) []int { return append([]int{items}, shape...) }
	var in callArgs
	if s.vocabulary > 0 {
		in.x = fx.bytes(v.ids, batch(s.x)...)
	} else {
		in.x = fx.floats(v.x, batch(s.x)...)
	}
	if v.mask != nil {
		in.mask = fx.bytes(v.mask, batch(s.maskShape())...)
	}
	if s.context != nil {
		in.context = fx.floats(v.context, batch(s.context)...)
	}
	if v.contextMask != nil {
		in.contextMask = fx.bytes(v.contextMask, items, s.context[0])
	}
	return fx.tensor(F32, batch(s.y)...), in
}

// run returns the output of a call. It fails if an element is not written or not finite, or if x changed.
func (fx *fixture) run(s moduleCase, items int, v inputData) []float32 {
	fx.t.Helper()
	y, in := fx.upload(s, items, v)
	require.NoError(fx.t, y.Write(fx.t.Context(), nanFill(y.Len())))
	require.NoError(fx.t, s.forward(fx.t.Context(), y, in))
	if in.x.DType() == F32 {
		require.Equal(fx.t, v.x, fx.read(in.x), "x changed")
	}
	return fx.readFinite(y)
}

// item returns the input of item j as a batch of one.
func (s moduleCase) item(v inputData, j, items int) inputData {
	return inputData{batchItem(v.x, j, items), batchItem(v.ids, j, items), batchItem(v.mask, j, items), batchItem(v.contextMask, j, items), batchItem(v.context, j, items)}
}

func batchItem[E any](list []E, j, items int) []E {
	n := len(list) / items
	return slices.Clone(list[j*n : (j+1)*n])
}

// withItem returns v with item j taken from other.
func (s moduleCase) withItem(v, other inputData, j, items int) inputData {
	return inputData{
		replaceItem(v.x, other.x, j, items), replaceItem(v.ids, other.ids, j, items), replaceItem(v.mask, other.mask, j, items),
		replaceItem(v.contextMask, other.contextMask, j, items), replaceItem(v.context, other.context, j, items),
	}
}

func replaceItem[E any](list, other []E, j, items int) []E {
	if list == nil {
		return nil
	}
	n := len(list) / items
	return slices.Concat(list[:j*n], other[j*n:(j+1)*n], list[(j+1)*n:])
}

// typeName is the name of a module's type, as in error messages.
func typeName(m anyModule) string { return reflect.TypeOf(m).Elem().Name() }
