package colt5

import (
	"fmt"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What follows compares modules with their twins where no golden case does: dimensions that are no multiple of anything, a single token, masks
// that leave whole windows empty, short last blocks, and every flag.

// twinFloor is the floor of the bounds: what float32 may differ where the plain twin hits the result exactly.
const twinFloor = 4e-6

// twins compares a result with those of a module's twins.
func (b *bench) twins(got []float32, want ref.Result, plain ref.ResultOf[float32]) {
	b.t.Helper()
	assert.NoError(b.t, ref.MaxErr(got, want.Y).Within(ref.Bound(plain.Y, want.Y, twinFloor)))
}

// gappyMask is someMask with runs of masked tokens that are longer than any window of these tests.
func gappyMask(seed uint64, b, n int) []uint8 {
	m := someMask(seed, b, n)
	for i := range m {
		if at := i % n; at >= n/3 && at < n/3+n/2 {
			m[i] = 0
		}
	}
	return m
}

// softly gives a router scores other than 1.
func softly(o *RouterOptions) { o.Eps, o.EpsInit, o.EpsDecay = 1, 0, 1 }

func refAttention(c ConditionalRoutedAttentionConfig) ref.AttentionConfig {
	return ref.AttentionConfig{
		Dim: c.Dim, NumHeavyTokensQ: c.NumHeavyTokensQ, NumHeavyTokensKV: c.NumHeavyTokensKV, NumRoutedKV: c.NumRoutedKV,
		LightDimHead: c.LightDimHead, LightHeads: c.LightHeads, LightWindowSize: c.LightWindowSize, HeavyDimHead: c.HeavyDimHead, HeavyHeads: c.HeavyHeads,
		UseNullQTokens: c.UseNullQTokens, HasLightAttn: c.HasLightAttn, MultiplyKeysByScore: c.MultiplyKeysByScore,
		MultiplyQueriesByScore: c.MultiplyQueriesByScore, RotaryEmb: c.RotaryEmb, Router: refRouter(c.Router, c.RouterStraightThrough, 1),
	}
}

// oddAttention has sizes that are primes. evenAttention has rotary embeddings. All twins have one of the two, since each size needs kernels of its
// own.
func oddAttention() ConditionalRoutedAttentionConfig {
	c := DefaultConditionalRoutedAttentionConfig()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV = 7, 3, 5, 6, 3, 17, 3
	c.NumHeavyTokensQ, c.NumHeavyTokensKV = 5, 11
	return c
}

func evenAttention() ConditionalRoutedAttentionConfig {
	c := DefaultConditionalRoutedAttentionConfig()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV = 20, 2, 12, 10, 2, 20, 2
	c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.RotaryEmb = 9, 13, true
	return c
}

func TestAttentionTwins(t *testing.T) {
	type config = ConditionalRoutedAttentionConfig
	all := func(c *config) {
		softly(&c.Router)
		c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
	}
	heavyAlone := func(c *config) { c.HasLightAttn = false }
	noNull := func(c *config) { c.UseNullQTokens = false }
	blocks := func(c *config) { c.Router.RouteBlockSize = 13 }
	oneRoute := func(c *config) { c.NumRoutedKV = 1 }
	everything := func(c *config) { c.NumHeavyTokensQ, c.NumHeavyTokensKV = 100, 100 }
	allKeys := func(c *config) { c.NumHeavyTokensKV = 100 }
	for _, test := range []struct {
		name   string
		start  config
		b, n   int
		mask   bool
		change []func(*config)
	}{
		{"one token", oddAttention(), 2, 1, false, nil},
		{"one token, masked", oddAttention(), 2, 1, true, nil},
		{"two tokens", oddAttention(), 1, 2, false, nil},
		{"prime", oddAttention(), 2, 53, false, nil},
		{"prime, masked, all flags", oddAttention(), 3, 53, true, []func(*config){all}},
		{"prime, no null token", oddAttention(), 3, 53, true, []func(*config){noNull}},
		{"heavy alone", oddAttention(), 2, 53, true, []func(*config){heavyAlone}},
		{"heavy alone, all flags, no null token", oddAttention(), 2, 53, true, []func(*config){heavyAlone, noNull, all}},
		{"heavy alone, nothing routed, no null token", oddAttention(), 2, 31, true, []func(*config){heavyAlone, noNull, everything}},
		{"nothing routed, several routes", oddAttention(), 2, 31, false, []func(*config){everything, all}},
		{"nothing routed, several routes, masked", oddAttention(), 3, 31, true, []func(*config){everything, all}},
		{"rotary, blocks, the last short", evenAttention(), 3, 61, true, []func(*config){blocks}},
		{"rotary, blocks, the last short, all flags", evenAttention(), 2, 61, false, []func(*config){blocks, all}},
		{"rotary, a last block shorter than its count", evenAttention(), 2, 53, false, []func(*config){blocks, all}},
		{"rotary, all keys", evenAttention(), 3, 61, true, []func(*config){allKeys}},
		{"one route", oddAttention(), 2, 53, true, []func(*config){oneRoute, all}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b, c := newBench(t), test.start
			for _, change := range test.change {
				change(&c)
			}
			m := create(b, NewConditionalRoutedAttention, c)
			x, y, o := normal(3, test.b*test.n*c.Dim), b.tensor(F32, test.b, test.n, c.Dim), AttentionOptions{}
			var mask []uint8
			if test.mask {
				mask = gappyMask(4, test.b, test.n)
				o.Mask = b.bytes(mask, test.b, test.n)
			}
			require.NoError(t, m.Forward(y, b.floats(x, test.b, test.n, c.Dim), o))
			rc, p := refAttention(c), ref.Params(b.host(m.Parameters()))
			b.twins(b.read(y), ref.ConditionalRoutedAttention(x, mask, test.b, test.n, rc, p, ""),
				ref.ConditionalRoutedAttention32(x, mask, test.b, test.n, rc, p, ""))
		})
	}
}

