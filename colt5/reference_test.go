package colt5

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

// The tests of this file and of reference_stacks_test.go compare modules with their CPU references where no golden case
// exists: prime dimensions, a single token, masks that leave whole windows empty, short last blocks, and every flag.

// referenceFloor is the smallest error bound: the tolerance where the plain f32 reference happens to be exact.
const referenceFloor = 4e-6

// checkReference compares a result with the float64 reference. The bound follows from the error of the same computation
// in plain f32.
func (fx *fixture) checkReference(got []float32, want ref.Result, plain ref.ResultOf[float32]) {
	fx.t.Helper()
	assert.NoError(fx.t, ref.MaxErr(got, want.Y).Within(ref.Bound(plain.Y, want.Y, referenceFloor)))
}

// randomMaskWithGap is randomMask with one half of each item masked too, from a third on. The gap is longer than any
// window of these tests.
func randomMaskWithGap(seed uint64, b, n int) []uint8 {
	m := randomMask(seed, b, n)
	for i := range m {
		if at := i % n; at >= n/3 && at < n/3+n/2 {
			m[i] = 0
		}
	}
	return m
}

// useSoftScores sets options with which soft scores differ from 0 and 1.
func useSoftScores(o *RouterSettings) { o.Eps, o.EpsInit, o.EpsDecay = 1, 0, 1 }

// refConfig converts a config to the config of the CPU reference, without its router. Both have the same JSON keys.
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

// primeAttention has prime sizes; rotaryAttention has rotary embeddings, which need even sizes. All tests of this file
// use one of the two, because each size compiles kernels of its own, for seconds on a CPU driver.
// primeAttention has sizes that are no multiples of a vec4. With -short it has the sizes of other tests, whose kernels need not
// be compiled again; so have the other configs of these tests.
func primeAttention() ConditionalRoutedAttentionConfig {
	if testing.Short() {
		return smallAttention()
	}
	c := Default[ConditionalRoutedAttentionConfig]()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV = 7, 3, 5, 6, 3, 17, 3
	c.NumHeavyTokensQ, c.NumHeavyTokensKV = 5, 11
	return c
}

func rotaryAttention() ConditionalRoutedAttentionConfig {
	if testing.Short() {
		c := smallAttention()
		c.RotaryEmb = true
		return c
	}
	c := Default[ConditionalRoutedAttentionConfig]()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV = 20, 2, 12, 10, 2, 20, 2
	c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.RotaryEmb = 9, 13, true
	return c
}

func TestAttentionReference(t *testing.T) {
	type config = ConditionalRoutedAttentionConfig
	allFlags := func(c *config) {
		useSoftScores(&c.Router)
		c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
	}
	heavyOnly := func(c *config) { c.HasLightAttn = false }
	noNull := func(c *config) { c.UseNullQTokens = false }
	blocks := func(c *config) { c.Router.RouteBlockSize = 13 }
	oneRoute := func(c *config) { c.NumRoutedKV = 1 }
	nothingRouted := func(c *config) { c.NumHeavyTokensQ, c.NumHeavyTokensKV = 100, 100 }
	allKeys := func(c *config) { c.NumHeavyTokensKV = 100 }
	for _, test := range []struct {
		name   string
		base   config
		b, n   int
		mask   bool
		change []func(*config)
	}{
		{"one token", primeAttention(), 2, 1, false, nil},
		{"one token, masked", primeAttention(), 2, 1, true, nil},
		{"two tokens", primeAttention(), 1, 2, false, nil},
		{"prime", primeAttention(), 2, 53, false, nil},
		{"prime, masked, all flags", primeAttention(), 3, 53, true, []func(*config){allFlags}},
		{"prime, no null token", primeAttention(), 3, 53, true, []func(*config){noNull}},
		{"heavy only", primeAttention(), 2, 53, true, []func(*config){heavyOnly}},
		{"heavy only, all flags, no null token", primeAttention(), 2, 53, true, []func(*config){heavyOnly, noNull, allFlags}},
		{"heavy only, nothing routed, no null token", primeAttention(), 2, 31, true, []func(*config){heavyOnly, noNull, nothingRouted}},
		{"nothing routed, several routes", primeAttention(), 2, 31, false, []func(*config){nothingRouted, allFlags}},
		{"nothing routed, several routes, masked", primeAttention(), 3, 31, true, []func(*config){nothingRouted, allFlags}},
		{"rotary, blocks, the last short", rotaryAttention(), 3, 61, true, []func(*config){blocks}},
		{"rotary, blocks, the last short, all flags", rotaryAttention(), 2, 61, false, []func(*config){blocks, allFlags}},
		{"rotary, a last block shorter than its count", rotaryAttention(), 2, 53, false, []func(*config){blocks, allFlags}},
		{"rotary, all keys", rotaryAttention(), 3, 61, true, []func(*config){allKeys}},
		{"one route", primeAttention(), 2, 53, true, []func(*config){oneRoute, allFlags}},
	} {
		if testing.Short() && test.name != "prime, masked, all flags" {
			continue // CPU drivers compile kernels for seconds
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := test.base
			for _, change := range test.change {
				change(&c)
			}
			checkAttention(t, c, test.b, test.n, test.mask)
		})
	}
}

