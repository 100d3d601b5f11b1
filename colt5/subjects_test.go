package colt5

import (
	"math/rand/v2"
	"reflect"
	"slices"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// subject is a small module, its inputs described so that one test can go through all modules.
type subject struct {
	name   string
	module anyModule
	x, y   []int // shapes of an item
	ids    int   // x holds ids of a vocabulary of so many: U8; 0: floats
	masked bool  // it takes a mask of x's tokens
	second []int // shape of an item of another input: context; nil: none
	n      int   // of memory: tokens, or the height of an image; 0: the config says all

	forward func(y *Tensor, in inputs) error
	memory  func(caps vk.Caps, b, n int) (Memory, error)
}

// inputs are the tensors of a call.
type inputs struct{ x, mask, second, secondMask *Tensor }

const (
	smallN   = 48
	smallDim = 8
)

func smallAttention() ConditionalRoutedAttentionConfig {
	c := DefaultConditionalRoutedAttentionConfig()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 6, 9, 4, 2, 8
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV = 4, 2, 2
	return c
}

func smallFeedForward() ConditionalRoutedFeedForwardConfig {
	c := DefaultConditionalRoutedFeedForwardConfig()
	c.Dim, c.NumHeavyTokens, c.HeavyFFMult, c.LightFFMult = smallDim, 7, 2, 1
	return c
}

func smallBlock() ConditionalRoutedTransformerBlockConfig {
	a, f, c := smallAttention(), smallFeedForward(), DefaultConditionalRoutedTransformerBlockConfig()
	c.Dim, c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = smallDim, a.NumHeavyTokensQ, a.NumHeavyTokensKV, f.NumHeavyTokens
	c.LightDimHead, c.LightHeads, c.LightWindowSize = a.LightDimHead, a.LightHeads, a.LightWindowSize
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.LightFFMult, c.HeavyFFMult = a.HeavyDimHead, a.HeavyHeads, a.NumRoutedKV, f.LightFFMult, f.HeavyFFMult
	return c
}

func smallEncoder() EncoderConfig {
	return EncoderConfig{Depth: 2, NumTokens: 256, ConditionalRoutedTransformerBlockConfig: smallBlock()}
}

func smallCross() ConditionalRoutedCrossAttentionConfig {
	c := DefaultConditionalRoutedCrossAttentionConfig()
	c.Dim, c.NumTokensQ, c.NumTokensKV, c.DimHead, c.Heads, c.KVRoutingTokens = smallDim, 6, 9, 4, 2, 2
	return c
}

func smallAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	c := DefaultConditionalRoutedAutoregressiveAttentionConfig()
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
	c := DefaultConditionalRoutedImageAttentionConfig()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightDimHead, c.LightHeads, c.LightWindowSize = smallDim, 6, 9, 4, 2, 4
	c.HeavyDimHead, c.HeavyHeads, c.NumRoutedKV, c.ChannelFirst = 4, 2, 2, true
	return c
}

func smallViT() ConditionalRoutedViTConfig {
	c := DefaultConditionalRoutedViTConfig()
	c.ImageSize, c.PatchSize, c.NumClasses, c.Dim, c.Depth = Size{16, 24}, Square(2), 5, smallDim, 2
	c.AttnNumHeavyTokensQ, c.AttnNumHeavyTokensKV, c.AttnNumRoutedKV, c.AttnHeavyDimHead, c.AttnHeavyHeads = 6, 9, 2, 4, 2
	c.AttnLightDimHead, c.AttnLightHeads, c.AttnLightWindowSize = 4, 2, 4
	c.FFNumHeavyTokens, c.FFHeavyMult, c.FFLightMult = 7, 2, 1
	return c
}

// create makes a module with initial weights.
func create[C any, M anyModule](b *bench, make func(*vk.Device, C) (M, error), c C) M {
	b.t.Helper()
	m := opened(b, make, c)
	require.NoError(b.t, m.Init(5))
	return m
}

// kind is a kind of module in small: its subject, but for the module.
type kind struct {
	subject
	open func(b *bench) subject
	kept func(b *bench) // checks that the module tells the config that it was made with
	none closer         // a nil pointer
}