func TestCrossAttentionTwins(t *testing.T) {
	type config = ConditionalRoutedCrossAttentionConfig
	odd := DefaultConditionalRoutedCrossAttentionConfig()
	odd.Dim, odd.Heads, odd.DimHead, odd.KVRoutingTokens, odd.NumTokensQ, odd.NumTokensKV = 7, 3, 17, 3, 5, 11
	for _, test := range []struct {
		name    string
		b, n, m int
		masks   bool
		change  func(*config)
	}{
		{"one query, one memory", 2, 1, 1, false, func(*config) {}},
		{"prime", 2, 31, 67, false, func(*config) {}},
		{"masks, soft, keys by score", 3, 31, 67, true, func(c *config) {
			softly(&c.Router)
			c.RouterStraightThrough, c.MultiplyKeysByScore = false, true
		}},
		{"blocks, the last short", 2, 31, 67, true, func(c *config) { c.RouteBlockSize, c.UseNullQTokens = 20, false }},
		{"all memories, several routes", 2, 31, 67, true, func(c *config) { c.NumTokensKV = 67 }},
		{"all queries, masked", 3, 31, 67, true, func(c *config) { c.NumTokensQ = 40 }},
		{"all of both", 2, 5, 9, false, func(c *config) { c.NumTokensKV = 67 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b, c := newBench(t), odd
			test.change(&c)
			a := create(b, NewConditionalRoutedCrossAttention, c)
			in := ref.CrossAttentionInput{X: normal(1, test.b*test.n*c.Dim), Context: normal(2, test.b*test.m*c.Dim), B: test.b, N: test.n, M: test.m}
			o := CrossAttentionOptions{}
			if test.masks {
				in.Mask, in.ContextMask = gappyMask(3, test.b, test.n), gappyMask(4, test.b, test.m)
				o.Mask, o.ContextMask = b.bytes(in.Mask, test.b, test.n), b.bytes(in.ContextMask, test.b, test.m)
			}
			y := b.tensor(F32, test.b, test.n, c.Dim)
			require.NoError(t, a.Forward(y, b.floats(in.X, test.b, test.n, c.Dim), b.floats(in.Context, test.b, test.m, c.Dim), o))
			rc, p := ref.CrossAttentionConfig{
				Dim: c.Dim, NumTokensQ: c.NumTokensQ, NumTokensKV: c.NumTokensKV, DimHead: c.DimHead, Heads: c.Heads, KVRoutingTokens: c.KVRoutingTokens,
				RouteBlockSize: int(c.RouteBlockSize), UseNullQTokens: c.UseNullQTokens, MultiplyKeysByScore: c.MultiplyKeysByScore,
				Router: refRouter(c.Router, c.RouterStraightThrough, 1),
			}, ref.Params(b.host(a.Parameters()))
			b.twins(b.read(y), ref.ConditionalRoutedCrossAttention(in, rc, p, ""), ref.ConditionalRoutedCrossAttention32(in, rc, p, ""))
		})
	}
}