// checkAttention compares the forward and the backward pass with the CPU reference.
func checkAttention(t *testing.T, c ConditionalRoutedAttentionConfig, b, n int, masked bool) {
	gputest.CountCase()
	fx := newFixture(t)
	m := mustNewSeeded(fx, NewConditionalRoutedAttention, c)
	x, y, o := normal(3, b*n*c.Dim), fx.tensor(F32, b, n, c.Dim), AttentionOptions{}
	var mask []uint8
	if masked {
		mask = randomMaskWithGap(4, b, n)
		o.Mask = fx.bytes(mask, b, n)
	}
	in := fx.floats(x, b, n, c.Dim)
	require.NoError(t, m.Forward(t.Context(), y, in, o))
	rc, p := refAttention(c), ref.Params(fx.parameters(m.Parameters()))
	fx.checkReference(fx.read(y), ref.ConditionalRoutedAttention(x, mask, b, n, rc, p, ""), ref.ConditionalRoutedAttention32(x, mask, b, n, rc, p, ""))
	fx.checkBackward(m.Parameters(), feed{"x": in, "mask": o.Mask}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
		return m.Forward(ctx, y, in["x"], AttentionOptions{Mask: in["mask"]})
	}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
		return ref.ConditionalRoutedAttentionBackward(x, mask, dy, b, n, rc, p, ""), ref.ConditionalRoutedAttentionBackward32(x, mask, dy, b, n, rc, p, "")
	})
}

func TestCrossAttentionReference(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 10 s on CPU drivers; TestGoldenCrossAttention has a golden case")
	}
	type config = ConditionalRoutedCrossAttentionConfig
	prime := Default[ConditionalRoutedCrossAttentionConfig]()
	prime.Dim, prime.Heads, prime.DimHead, prime.KVRoutingTokens, prime.NumTokensQ, prime.NumTokensKV = 7, 3, 17, 3, 5, 11
	for _, test := range []struct {
		name    string
		b, n, m int
		masks   bool
		change  func(*config)
	}{
		{"one query, one context token", 2, 1, 1, false, func(*config) {}},
		{"prime", 2, 31, 67, false, func(*config) {}},
		{"masks, soft, keys by score", 3, 31, 67, true, func(c *config) {
			useSoftScores(&c.Router)
			c.RouterStraightThrough, c.MultiplyKeysByScore = false, true
		}},
		{"blocks, the last short", 2, 31, 67, true, func(c *config) { c.RouteBlockSize, c.UseNullQTokens = 20, false }},
		{"all context tokens, several routes", 2, 31, 67, true, func(c *config) { c.NumTokensKV = 67 }},
		{"all queries, masked", 3, 31, 67, true, func(c *config) { c.NumTokensQ = 40 }},
		{"nothing routed", 2, 5, 9, false, func(c *config) { c.NumTokensKV = 67 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx, c := newFixture(t), prime
			test.change(&c)
			a := mustNewSeeded(fx, NewConditionalRoutedCrossAttention, c)
			in := ref.CrossAttentionInput{X: normal(1, test.b*test.n*c.Dim), Context: normal(2, test.b*test.m*c.Dim), B: test.b, N: test.n, M: test.m}
			o := CrossAttentionOptions{}
			if test.masks {
				in.Mask, in.ContextMask = randomMaskWithGap(3, test.b, test.n), randomMaskWithGap(4, test.b, test.m)
				o.Mask, o.ContextMask = fx.bytes(in.Mask, test.b, test.n), fx.bytes(in.ContextMask, test.b, test.m)
			}
			y := fx.tensor(F32, test.b, test.n, c.Dim)
			x, source := fx.floats(in.X, test.b, test.n, c.Dim), fx.floats(in.Context, test.b, test.m, c.Dim)
			require.NoError(t, a.Forward(t.Context(), y, x, source, o))
			rc, p := refConfig[ref.CrossAttentionConfig](c), ref.Params(fx.parameters(a.Parameters()))
			rc.Router = refRouter(c.Router, c.RouterStraightThrough, 1)
			fx.checkReference(fx.read(y), ref.ConditionalRoutedCrossAttention(in, rc, p, ""), ref.ConditionalRoutedCrossAttention32(in, rc, p, ""))
			inputs := feed{"x": x, "context": source, "mask": o.Mask, "context mask": o.ContextMask}
			fx.checkBackward(a.Parameters(), inputs, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return a.Forward(ctx, y, in["x"], in["context"], CrossAttentionOptions{Mask: in["mask"], ContextMask: in["context mask"]})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.ConditionalRoutedCrossAttentionBackward(in, dy, rc, p, ""), ref.ConditionalRoutedCrossAttentionBackward32(in, dy, rc, p, "")
			})
		})
	}
}

