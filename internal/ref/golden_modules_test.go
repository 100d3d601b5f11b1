package ref_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/colt5-vulkan/colt5/internal/golden"
	"github.com/colt5-vulkan/colt5/internal/ref"
)

// weights returns the weights of a case.
func weights(c *golden.Case) ref.Params {
	p := ref.Params{}
	for name, w := range c.Weights {
		p[name] = w.F32
	}
	return p
}

// checkModule compares the output and the result of every router.
func checkModule(t *testing.T, c *golden.Case, got ref.Result, got32 ref.ResultOf[float32]) {
	t.Helper()
	checkGolden(t, "y", c.Outputs["y"], got.Y, got32.Y, c.OutputBound("y"))
	routed := 0
	for name, r := range got.Routings {
		if r.Routed {
			routed++
			checkModuleRouting(t, c, name, r, got32.Routings[name])
		}
	}
	assert.Len(t, c.Routings, routed, "number of routers with a route")
}

// checkGradients compares the gradients of all inputs and weights, and the result of the forward pass that the backward
// pass starts with.
func checkGradients(t *testing.T, c *golden.Case, got ref.Gradients, got32 ref.GradientsOf[float32]) {
	t.Helper()
	assert.NoError(t, ref.MaxErr(c.Outputs["y"].F32, got.Y).Within(float64Bound), "y")
	require.NotEmpty(t, c.InputGrads)
	for name, want := range c.InputGrads {
		checkGolden(t, "gradient of "+name, want, got.Inputs[name], got32.Inputs[name], c.InputGradBound())
	}
	require.Len(t, got.Params, len(c.Weights))
	for name, w := range c.Weights {
		want, ok := c.WeightGrads[name]
		if !ok { // a weight that the call does not use
			want.F32 = make([]float32, len(w.F32))
		}
		checkGolden(t, "gradient of "+name, want, got.Params[name], got32.Params[name], c.WeightGradBound(name))
	}
}

func checkModuleRouting(t *testing.T, c *golden.Case, name string, got ref.Routing, got32 ref.RoutingOf[float32]) {
	t.Helper()
	want, ok := c.Routings[name]
	if !assert.True(t, ok, name) {
		return
	}
	// Golden logits have one row per item, block and route; those of the reference have one row per item and route.
	routes, rows := 1, len(got.Indices)/got.K
	if len(want.Indices.Shape) == 3 {
		routes = want.Indices.Shape[1]
	}
	blocks := want.Logits.Shape[0] / rows
	a := ref.RouterArgs{B: rows / routes, R: routes, N: len(got.Logits) / rows}
	checkGolden(t, name+" logits", want.Logits, byBlock(got.Logits, a, blocks), byBlock(got32.Logits, a, blocks), c.OutputBound("y"))
	checkGolden(t, name+" soft scores", want.ScoresAll, byBlock(got.SoftScores, a, blocks), byBlock(got32.SoftScores, a, blocks), c.ScoreBound())
	require.Len(t, got.Indices, len(want.Indices.I32), name)
	for row := range rows {
		lo, hi := row*got.K, (row+1)*got.K
		wantSet := validIndices(want.Indices.I32[lo:hi], want.Scores.F32[lo:hi])
		assert.NoError(t, ref.SameSet(validIndices(got.Indices[lo:hi], got.Scores[lo:hi]), wantSet), "%s row %d", name, row)
		assert.NoError(t, ref.SameSet(validIndices(got32.Indices[lo:hi], got32.Scores[lo:hi]), wantSet), "%s row %d in float32", name, row)
	}
	checkGolden(t, name+" scores", golden.Tensor{F32: byIndex(want.Scores.F32, want.Indices.I32, want.Scores.F32, rows, 1)},
		byIndex(got.Scores, got.Indices, got.Scores, rows, 1), byIndex(got32.Scores, got32.Indices, got32.Scores, rows, 1), c.OutputBound("y"))
}

// moduleOptions are the options that the configs of all modules share.
type moduleOptions struct {
	StraightThrough bool          `json:"router_straight_through"`
	Kwargs          routerOptions `json:"router_kwargs"`
}

func moduleDefaults() moduleOptions { return moduleOptions{true, routerDefaults()} }

func (o moduleOptions) router() ref.RouterConfig { return o.Kwargs.config(1, o.StraightThrough, 0) }

// attentionDefaults returns the defaults of the PyTorch implementation. Golden cases give the sizes.
func attentionDefaults() ref.AttentionConfig {
	return ref.AttentionConfig{UseNullQTokens: true, HasLightAttn: true}
}