func refAutoregressive(c ConditionalRoutedAutoregressiveAttentionConfig) ref.AutoregressiveConfig {
	return ref.AutoregressiveConfig{
		AttentionConfig: refAttention(ConditionalRoutedAttentionConfig{
			Dim: c.Dim, NumHeavyTokensQ: c.NumHeavyTokensQ, NumHeavyTokensKV: c.NumHeavyTokensKV, NumRoutedKV: c.NumRoutedKV,
			LightDimHead: c.LightDimHead, LightHeads: c.LightHeads, LightWindowSize: c.LightWindowSize, HeavyDimHead: c.HeavyDimHead, HeavyHeads: c.HeavyHeads,
			HasLightAttn: true, RotaryEmb: c.RotaryEmb, RouterStraightThrough: c.RouterStraightThrough, MultiplyKeysByScore: c.MultiplyKeysByScore,
			MultiplyQueriesByScore: c.MultiplyQueriesByScore, UseNullQTokens: c.UseNullQTokens, Router: c.Router,
		}),
		HeavyWindowSize: int(c.HeavyWindowSize), CausalQueryRouting: c.CausalQueryRouting,
	}
}

func oddAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	c := DefaultConditionalRoutedAutoregressiveAttentionConfig()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV = 7, 3, 5, 5, 3, 17, 3
	c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.HeavyWindowSize = 4, 9, 11
	return c
}

func evenAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	a, c := evenAttention(), oddAutoregressive()
	c.Dim, c.LightHeads, c.LightDimHead, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV, c.RotaryEmb =
		a.Dim, a.LightHeads, a.LightDimHead, a.HeavyHeads, a.HeavyDimHead, a.NumRoutedKV, true
	return c
}

func TestAutoregressiveTwins(t *testing.T) {
	type config = ConditionalRoutedAutoregressiveAttentionConfig
	all := func(c *config) {
		softly(&c.Router)
		c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
	}
	rotary := func(c *config) { *c = evenAutoregressive() }
	causal := func(c *config) { c.CausalQueryRouting = true }
	allKeys := func(c *config) { c.NumHeavyTokensKV = 100 }
	for _, test := range []struct {
		name   string
		b, n   int
		change []func(*config)
	}{
		{"one token", 2, 1, nil},
		{"a window", 2, 11, nil},
		{"a token more than a window", 2, 12, nil},
		{"prime", 2, 53, nil},
		{"prime, all flags", 2, 53, []func(*config){all}},
		{"whole windows, all flags, no null token", 2, 55, []func(*config){all, func(c *config) { c.UseNullQTokens = false }}},
		{"windows as the light ones", 2, 23, []func(*config){func(c *config) { c.HeavyWindowSize = 0 }}},
		{"a heavy window longer than the sequence", 2, 53, []func(*config){func(c *config) { c.HeavyWindowSize = 64 }}},
		{"all keys", 2, 53, []func(*config){allKeys, all}},
		{"all queries", 2, 53, []func(*config){func(c *config) { c.NumHeavyTokensQ = 11 }}},
		{"all of both, causal", 2, 53, []func(*config){causal, allKeys, func(c *config) { c.NumHeavyTokensQ = 20 }}},
		{"causal", 2, 53, []func(*config){causal}},
		{"causal, all but one", 2, 53, []func(*config){causal, func(c *config) { c.NumHeavyTokensQ = 10 }}},
		{"causal, rotary, cosine", 2, 47, []func(*config){rotary, causal, func(c *config) { c.Router.CosineSimRouting = true }}},
		{"rotary, all flags", 2, 47, []func(*config){rotary, all}},
		{"rotary, all keys", 2, 47, []func(*config){rotary, allKeys}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b, c := newBench(t), oddAutoregressive()
			for _, change := range test.change {
				change(&c)
			}
			a := create(b, NewConditionalRoutedAutoregressiveAttention, c)
			x, y := normal(3, test.b*test.n*c.Dim), b.tensor(F32, test.b, test.n, c.Dim)
			require.NoError(t, a.Forward(y, b.floats(x, test.b, test.n, c.Dim), AutoregressiveOptions{}))
			rc, p := refAutoregressive(c), ref.Params(b.host(a.Parameters()))
			b.twins(b.read(y), ref.ConditionalRoutedAutoregressiveAttention(x, nil, test.b, test.n, rc, p, ""),
				ref.ConditionalRoutedAutoregressiveAttention32(x, nil, test.b, test.n, rc, p, ""))
		})
	}
}