// kindOf knows the types of a kind.
func kindOf[C any, M interface {
	anyModule
	Config() C
}](s subject, c C, make func(*vk.Device, C) (M, error), forward func(m M, y *Tensor, in inputs) error) kind {
	var none M
	return kind{subject: s, none: none,
		open: func(b *bench) subject {
			b.t.Helper()
			s, m := s, create(b, make, c)
			s.module, s.forward = m, func(y *Tensor, in inputs) error { return forward(m, y, in) }
			return s
		},
		kept: func(b *bench) { assert.Equal(b.t, c, create(b, make, c).Config()) },
	}
}

// kinds are all there are, in a precision.
func kinds(p DType) []kind {
	tokens, image := []int{smallN, smallDim}, []int{smallDim, 8, 12}
	return []kind{
		kindOf(subject{name: "feedforward", x: tokens, y: tokens, masked: true, n: smallN, memory: in(p, smallFeedForward()).Memory},
			in(p, smallFeedForward()), NewConditionalRoutedFeedForward, func(m *ConditionalRoutedFeedForward, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, FeedForwardOptions{Mask: in.mask})
			}),
		kindOf(subject{name: "attention", x: tokens, y: tokens, masked: true, n: smallN, memory: in(p, smallAttention()).Memory},
			in(p, smallAttention()), NewConditionalRoutedAttention, func(m *ConditionalRoutedAttention, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, AttentionOptions{Mask: in.mask})
			}),
		kindOf(subject{name: "block", x: tokens, y: tokens, masked: true, n: smallN, memory: in(p, smallBlock()).Memory},
			in(p, smallBlock()), NewConditionalRoutedTransformerBlock, func(m *ConditionalRoutedTransformerBlock, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, BlockOptions{Mask: in.mask})
			}),
		kindOf(subject{name: "encoder", x: tokens[:1], y: tokens, ids: 256, masked: true, n: smallN, memory: in(p, smallEncoder()).Memory},
			in(p, smallEncoder()), NewEncoder, func(m *Encoder, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, BlockOptions{Mask: in.mask})
			}),
		kindOf(subject{name: "cross", x: tokens, y: tokens, masked: true, second: []int{70, smallDim},
			n: smallN, memory: func(caps vk.Caps, b, n int) (Memory, error) { return in(p, smallCross()).Memory(caps, b, n, 70) }},
			in(p, smallCross()), NewConditionalRoutedCrossAttention, func(m *ConditionalRoutedCrossAttention, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, in.second, CrossAttentionOptions{Mask: in.mask, ContextMask: in.secondMask})
			}),
		kindOf(subject{name: "autoregressive", x: tokens, y: tokens, n: smallN, memory: in(p, smallAutoregressive()).Memory},
			in(p, smallAutoregressive()), NewConditionalRoutedAutoregressiveAttention,
			func(m *ConditionalRoutedAutoregressiveAttention, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, AutoregressiveOptions{})
			}),
		kindOf(subject{name: "autoregressive transformer", x: tokens[:1], y: []int{smallN, 256}, ids: 256, n: smallN, memory: in(p, smallTransformer()).Memory},
			in(p, smallTransformer()), NewAutoregressiveTransformer, func(m *AutoregressiveTransformer, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, AutoregressiveOptions{})
			}),
		kindOf(subject{name: "image", x: image, y: image,
			n: 8, memory: func(caps vk.Caps, b, height int) (Memory, error) {
				return in(p, smallImage()).Memory(caps, b, height, 12)
			}},
			in(p, smallImage()), NewConditionalRoutedImageAttention, func(m *ConditionalRoutedImageAttention, y *Tensor, in inputs) error {
				return m.Forward(y, in.x, ImageOptions{})
			}),
		kindOf(subject{name: "vit", x: []int{3, 16, 24}, y: []int{5},
			memory: func(caps vk.Caps, b, _ int) (Memory, error) { return in(p, smallViT()).Memory(caps, b) }},
			in(p, smallViT()), NewConditionalRoutedViT, func(m *ConditionalRoutedViT, y *Tensor, in inputs) error { return m.Forward(y, in.x) }),
	}
}