func TestGoldenAttention(t *testing.T) {
	forEachCase(t, "ConditionalRoutedAttention", 13, func(t *testing.T, c *golden.Case) {
		config := struct {
			moduleOptions
			ref.AttentionConfig
		}{moduleDefaults(), attentionDefaults()}
		require.NoError(t, c.DecodeConfig(&config))
		config.Router = config.router()
		x, mask := c.Inputs["x"], c.Inputs["mask"].U8
		b, n := x.Shape[0], x.Shape[1]
		checkModule(t, c, ref.ConditionalRoutedAttention(x.F32, mask, b, n, config.AttentionConfig, weights(c), ""),
			ref.ConditionalRoutedAttention32(x.F32, mask, b, n, config.AttentionConfig, weights(c), ""))
		dy := c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedAttentionBackward(x.F32, mask, dy, b, n, config.AttentionConfig, weights(c), ""),
			ref.ConditionalRoutedAttentionBackward32(x.F32, mask, dy, b, n, config.AttentionConfig, weights(c), ""))
	})
}

func TestGoldenBlock(t *testing.T) {
	forEachCase(t, "ConditionalRoutedTransformerBlock", 3, func(t *testing.T, c *golden.Case) {
		config := struct {
			moduleOptions
			ref.BlockConfig
			Q  int `json:"num_heavy_attn_tokens_q"`
			KV int `json:"num_heavy_attn_tokens_kv"`
		}{moduleOptions: moduleDefaults(), BlockConfig: ref.BlockConfig{AttentionConfig: attentionDefaults()}}
		require.NoError(t, c.DecodeConfig(&config))
		block := config.BlockConfig
		block.Router, block.NumHeavyTokensQ, block.NumHeavyTokensKV = config.router(), config.Q, config.KV
		x, mask := c.Inputs["x"], c.Inputs["mask"].U8
		b, n := x.Shape[0], x.Shape[1]
		got := ref.ConditionalRoutedTransformerBlock(x.F32, mask, b, n, block, weights(c), "")
		checkModule(t, c, got, ref.ConditionalRoutedTransformerBlock32(x.F32, mask, b, n, block, weights(c), ""))
		dy := c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedTransformerBlockBackward(x.F32, mask, dy, b, n, block, weights(c), ""),
			ref.ConditionalRoutedTransformerBlockBackward32(x.F32, mask, dy, b, n, block, weights(c), ""))

		// An encoder with this block and gamma 1 returns the RMSNorm of the output of the block.
		p := ref.Params{"enc.norm.gamma": ones(block.Dim)}
		for name, w := range weights(c) {
			p["enc.layers.0."+name] = w
		}
		encoded := ref.Encoder(x.F32, nil, mask, b, n, 1, block, p, "enc.")
		assert.InDeltaSlice(t, ref.RMSNorm(c.Outputs["y"].F32, ones(block.Dim), b*n, block.Dim), encoded.Y, 1e-5)
	})
}

func ones(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

func TestGoldenCrossAttention(t *testing.T) {
	forEachCase(t, "ConditionalRoutedCrossAttention", 8, func(t *testing.T, c *golden.Case) {
		config := struct {
			moduleOptions
			ref.CrossAttentionConfig
		}{moduleDefaults(), ref.CrossAttentionConfig{UseNullQTokens: true}}
		require.NoError(t, c.DecodeConfig(&config))
		config.Router = config.router()
		x, context := c.Inputs["x"], c.Inputs["context"]
		in := ref.CrossAttentionInput{
			X: x.F32, Context: context.F32, Mask: c.Inputs["mask"].U8, ContextMask: c.Inputs["context_mask"].U8,
			B: x.Shape[0], N: x.Shape[1], M: context.Shape[1],
		}
		checkModule(t, c, ref.ConditionalRoutedCrossAttention(in, config.CrossAttentionConfig, weights(c), ""),
			ref.ConditionalRoutedCrossAttention32(in, config.CrossAttentionConfig, weights(c), ""))
		dy := c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedCrossAttentionBackward(in, dy, config.CrossAttentionConfig, weights(c), ""),
			ref.ConditionalRoutedCrossAttentionBackward32(in, dy, config.CrossAttentionConfig, weights(c), ""))
	})
}

func TestGoldenAutoregressive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s; vkbench verify compares the GPU with the golden cases")
	}
	forEachCase(t, "ConditionalRoutedAutoregressiveAttention", 10, func(t *testing.T, c *golden.Case) {
		config := struct {
			moduleOptions
			ref.AutoregressiveConfig
		}{moduleDefaults(), ref.AutoregressiveConfig{AttentionConfig: attentionDefaults()}}
		require.NoError(t, c.DecodeConfig(&config))
		config.Router = config.router()
		x := c.Inputs["x"]
		b, n := x.Shape[0], x.Shape[1]
		checkModule(t, c, ref.ConditionalRoutedAutoregressiveAttention(x.F32, nil, b, n, config.AutoregressiveConfig, weights(c), ""),
			ref.ConditionalRoutedAutoregressiveAttention32(x.F32, nil, b, n, config.AutoregressiveConfig, weights(c), ""))
		dy := c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedAutoregressiveAttentionBackward(x.F32, nil, dy, b, n, config.AutoregressiveConfig, weights(c), ""),
			ref.ConditionalRoutedAutoregressiveAttentionBackward32(x.F32, nil, dy, b, n, config.AutoregressiveConfig, weights(c), ""))
	})
}