func refImage(c ConditionalRoutedImageAttentionConfig) ref.ImageAttentionConfig {
	return ref.ImageAttentionConfig{
		AttentionConfig: refAttention(ConditionalRoutedAttentionConfig{
			Dim: c.Dim, NumHeavyTokensQ: c.NumHeavyTokensQ, NumHeavyTokensKV: c.NumHeavyTokensKV, NumRoutedKV: c.NumRoutedKV,
			LightDimHead: c.LightDimHead, LightHeads: c.LightHeads, LightWindowSize: c.LightWindowSize, HeavyDimHead: c.HeavyDimHead, HeavyHeads: c.HeavyHeads,
			RouterStraightThrough: c.RouterStraightThrough, MultiplyKeysByScore: c.MultiplyKeysByScore, MultiplyQueriesByScore: c.MultiplyQueriesByScore,
			UseNullQTokens: c.UseNullQTokens, Router: c.Router,
		}),
		ChannelFirst: c.ChannelFirst, RouteScope: string(c.RouteScope),
	}
}

func TestImageAttentionTwins(t *testing.T) {
	type config = ConditionalRoutedImageAttentionConfig
	odd := DefaultConditionalRoutedImageAttentionConfig()
	odd.Dim, odd.LightHeads, odd.LightDimHead, odd.LightWindowSize, odd.HeavyHeads, odd.HeavyDimHead, odd.NumRoutedKV = 7, 3, 5, 3, 3, 17, 3
	odd.NumHeavyTokensQ, odd.NumHeavyTokensKV = 4, 5
	all := func(c *config) {
		softly(&c.Router)
		c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
	}
	window := func(c *config) { c.RouteScope = RouteScopeWindow }
	first := func(c *config) { c.ChannelFirst = true }
	everything := func(c *config) { c.NumHeavyTokensQ, c.NumHeavyTokensKV = 100, 100 }
	for _, test := range []struct {
		name             string
		b, height, width int
		change           []func(*config)
	}{
		{"one patch", 2, 3, 3, nil},
		{"pixels are patches", 2, 5, 7, []func(*config){func(c *config) { c.LightWindowSize = 1 }}},
		{"image", 2, 9, 6, nil},
		{"image, all flags, channels first", 2, 6, 9, []func(*config){all, first}},
		{"image, blocks, no null token", 2, 6, 9, []func(*config){func(c *config) { c.Router.RouteBlockSize, c.UseNullQTokens = 20, false }}},
		{"image, nothing routed", 2, 6, 9, []func(*config){everything, first}},
		{"windows", 2, 9, 6, []func(*config){window}},
		{"windows, all flags, channels first", 2, 6, 9, []func(*config){window, all, first}},
		{"windows, nothing routed", 2, 6, 9, []func(*config){window, everything, first}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b, c := newBench(t), odd
			for _, change := range test.change {
				change(&c)
			}
			a, shape := create(b, NewConditionalRoutedImageAttention, c), c.shape(test.b, test.height, test.width)
			x, y := normal(3, product(shape)), b.tensor(F32, shape...)
			require.NoError(t, a.Forward(y, b.floats(x, shape...), ImageOptions{}))
			rc, p := refImage(c), ref.Params(b.host(a.Parameters()))
			b.twins(b.read(y), ref.ConditionalRoutedImageAttention(x, test.b, test.height, test.width, rc, p, ""),
				ref.ConditionalRoutedImageAttention32(x, test.b, test.height, test.width, rc, p, ""))
		})
	}
}

