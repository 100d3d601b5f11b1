package colt5

import (
	"encoding/json"
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

// refConfig is the config of a twin: both have the specification's names in JSON, but for routers.
func refConfig[R any](c any) (r R) {
	text, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		panic(err)
	}
	return r
}

func refAttention(c ConditionalRoutedAttentionConfig) ref.AttentionConfig {
	r := refConfig[ref.AttentionConfig](c)
	r.Router = refRouter(c.Router, c.RouterStraightThrough, 1)
	return r
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
			gputest.CountCase()
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
			gputest.CountCase()
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
			rc, p := refConfig[ref.CrossAttentionConfig](c), ref.Params(b.host(a.Parameters()))
			rc.Router = refRouter(c.Router, c.RouterStraightThrough, 1)
			b.twins(b.read(y), ref.ConditionalRoutedCrossAttention(in, rc, p, ""), ref.ConditionalRoutedCrossAttention32(in, rc, p, ""))
		})
	}
}

func refAutoregressive(c ConditionalRoutedAutoregressiveAttentionConfig) ref.AutoregressiveConfig {
	r := refConfig[ref.AutoregressiveConfig](c)
	r.Router, r.CausalQueryRouting = refRouter(c.Router, c.RouterStraightThrough, 1), c.CausalQueryRouting
	return r
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
			gputest.CountCase()
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
	r := refConfig[ref.ImageAttentionConfig](c)
	r.Router = refRouter(c.Router, c.RouterStraightThrough, 1)
	return r
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
			gputest.CountCase()
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