func TestGoldenImageAttention(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 s; vkbench verify compares the GPU with the golden cases")
	}
	forEachCase(t, "ConditionalRoutedImageAttention", 5, func(t *testing.T, c *golden.Case) {
		config := struct {
			moduleOptions
			ref.ImageAttentionConfig
		}{moduleDefaults(), ref.ImageAttentionConfig{AttentionConfig: attentionDefaults()}}
		require.NoError(t, c.DecodeConfig(&config))
		config.Router = config.router()
		x := c.Inputs["x"]
		b, height, width := x.Shape[0], x.Shape[1], x.Shape[2]
		if config.ChannelFirst {
			height, width = x.Shape[2], x.Shape[3]
		}
		checkModule(t, c, ref.ConditionalRoutedImageAttention(x.F32, nil, b, height, width, config.ImageAttentionConfig, weights(c), ""),
			ref.ConditionalRoutedImageAttention32(x.F32, nil, b, height, width, config.ImageAttentionConfig, weights(c), ""))
		dy := c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedImageAttentionBackward(x.F32, nil, dy, b, height, width, config.ImageAttentionConfig, weights(c), ""),
			ref.ConditionalRoutedImageAttentionBackward32(x.F32, nil, dy, b, height, width, config.ImageAttentionConfig, weights(c), ""))
	})
}

// pair is decoded from one integer or a list of two.
type pair [2]int

func (p *pair) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &p[0]) == nil {
		p[1] = p[0]
		return nil
	}
	return json.Unmarshal(text, (*[2]int)(p))
}

// viTOptions is the config of a ViT case.
type viTOptions struct {
	ImageSize        pair    `json:"image_size"`
	PatchSize        pair    `json:"patch_size"`
	Dim              int     `json:"dim"`
	NumHeavyTokensQ  int     `json:"attn_num_heavy_tokens_q"`
	NumHeavyTokensKV int     `json:"attn_num_heavy_tokens_kv"`
	LightWindowSize  int     `json:"attn_light_window_size"`
	NumHeavyFFTokens int     `json:"ff_num_heavy_tokens"`
	RouteScope       string  `json:"route_scope"`
	Depth            int     `json:"depth"`
	HeavyDimHead     int     `json:"attn_heavy_dim_head"`
	HeavyHeads       int     `json:"attn_heavy_heads"`
	LightDimHead     int     `json:"attn_light_dim_head"`
	LightHeads       int     `json:"attn_light_heads"`
	HeavyMult        float64 `json:"ff_heavy_mult"`
	LightMult        float64 `json:"ff_light_mult"`
	Classes          int     `json:"num_classes"`
	Channels         int     `json:"channels"`
}

func TestGoldenViT(t *testing.T) {
	forEachCase(t, "ConditionalRoutedViT", 4, func(t *testing.T, c *golden.Case) {
		o := viTOptions{Channels: 3}
		require.NoError(t, c.DecodeConfig(&o))
		router := moduleDefaults()
		router.Kwargs.Eps = 1
		config := ref.ViTConfig{
			ImageHeight: o.ImageSize[0], ImageWidth: o.ImageSize[1], PatchHeight: o.PatchSize[0], PatchWidth: o.PatchSize[1],
			Channels: o.Channels, Depth: o.Depth, NumClasses: o.Classes, NumHeavyFFTokens: o.NumHeavyFFTokens, Router: router.router(),
			Attention: ref.ImageAttentionConfig{RouteScope: o.RouteScope, AttentionConfig: ref.AttentionConfig{
				Dim: o.Dim, NumHeavyTokensQ: o.NumHeavyTokensQ, NumHeavyTokensKV: o.NumHeavyTokensKV, UseNullQTokens: true,
				LightDimHead: o.LightDimHead, LightHeads: o.LightHeads, LightWindowSize: o.LightWindowSize,
				HeavyDimHead: o.HeavyDimHead, HeavyHeads: o.HeavyHeads, Router: router.router(),
			}},
		}
		x := c.Inputs["x"]
		checkModule(t, c, ref.ConditionalRoutedViT(x.F32, x.Shape[0], config, weights(c), ""),
			ref.ConditionalRoutedViT32(x.F32, x.Shape[0], config, weights(c), ""))
		dy := c.Upstream["y"].F32
		checkGradients(t, c, ref.ConditionalRoutedViTBackward(x.F32, dy, x.Shape[0], config, weights(c), ""),
			ref.ConditionalRoutedViTBackward32(x.F32, dy, x.Shape[0], config, weights(c), ""))
	})
}