func TestViTTwins(t *testing.T) {
	odd := DefaultConditionalRoutedViTConfig()
	odd.ImageSize, odd.PatchSize, odd.Channels, odd.NumClasses, odd.Dim, odd.Depth = Size{12, 27}, Size{2, 3}, 2, 11, 20, 1
	odd.AttnNumHeavyTokensQ, odd.AttnNumHeavyTokensKV, odd.AttnNumRoutedKV, odd.AttnHeavyHeads, odd.AttnHeavyDimHead = 5, 6, 2, 2, 20
	odd.AttnLightHeads, odd.AttnLightDimHead, odd.AttnLightWindowSize, odd.FFNumHeavyTokens, odd.FFHeavyMult, odd.FFLightMult = 2, 12, 3, 10, 1.3, 0.4
	soft, windows, deep, whole := odd, odd, odd, odd
	soft.RouterStraightThrough, soft.Router.EpsInit, soft.Router.EpsDecay = false, 0, 1
	windows.RouteScope, deep.Depth = RouteScopeWindow, 3
	whole.AttnNumHeavyTokensQ, whole.AttnNumHeavyTokensKV, whole.FFNumHeavyTokens = 54, 54, 54
	for name, c := range map[string]ConditionalRoutedViTConfig{"prime": odd, "soft": soft, "windows": windows, "deep": deep, "nothing routed": whole} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b := newBench(t)
			v := create(b, NewConditionalRoutedViT, c)
			x, y := normal(3, 2*2*12*27), b.tensor(F32, 2, 11)
			require.NoError(t, v.Forward(y, b.floats(x, 2, 2, 12, 27)))
			rc := ref.ViTConfig{
				ImageHeight: 12, ImageWidth: 27, PatchHeight: 2, PatchWidth: 3, Channels: 2, Depth: c.Depth, NumClasses: 11,
				Attention: refImage(c.attention()), NumHeavyFFTokens: c.FFNumHeavyTokens, Router: refRouter(c.Router, c.RouterStraightThrough, 1),
			}
			p := ref.Params(b.host(v.Parameters()))
			b.twins(b.read(y), ref.ConditionalRoutedViT(x, 2, rc, p, ""), ref.ConditionalRoutedViT32(x, 2, rc, p, ""))
		})
	}
}

// oddBlock has the sizes of oddAttention.
func oddBlock() ConditionalRoutedTransformerBlockConfig {
	a, c := oddAttention(), DefaultConditionalRoutedTransformerBlockConfig()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV =
		a.Dim, a.LightHeads, a.LightDimHead, a.LightWindowSize, a.HeavyHeads, a.HeavyDimHead, a.NumRoutedKV
	c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens, c.HeavyFFMult = a.NumHeavyTokensQ, a.NumHeavyTokensKV, 6, 2.5
	return c
}

// ids are random token ids, as both types where a byte holds them.
func idsOf(seed uint64, count, vocabulary int) (ids []int32, bytes []uint8) {
	for _, v := range normal(seed, count) {
		id := int32(v*1000) % int32(vocabulary)
		ids, bytes = append(ids, max(id, -id)), append(bytes, uint8(max(id, -id)))
	}
	return ids, bytes
}

func (b *bench) ints(data []int32, shape ...int) *Tensor {
	b.t.Helper()
	x, err := FromInt32(b.dev, data, shape...)
	require.NoError(b.t, err)
	b.keep(x)
	return x
}

