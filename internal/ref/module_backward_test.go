package ref

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// softRouter has soft scores that change smoothly, so that finite differences of a module with it exist.
var softRouter = RouterConfig{NumTokens: 1, FetchKRatio: 9. / 8,
	Descent: CoorDescentConfig{Iters: 6, Eps: 1, EpsInit: 2, EpsDecay: 0.7}}

// moduleCase is a module with its weights and inputs, all coarse, as checkModuleGradients takes it.
type moduleCase struct {
	p          Params
	inputs     map[string][]float32
	forward    func() []float64
	backward   func(dy []float32) Gradients
	backward32 func(dy []float32) GradientsOf[float32]
	zero       []string // weights without gradient
	skip       string   // weight whose gradient is not that of the forward pass
}

// coarsen rounds all weights to multiples of 2^-6.
func coarsen(p Params) {
	for _, w := range p {
		for i, v := range w {
			w[i] = float32(math.Round(float64(v)*64) / 64)
		}
	}
}

// checkModuleGradients compares the gradients of some elements of every weight and input with finite differences.
func checkModuleGradients(t *testing.T, c moduleCase) Gradients {
	t.Helper()
	y := c.forward()
	dy := normal(99, len(y), 1)
	g, g32 := c.backward(dy), c.backward32(dy)
	assert.InDeltaSlice(t, y, g.Y, 1e-11, "result of the forward pass")
	loss := func() float64 { return lossOf(c.forward(), dy) }
	check := func(name string, x []float32, got []float64, got32 []float32) {
		t.Helper()
		if !assert.Len(t, got, len(x), name) || name == c.skip {
			return
		}
		isZero := !slices.ContainsFunc(got, func(v float64) bool { return v != 0 })
		assert.Equal(t, slices.Contains(c.zero, name), isZero, "gradient of %s is 0", name)
		checkDifferences(t, name, x, loss, got, len(x)/6+1)
		assert.NoError(t, MaxErr(got32, got).Within(1e-4), "%s in float32", name)
	}
	for name, w := range c.p {
		check(name, w, g.Params[name], g32.Params[name])
	}
	assert.Len(t, g.Params, len(c.p))
	for name, x := range c.inputs {
		check(name, x, g.Inputs[name], g32.Inputs[name])
	}
	assert.Len(t, g.Inputs, len(c.inputs))
	return g
}

// attentionCase is a routed attention with scored queries, keys and values, two routes and rotary embeddings.
func attentionCase() (AttentionConfig, Params) {
	p := Params{}
	c := smallAttention(p, "")
	c.Router, c.RotaryEmb, c.MultiplyKeysByScore, c.MultiplyQueriesByScore = softRouter, true, true, true
	coarsen(p)
	return c, p
}

func TestAttentionBackward(t *testing.T) {
	const b, n = 2, 11
	c, p := attentionCase()
	for name, mask := range map[string][]uint8{"no mask": nil, "mask": randomMask(3, b*n, 0.8),
		"an item without tokens": append(make([]uint8, n), randomMask(4, n, 0.9)...)} {
		for _, null := range []bool{true, false} {
			c.UseNullQTokens = null
			q := maps.Clone(p)
			if !null {
				delete(q, "null_q_token")
			}
			t.Run(fmt.Sprintf("%s/null=%t", name, null), func(t *testing.T) {
				x := coarse(1, b*n*6, 1)
				checkModuleGradients(t, moduleCase{
					p: q, inputs: map[string][]float32{"x": x},
					forward:  func() []float64 { return ConditionalRoutedAttention(x, mask, b, n, c, q, "").Y },
					backward: func(dy []float32) Gradients { return ConditionalRoutedAttentionBackward(x, mask, dy, b, n, c, q, "") },
					backward32: func(dy []float32) GradientsOf[float32] {
						return ConditionalRoutedAttentionBackward32(x, mask, dy, b, n, c, q, "")
					},
				})
			})
		}
	}
}

// TestGradientSteps checks which intermediate results have a gradient, and their sizes.
func TestGradientSteps(t *testing.T) {
	const b, n, k, keys = 2, 11, 3, 7
	c, p := attentionCase()
	q := Params{}
	for name, w := range p {
		q["layer."+name] = w
	}
	g := ConditionalRoutedAttentionBackward(coarse(1, b*n*6, 1), nil, normal(2, b*n*6, 1), b, n, c, q, "layer.")
	sizes := map[string]int{}
	for name, step := range g.Steps {
		sizes[name] = len(step)
	}
	assert.Equal(t, map[string]int{
		"layer.light_attn.qkv": b * n * 24, "layer.light_attn.to_qkv.product": b * n * 24, "layer.light_attn.to_qkv.input": b * n * 6,
		"layer.light_attn.to_out.product": b * n * 6, "layer.light_attn.to_out.input": b * n * 8,
		"layer.heavy_attn.q": b * k * 8, "layer.heavy_attn.to_q.product": b * k * 8, "layer.heavy_attn.to_q.input": b * k * 6,
		"layer.heavy_attn.kv": b * keys * 16, "layer.heavy_attn.to_kv.product": b * keys * 16, "layer.heavy_attn.to_kv.input": 2 * b * keys * 6,
		"layer.heavy_attn.to_out.product": b * k * 6, "layer.heavy_attn.to_out.input": b * k * 8,
		"layer.q_router.scores": b * k, "layer.q_router.logits": b * n, "layer.kv_router.scores": 2 * b * keys, "layer.kv_router.logits": 2 * b * n,
	}, sizes)
}