// in is a config with another precision.
func in[C any](p DType, c C) C {
	reflect.ValueOf(&c).Elem().FieldByName("Precision").SetUint(uint64(p))
	return c
}

// subjects are small modules of every kind.
func (b *bench) subjects(p DType) (list []subject) {
	b.t.Helper()
	for _, k := range kinds(p) {
		list = append(list, k.open(b))
	}
	return list
}

// values are what the tensors of a call hold.
type values struct {
	x                []float32
	ids              []uint8
	mask, secondMask []uint8
	second           []float32
}

// some are random inputs for b items, those of masks only with masks.
func (s subject) some(seed uint64, b int, masks bool) values {
	var v values
	if s.ids > 0 {
		r := rand.New(rand.NewPCG(seed, 3))
		v.ids = make([]uint8, b*product(s.x))
		for i := range v.ids {
			v.ids[i] = uint8(r.IntN(s.ids))
		}
	} else {
		v.x = normal(seed, b*product(s.x))
	}
	if s.second != nil {
		v.second = normal(seed+1, b*product(s.second))
	}
	if masks && s.masked {
		v.mask = someMask(seed, b, s.x[0])
		if s.second != nil {
			v.secondMask = someMask(seed+1, b, s.second[0])
		}
	}
	return v
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// upload makes tensors of values, and one for the output.
func (b *bench) upload(s subject, items int, v values) (*Tensor, inputs) {
	b.t.Helper()
	batch := func(shape []int) []int { return append([]int{items}, shape...) }
	var in inputs
	if s.ids > 0 {
		in.x = b.bytes(v.ids, batch(s.x)...)
	} else {
		in.x = b.floats(v.x, batch(s.x)...)
	}
	if v.mask != nil {
		in.mask = b.bytes(v.mask, items, s.x[0])
	}
	if s.second != nil {
		in.second = b.floats(v.second, batch(s.second)...)
	}
	if v.secondMask != nil {
		in.secondMask = b.bytes(v.secondMask, items, s.second[0])
	}
	return b.tensor(F32, batch(s.y)...), in
}

// result is the output for values; inputs stay as they are.
func (b *bench) result(s subject, items int, v values) []float32 {
	b.t.Helper()
	y, in := b.upload(s, items, v)
	require.NoError(b.t, y.Write(nans(y.Len())))
	require.NoError(b.t, s.forward(y, in))
	if in.x.DType() == F32 {
		require.Equal(b.t, v.x, b.read(in.x), "the input changed")
	}
	return b.finite(y)
}

// output is what forward writes to a tensor of a shape: all of it, and numbers.
func (b *bench) output(forward func(y *Tensor) error, shape ...int) []float32 {
	b.t.Helper()
	y := b.tensor(F32, shape...)
	require.NoError(b.t, y.Write(nans(y.Len())))
	require.NoError(b.t, forward(y))
	return b.finite(y)
}

func (b *bench) finite(y *Tensor) []float32 {
	b.t.Helper()
	got := b.read(y)
	require.False(b.t, slices.ContainsFunc(got, func(v float32) bool { return v-v != 0 }), "NaN or infinity")
	return got
}

// item is the values of one item.
func (s subject) item(v values, j, items int) values {
	return values{part(v.x, j, items), part(v.ids, j, items), part(v.mask, j, items), part(v.secondMask, j, items), part(v.second, j, items)}
}

func part[E any](list []E, j, items int) []E {
	n := len(list) / items
	return slices.Clone(list[j*n : (j+1)*n])
}

// with is v, but for item j, which is that of other.
func (s subject) with(v, other values, j, items int) values {
	return values{
		replaced(v.x, other.x, j, items), replaced(v.ids, other.ids, j, items), replaced(v.mask, other.mask, j, items),
		replaced(v.secondMask, other.secondMask, j, items), replaced(v.second, other.second, j, items),
	}
}

func replaced[E any](list, other []E, j, items int) []E {
	if list == nil {
		return nil
	}
	n := len(list) / items
	return slices.Concat(list[:j*n], other[j*n:(j+1)*n], list[(j+1)*n:])
}