func TestEncoderTwins(t *testing.T) {
	for _, test := range []struct {
		depth, vocabulary, b, n   int
		bytes, mask, soft, blocks bool
	}{
		{depth: 1, b: 2, n: 29},
		{depth: 2, b: 3, n: 53, mask: true},
		{depth: 3, b: 2, n: 53, mask: true, soft: true},
		{depth: 1, vocabulary: 37, b: 2, n: 53, mask: true},
		{depth: 2, vocabulary: 300, bytes: true, b: 2, n: 53, blocks: true},
		{depth: 3, vocabulary: 1000, b: 1, n: 1},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b := newBench(t)
			c := EncoderConfig{Depth: test.depth, NumTokens: OptionalInt(test.vocabulary), ConditionalRoutedTransformerBlockConfig: oddBlock()}
			if c.RouterStraightThrough = !test.soft; test.soft {
				softly(&c.Router)
			}
			if test.blocks {
				c.Router.RouteBlockSize = 20
			}
			e := create(b, NewEncoder, c)
			var x []float32
			var ids []int32
			var tensor *Tensor
			switch list, bytes := idsOf(5, test.b*test.n, max(test.vocabulary, 1)); {
			case test.vocabulary == 0:
				x = normal(3, test.b*test.n*c.Dim)
				tensor = b.floats(x, test.b, test.n, c.Dim)
			case test.bytes:
				for _, v := range bytes {
					ids = append(ids, int32(v))
				}
				tensor = b.bytes(bytes, test.b, test.n)
			default:
				ids, tensor = list, b.ints(list, test.b, test.n)
			}
			var mask []uint8
			o := BlockOptions{}
			if test.mask {
				mask = gappyMask(4, test.b, test.n)
				o.Mask = b.bytes(mask, test.b, test.n)
			}
			y := b.tensor(F32, test.b, test.n, c.Dim)
			require.NoError(t, e.Forward(y, tensor, o))
			rc := ref.BlockConfig{AttentionConfig: refAttention(c.Attention()), NumHeavyFFTokens: c.NumHeavyFFTokens}
			p := ref.Params(b.host(e.Parameters()))
			b.twins(b.read(y), ref.Encoder(x, ids, mask, test.b, test.n, c.Depth, rc, p, ""),
				ref.Encoder32(x, ids, mask, test.b, test.n, c.Depth, rc, p, ""))
		})
	}
}

// A block is an encoder's layer without embedding and norm.
func TestBlockTwins(t *testing.T) {
	gputest.Count()
	b, c := newBench(t), oddBlock()
	m := create(b, NewConditionalRoutedTransformerBlock, c)
	const items, n = 3, 53
	x, mask, y := normal(1, items*n*c.Dim), gappyMask(2, items, n), b.tensor(F32, items, n, c.Dim)
	rc := ref.BlockConfig{AttentionConfig: refAttention(c.Attention()), NumHeavyFFTokens: c.NumHeavyFFTokens}
	p := ref.Params(b.host(m.Parameters()))
	run := func(o BlockOptions) {
		t.Helper()
		o.Mask = b.bytes(mask, items, n)
		require.NoError(t, m.Forward(y, b.floats(x, items, n, c.Dim), o))
		b.twins(b.read(y), ref.ConditionalRoutedTransformerBlock(x, mask, items, n, rc, p, ""),
			ref.ConditionalRoutedTransformerBlock32(x, mask, items, n, rc, p, ""))
	}
	run(BlockOptions{})
	// Numbers of tokens that come with the call.
	rc.NumHeavyTokensQ, rc.NumHeavyTokensKV, rc.NumHeavyFFTokens = 53, 3, 17
	run(BlockOptions{NumHeavyAttnTokensQ: 53, NumHeavyAttnTokensKV: 3, NumHeavyFFTokens: 17})
}

func TestAutoregressiveTransformerTwins(t *testing.T) {
	for _, test := range []struct {
		depth, vocabulary, n int
		causal               bool
	}{{1, 50, 1, true}, {2, 50, 47, false}, {3, 50, 47, true}} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Parallel()
			gputest.Count()
			b := newBench(t)
			c := AutoregressiveTransformerConfig{
				Depth: test.depth, NumTokens: test.vocabulary, FFMult: 1.3, ConditionalRoutedAutoregressiveAttentionConfig: evenAutoregressive(),
			}
			c.CausalQueryRouting = test.causal
			m := create(b, NewAutoregressiveTransformer, c)
			ids, _ := idsOf(1, 2*test.n, test.vocabulary)
			y := b.tensor(F32, 2, test.n, test.vocabulary)
			require.NoError(t, m.Forward(y, b.ints(ids, 2, test.n), AutoregressiveOptions{}))
			rc, p := refAutoregressive(c.ConditionalRoutedAutoregressiveAttentionConfig), ref.Params(b.host(m.Parameters()))
			b.twins(b.read(y), ref.AutoregressiveTransformer(ids, 2, test.n, test.depth, rc, p, ""),
				ref.AutoregressiveTransformer32(ids, 2, test.n, test.depth, rc, p, ""))
		})
	}
}

// Numbers of tokens that come with a call are those of a config.
func TestTokensOfACall(t *testing.T) {
	gputest.Count()
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