func TestAutoregressiveBackward(t *testing.T) {
	const b, n = 2, 19
	attention, p := attentionCase()
	mask := randomMask(5, b*n, 0.8)
	for _, test := range []struct {
		name   string
		change func(c *AutoregressiveConfig)
		zero   []string
	}{
		{"routed", func(c *AutoregressiveConfig) { c.NumHeavyTokensKV = 4 }, nil},
		{"all queries", func(c *AutoregressiveConfig) { c.NumHeavyTokensQ = 8 }, []string{"q_router.routing_token"}},
		{"all keys", func(c *AutoregressiveConfig) { c.NumHeavyTokensKV = 24 }, []string{"kv_router.routing_token"}},
		{"random", func(c *AutoregressiveConfig) {
			c.RandomQ, c.RandomKV, c.MultiplyKeysByScore = normal(6, b*n, 1), normal(7, b*2*n, 1), false
		}, []string{"q_router.routing_token", "kv_router.routing_token"}},
		{"one window", func(c *AutoregressiveConfig) { c.HeavyWindowSize = n }, []string{
			"q_router.routing_token", "kv_router.routing_token", "null_q_token", "heavy_attn.norm.gamma", "heavy_attn.null_kv",
			"heavy_attn.to_q.weight", "heavy_attn.to_kv.weight", "heavy_attn.to_out.weight",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := AutoregressiveConfig{AttentionConfig: attention}
			test.change(&c)
			x := coarse(1, b*n*6, 1)
			checkModuleGradients(t, moduleCase{
				p: p, inputs: map[string][]float32{"x": x}, zero: test.zero,
				forward: func() []float64 { return ConditionalRoutedAutoregressiveAttention(x, mask, b, n, c, p, "").Y },
				backward: func(dy []float32) Gradients {
					return ConditionalRoutedAutoregressiveAttentionBackward(x, mask, dy, b, n, c, p, "")
				},
				backward32: func(dy []float32) GradientsOf[float32] {
					return ConditionalRoutedAutoregressiveAttentionBackward32(x, mask, dy, b, n, c, p, "")
				},
			})
		})
	}
}

// TestCausalQueriesBackward checks the gradient of causal query routing. Its scores are 1 in the forward pass, so finite
// differences do not see the router, whose gradient is computed from its parts.
func TestCausalQueriesBackward(t *testing.T) {
	const b, n = 2, 21
	attention, p := attentionCase()
	c := AutoregressiveConfig{AttentionConfig: attention, LightRotaryEmb: true, CausalQueryRouting: true}
	c.NumHeavyTokensKV = 24 // all keys
	x := coarse(1, b*n*6, 1)
	g := checkModuleGradients(t, moduleCase{
		p: p, skip: "q_router.routing_token", zero: []string{"kv_router.routing_token"},
		forward: func() []float64 { return ConditionalRoutedAutoregressiveAttention(x, nil, b, n, c, p, "").Y },
		backward: func(dy []float32) Gradients {
			g := ConditionalRoutedAutoregressiveAttentionBackward(x, nil, dy, b, n, c, p, "")
			g.Inputs = nil
			return g
		},
		backward32: func(dy []float32) GradientsOf[float32] {
			return ConditionalRoutedAutoregressiveAttentionBackward32(x, nil, dy, b, n, c, p, "")
		},
	})
	logits := RouterLogits(RouterLogitsArgs{X: x, Tokens: p["q_router.routing_token"], B: b, N: n, C: 6, R: 1})
	indices, valid := CausalSelect(float32s(logits), b, n, 8, 3)
	dscores := make([]float32, len(indices)) // [B, 3 windows, 3 slots]; the module has none of window 0
	for i, v := range g.Steps["q_router.scores"] {
		dscores[i/6*9+3+i%6] = float32(v)
	}
	dlogits := CausalSelectBackward(float32s(logits), indices, valid, dscores, b, n, 8, 3)
	assert.InDeltaSlice(t, dlogits, g.Steps["q_router.logits"], 1e-5)
	assert.NotEqual(t, make([]float64, b*n), dlogits)
	_, dtokens := RouterLogitsBackward(RouterLogitsArgs{X: x, Tokens: p["q_router.routing_token"], B: b, N: n, C: 6,
		R: 1}, float32s(dlogits))
	assert.InDeltaSlice(t, dtokens, g.Params["q_router.routing_token"], 1e-5)

	// A masked token is no query and sets no threshold.
	mask := randomMask(8, b*n, 0.7)
	masked := ConditionalRoutedAutoregressiveAttentionBackward(x, mask, normal(9, b*n*6, 1), b, n, c, p, "")
	for i, d := range masked.Steps["q_router.logits"] {
		assert.True(t, mask[i] != 0 || d == 0)
	}
}