func refAutoregressive(c ConditionalRoutedAutoregressiveAttentionConfig) ref.AutoregressiveConfig {
	r := refConfig[ref.AutoregressiveConfig](c)
	r.Router, r.CausalQueryRouting = refRouter(c.Router, c.RouterStraightThrough, 1), c.CausalQueryRouting
	return r
}

func primeAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	if testing.Short() {
		c := smallAutoregressive()
		c.RotaryEmb, c.CausalQueryRouting = false, false
		return c
	}
	c := Default[ConditionalRoutedAutoregressiveAttentionConfig]()
	c.Dim, c.LightHeads, c.LightDimHead, c.LightWindowSize, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV = 7, 3, 5, 5, 3, 17, 3
	c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.HeavyWindowSize = 4, 9, 11
	return c
}

func rotaryAutoregressive() ConditionalRoutedAutoregressiveAttentionConfig {
	a, c := rotaryAttention(), primeAutoregressive()
	c.Dim, c.LightHeads, c.LightDimHead, c.HeavyHeads, c.HeavyDimHead, c.NumRoutedKV, c.RotaryEmb =
		a.Dim, a.LightHeads, a.LightDimHead, a.HeavyHeads, a.HeavyDimHead, a.NumRoutedKV, true
	return c
}

func TestAutoregressiveReference(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 10 s on CPU drivers; TestGoldenAutoregressiveAttention has a golden case")
	}
	type config = ConditionalRoutedAutoregressiveAttentionConfig
	allFlags := func(c *config) {
		useSoftScores(&c.Router)
		c.RouterStraightThrough, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = false, true, true
	}
	rotary := func(c *config) { *c = rotaryAutoregressive() }
	causal := func(c *config) { c.CausalQueryRouting = true }
	allKeys := func(c *config) { c.NumHeavyTokensKV = 100 }
	for _, test := range []struct {
		name   string
		b, n   int
		change []func(*config)
	}{
		{"one token", 2, 1, nil},
		{"one window", 2, 11, nil},
		{"one window and a token", 2, 12, nil},
		{"prime", 2, 53, nil},
		{"prime, all flags", 2, 53, []func(*config){allFlags}},
		{"whole windows, all flags, no null token", 2, 55, []func(*config){allFlags, func(c *config) { c.UseNullQTokens = false }}},
		{"heavy windows of the light size", 2, 23, []func(*config){func(c *config) { c.HeavyWindowSize = 0 }}},
		{"sequence shorter than a heavy window", 2, 53, []func(*config){func(c *config) { c.HeavyWindowSize = 64 }}},
		{"all keys", 2, 53, []func(*config){allKeys, allFlags}},
		{"all queries", 2, 53, []func(*config){func(c *config) { c.NumHeavyTokensQ = 11 }}},
		{"all queries and keys, causal", 2, 53, []func(*config){causal, allKeys, func(c *config) { c.NumHeavyTokensQ = 20 }}},
		{"causal", 2, 53, []func(*config){causal}},
		{"causal, all queries but one", 2, 53, []func(*config){causal, func(c *config) { c.NumHeavyTokensQ = 10 }}},
		{"causal, rotary, cosine", 2, 47, []func(*config){rotary, causal, func(c *config) { c.Router.CosineSimRouting = true }}},
		{"rotary, all flags", 2, 47, []func(*config){rotary, allFlags}},
		{"rotary in both branches", 2, 47, []func(*config){rotary, func(c *config) { c.LightRotaryEmb = true }}},
		{"rotary, all keys", 2, 47, []func(*config){rotary, allKeys}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gputest.CountCase()
			fx, c := newFixture(t), primeAutoregressive()
			for _, change := range test.change {
				change(&c)
			}
			a := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, c)
			x, y := normal(3, test.b*test.n*c.Dim), fx.tensor(F32, test.b, test.n, c.Dim)
			in := fx.floats(x, test.b, test.n, c.Dim)
			require.NoError(t, a.Forward(t.Context(), y, in, AutoregressiveOptions{}))
			rc, p := refAutoregressive(c), ref.Params(fx.parameters(a.Parameters()))
			fx.checkReference(fx.read(y), ref.ConditionalRoutedAutoregressiveAttention(x, nil, test.b, test.n, rc, p, ""),
				ref.ConditionalRoutedAutoregressiveAttention32(x, nil, test.b, test.n, rc, p, ""))
			fx.checkBackward(a.Parameters(), feed{"x": in}, y.Shape(), func(ctx context.Context, y *Tensor, in feed) error {
				return a.Forward(ctx, y, in["x"], AutoregressiveOptions{})
			}, func(dy []float32) (ref.Gradients, ref.GradientsOf[float32]) {
				return ref.ConditionalRoutedAutoregressiveAttentionBackward(x, nil, dy, test.b, test.n, rc, p, ""),
					ref.ConditionalRoutedAutoregressiveAttentionBackward32(x, nil, dy, test.b, test.n, rc, p, "")
			})
		})
	}
}