func float32s(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func TestCrossAttentionBackward(t *testing.T) {
	_, all := attentionCase()
	p := Params{}
	for name, w := range all {
		if name[:5] != "light" {
			p[name] = w
		}
	}
	c := CrossAttentionConfig{
		Dim: 6, NumTokensQ: 3, NumTokensKV: 5, DimHead: 4, Heads: 2, KVRoutingTokens: 2, RouteBlockSize: 8, UseNullQTokens: true,
		MultiplyKeysByScore: true, MultiplyQueriesByScore: true, RotaryEmb: true, Router: softRouter,
	}
	in := CrossAttentionInput{
		X: coarse(1, 2*7*6, 1), Context: coarse(2, 2*18*6, 1), Mask: randomMask(3, 2*7, 0.8),
		ContextMask: randomMask(4, 2*18, 0.8), B: 2, N: 7, M: 18,
	}
	checkModuleGradients(t, moduleCase{
		p: p, inputs: map[string][]float32{"x": in.X, "context": in.Context},
		forward:  func() []float64 { return ConditionalRoutedCrossAttention(in, c, p, "").Y },
		backward: func(dy []float32) Gradients { return ConditionalRoutedCrossAttentionBackward(in, dy, c, p, "") },
		backward32: func(dy []float32) GradientsOf[float32] {
			return ConditionalRoutedCrossAttentionBackward32(in, dy, c, p, "")
		},
	})
}

func TestImageAttentionBackward(t *testing.T) {
	attention, p := attentionCase()
	delete(p, "light_attn.norm.weight")
	delete(p, "light_attn.norm.bias")
	p["light_attn.norm.gamma"] = coarse(20, 6, 1)
	attention.LightWindowSize, attention.RotaryEmb, attention.NumHeavyTokensKV = 2, false, 3
	for _, scope := range []string{"image", "window"} {
		for _, channelFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/channelFirst=%t", scope, channelFirst), func(t *testing.T) {
				c := ImageAttentionConfig{AttentionConfig: attention, RouteScope: scope, ChannelFirst: channelFirst}
				x, mask := coarse(1, 2*4*6*6, 1), randomMask(2, 2*4*6, 0.9)
				checkModuleGradients(t, moduleCase{
					p: p, inputs: map[string][]float32{"x": x},
					forward: func() []float64 { return ConditionalRoutedImageAttention(x, mask, 2, 4, 6, c, p, "").Y },
					backward: func(dy []float32) Gradients {
						return ConditionalRoutedImageAttentionBackward(x, mask, dy, 2, 4, 6, c, p, "")
					},
					backward32: func(dy []float32) GradientsOf[float32] {
						return ConditionalRoutedImageAttentionBackward32(x, mask, dy, 2, 4, 6, c, p, "")
					},
				})
			})
		}
	}
}

func TestFeedForwardBackward(t *testing.T) {
	p := Params{}
	smallFeedForward(p, "")
	coarsen(p)
	x := coarse(1, 5*6, 1)
	checkModuleGradients(t, moduleCase{
		p: p, inputs: map[string][]float32{"x": x},
		forward: func() []float64 {
			return FeedForward(x, 5, FeedForwardParams{Gamma: p["0.gamma"], W1: p["1.weight"], B1: p["1.bias"],
				W2: p["3.weight"], B2: p["3.bias"], Dim: 6, Hidden: 10})
		},
		backward:   func(dy []float32) Gradients { return FeedForwardBackward(x, dy, 5, 6, p, "") },
		backward32: func(dy []float32) GradientsOf[float32] { return FeedForwardBackward32(x, dy, 5, 6, p, "") },
	})
}

func TestLocalMHABackward(t *testing.T) {
	for _, c := range []LocalMHAConfig{
		{WindowSize: 3, PreNorm: true}, {WindowSize: 4, UseRotaryPosEmb: true}, {WindowSize: 3, Causal: true, UseRotaryPosEmb: true},
		{WindowSize: 3, Causal: true, ExactWindowSize: true},
	} {
		c.Dim, c.DimHead, c.Heads = 6, 4, 2
		p := Params{"to_qkv.weight": coarse(1, 24*6, 1), "to_out.weight": coarse(2, 6*8, 1)}
		if c.PreNorm {
			p["norm.weight"], p["norm.bias"] = coarse(3, 6, 1), coarse(4, 6, 1)
		}
		x, mask := coarse(5, 2*10*6, 1), randomMask(6, 2*10, 0.8)
		checkModuleGradients(t, moduleCase{
			p: p, inputs: map[string][]float32{"x": x},
			forward:    func() []float64 { return LocalMHA(x, mask, 2, 10, c, p, "").Y },
			backward:   func(dy []float32) Gradients { return LocalMHABackward(x, mask, dy, 2, 10, c, p, "") },
			backward32: func(dy []float32) GradientsOf[float32] { return LocalMHABackward32(x, mask, dy, 2, 10, c, p, "") },
		})
	}
}