// Random routing: every router has logits of its own, and the windows of an item share them.
func TestAutoregressiveRandomRoute(t *testing.T) {
	type config = ConditionalRoutedAutoregressiveAttentionConfig
	soft := primeAutoregressive()
	useSoftScores(&soft.Router)
	soft.RouterStraightThrough = false
	causal := rotaryAutoregressive()
	causal.CausalQueryRouting = true
	for name, c := range map[string]config{"soft scores": soft, "causal, rotary": causal} {
		t.Run(name, func(t *testing.T) {
			gputest.CountCase()
			const b, n, seed = 2, 53, 9
			fx := newFixture(t)
			a := mustNewSeeded(fx, NewConditionalRoutedAutoregressiveAttention, c)
			x, y := normal(3, b*n*c.Dim), fx.tensor(F32, b, n, c.Dim)
			in := fx.floats(x, b, n, c.Dim)
			var routing []RoutingRecord
			require.NoError(t, a.Forward(t.Context(), y, in, AutoregressiveOptions{RandomSeed: seed, Routing: &routing}))
			rc, p := refAutoregressive(c), ref.Params(fx.parameters(a.Parameters()))
			rc.RandomQ, rc.RandomKV = randomLogitsOf(seed, 0, b*n), randomLogitsOf(seed, 1, b*c.NumRoutedKV*n)
			require.Len(t, routing, 2)
			assert.Equal(t, rc.RandomQ, routing[0].Logits)
			assert.Equal(t, rc.RandomKV, routing[1].Logits)
			got := fx.read(y)
			fx.checkReference(got, ref.ConditionalRoutedAutoregressiveAttention(x, nil, b, n, rc, p, ""), ref.ConditionalRoutedAutoregressiveAttention32(x, nil, b, n, rc, p, ""))
			require.NoError(t, a.Forward(t.Context(), y, in, AutoregressiveOptions{RandomSeed: seed + 1}))
			assert.NotEqual(t, got, fx.read(y))
			require.NoError(t, a.Forward(t.Context(), y, in, AutoregressiveOptions{RandomSeed: seed}))
			assert.Equal(t, got, fx.read(y))
		})
	}
}

// randomLogitsOf draws the logits of random routing of a call's router.
func randomLogitsOf(seed, router uint64, count int) []float32 {
	r, logits := rand.New(rand.NewPCG(seed, router)), make([]float32, count)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	return logits
}

// Each layer of a stack has logits of its own.
func TestTransformerRandomRoute(t *testing.T) {
	gputest.CountCase()
	fx := newFixture(t)
	a := mustNewSeeded(fx, NewAutoregressiveTransformer, smallTransformer())
	ids := make([]uint8, 2*smallN)
	for i := range ids {
		ids[i] = uint8(i * 37)
	}
	y := fx.tensor(F32, 2, smallN, 256)
	var routing []RoutingRecord
	require.NoError(t, a.Forward(t.Context(), y, fx.bytes(ids, 2, smallN), AutoregressiveOptions{RandomSeed: 4, Routing: &routing}))
	require.Len(t, routing, 4)
	for i, r := range routing {
		assert.Equal(t, randomLogitsOf(4, uint64(i), len(r.Logits)), r.Logits, r.Router)
	}
}
