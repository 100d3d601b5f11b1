package colt5

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigJSON(t *testing.T) {
	var c ConditionalRoutedFeedForwardConfig
	require.NoError(t, json.Unmarshal([]byte(`{"dim": 32, "num_heavy_tokens": 5, "router_kwargs": {"eps_init": null, "eps": 1.0, "route_block_size": 7}}`), &c))
	want := Default[ConditionalRoutedFeedForwardConfig]()
	want.Dim, want.NumHeavyTokens, want.Router.EpsInit, want.Router.Eps, want.Router.RouteBlockSize = 32, 5, 0, 1, 7
	assert.Equal(t, want, c)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	var again ConditionalRoutedFeedForwardConfig
	require.NoError(t, json.Unmarshal(text, &again))
	assert.Equal(t, c, again)
	for text, want := range map[string]string{
		`{"dim": 32, "foo": 5}`:               `unknown key "foo"`,
		`{"router_kwargs": {"epsilon": 1}}`:   `unknown key "epsilon" in router_kwargs, did you mean "eps"?`,
		`{"dim": "big"}`:                      `dim is "big", want an integer`,
		`{"router_kwargs": {"eps_init": ""}}`: `router_kwargs.eps_init is "", want a number`,
		`[]`:                                  "the value is [], want an object with keys",
	} {
		assert.ErrorContains(t, json.Unmarshal([]byte(text), &c), want)
	}
	var r RouterConfig
	require.NoError(t, json.Unmarshal([]byte(`{"dim": 8, "straight_through": false, "eps_init": null}`), &r))
	assert.False(t, r.StraightThrough)
	assert.Zero(t, r.EpsInit)
	assert.Equal(t, 20, r.NIters)
}

// checkJSON: a config survives a round trip through JSON, absent keys get their defaults, and unknown keys are errors.
func checkJSON[C any](t *testing.T, changed, defaults C) {
	t.Helper()
	text, err := json.Marshal(changed)
	require.NoError(t, err)
	var again C
	require.NoError(t, json.Unmarshal(text, &again))
	assert.Equal(t, changed, again)
	require.NoError(t, json.Unmarshal([]byte("{}"), &again), "absent keys get their defaults")
	assert.Equal(t, defaults, again)
	for text, want := range map[string]string{
		`{"dimension": 3}`:                     `unknown key "dimension", did you mean "dim"?`,
		`{"DIM": 3}`:                           `unknown key "DIM", want "dim": case matters`,
		`{"dim": 3, "Dim": 4}`:                 `unknown key "Dim", want "dim": case matters`,
		`{"dim": 3, "dim": 3}`:                 "the key dim is there twice",
		`{"router_kwargs": {"epsilon": 1}}`:    `unknown key "epsilon" in router_kwargs, did you mean "eps"?`,
		`{"router_kwargs": {"Eps": 1}}`:        `unknown key "Eps" in router_kwargs, want "eps": case matters`,
		`{"router_kwargs": {"eps":1,"eps":2}}`: "the key router_kwargs.eps is there twice",
		`{"router_kwargs": [3]}`:               "router_kwargs: the value is [3], want an object with keys",
		`{"router_kwargs": {"n_iters": 2.5}}`:  "router_kwargs.n_iters is 2.5, want an integer",
		`{"router_kwargs": {"eps": true}}`:     "router_kwargs.eps is true, want a number",
		`{"router_kwargs": {"eps": 1e999}}`:    "router_kwargs.eps is 1e999, want a number up to 3.4",
		`{"dim": "big"}`:                       `dim is "big", want an integer`,
		`{"dim": [1,  {"a": 2}]}`:              `dim is [1,{"a":2}], want an integer`,
		`{"dim": 99999999999999999999}`:        "dim is 99999999999999999999, want an integer up to 2147483647",
		`{"dim": 1.5}`:                         "dim is 1.5, want an integer",
		`[]`:                                   "the value is [], want an object with keys",
		`"x"`:                                  `the value is "x", want an object with keys`,
		"{\"\\u001b[2J\": 3}":                  `unknown key "\x1b[2J"`,
	} {
		assert.ErrorContains(t, json.Unmarshal([]byte(text), &again), "colt5: "+reflect.TypeFor[C]().Name()+": "+want)
	}
	require.NoError(t, json.Unmarshal([]byte("null"), &again))
	assert.Equal(t, defaults, again)
	require.NoError(t, json.Unmarshal([]byte(`{"router_kwargs": null}`), &again))
	assert.Equal(t, defaults, again)
}

// TestConfigJSONTrailing: nothing may follow the object, also where encoding/json has not checked it before.
func TestConfigJSONTrailing(t *testing.T) {
	for data, rest := range map[string]string{`{}x`: "x", `{"dim": 3} {}`: "{}", "{}\n]": "]"} {
		var c RMSNormConfig
		assert.EqualError(t, c.UnmarshalJSON([]byte(data)), "colt5: RMSNormConfig: after the object is "+rest+", want nothing")
	}
	var c ConditionalRoutedFeedForwardConfig
	assert.NoError(t, c.UnmarshalJSON([]byte(" {}\n\t ")))
	assert.ErrorContains(t, c.UnmarshalJSON([]byte(`{"router_kwargs": {} x}`)), "invalid character 'x'")
	assert.ErrorContains(t, c.UnmarshalJSON([]byte("nullx")), "want an object")
}

// Types of values that not every configuration has.
func TestConfigJSONTypes(t *testing.T) {
	var c ConditionalRoutedImageAttentionConfig
	for text, want := range map[string]string{
		`{"channel_first": 1}`:       "channel_first is 1, want true or false",
		`{"channel_first": "false"}`: `channel_first is "false", want true or false`,
		`{"route_scope": 1}`:         "route_scope is 1, want a string",
		`{"precision": 16}`:          "precision is 16, want f32, f16 or bf16",
		`{"precision": "fp16"}`:      `precision is "fp16", want f32, f16 or bf16`,
	} {
		assert.ErrorContains(t, json.Unmarshal([]byte(text), &c), want)
	}
	require.NoError(t, json.Unmarshal([]byte(`{"channel_first": null, "route_scope": null, "precision": null, "light_heads": null}`), &c))
	assert.Equal(t, RouteScopeImage, c.RouteScope)
	assert.Zero(t, c.LightHeads, "null is 0 for a number")
	var v ConditionalRoutedViTConfig
	assert.ErrorContains(t, json.Unmarshal([]byte(`{"image_size": "x"}`), &v), `image_size is "x", want a number or [height, width]`)
	long := `{"dim": "` + strings.Repeat("x", 1<<20) + `"}`
	assert.Less(t, len(json.Unmarshal([]byte(long), &c).Error()), 250)
}

// Arguments of the PyTorch classes that select kernels there are accepted without effect, where the class has them.
func TestReferenceKeys(t *testing.T) {
	same := func(c, want any, text string) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(text), c))
		assert.Equal(t, want, reflect.ValueOf(c).Elem().Interface())
	}
	const router = `, "router_kwargs": {"use_triton": true, "triton_checkpoint_segments": null}}`
	same(new(ConditionalRoutedFeedForwardConfig), Default[ConditionalRoutedFeedForwardConfig](), `{"use_triton": true`+router)
	same(new(ConditionalRoutedAttentionConfig), Default[ConditionalRoutedAttentionConfig](), `{"use_triton": true, "use_flash_attn": true`+router)
	same(new(ConditionalRoutedImageAttentionConfig), Default[ConditionalRoutedImageAttentionConfig](), `{"use_triton": true, "use_flash_attn": true`+router)
	same(new(ConditionalRoutedTransformerBlockConfig), Default[ConditionalRoutedTransformerBlockConfig](), `{"use_triton": true, "use_flash_attn": true`+router)
	same(new(EncoderConfig), Default[EncoderConfig](), `{"use_triton": true, "use_flash_attn": true`+router)
	same(new(ConditionalRoutedAutoregressiveAttentionConfig), Default[ConditionalRoutedAutoregressiveAttentionConfig](), `{"use_triton": false, "use_flash_attn": false`+router)
	same(new(ConditionalRoutedCrossAttentionConfig), Default[ConditionalRoutedCrossAttentionConfig](), `{"use_triton": true, "use_flash_attn": true, "num_sets_kv": 4`+router)
	same(new(TopKConfig), Default[TopKConfig](), `{"fused": true, "eps_init": null}`)
	same(new(RouterConfig), Default[RouterConfig](), `{"use_triton": true, "triton_checkpoint_segments": 5}`)
	vit := Default[ConditionalRoutedViTConfig]()
	same(new(ConditionalRoutedViTConfig), vit, `{"router_use_triton": true, "flash_attn": true`+router)
	vit.Router.Eps = 0.5
	same(new(ConditionalRoutedViTConfig), vit, `{"default_coor_descent_eps": 0.5, "router_kwargs": {}}`)
	same(new(ConditionalRoutedViTConfig), vit, `{"router_kwargs": {"eps": 0.5}, "default_coor_descent_eps": 0.25}`)
	for text, c := range map[string]any{
		`{"use_flash_attn": true}`:                   new(ConditionalRoutedFeedForwardConfig),
		`{"num_sets_kv": 1}`:                         new(ConditionalRoutedAttentionConfig),
		`{"use_triton": true}`:                       new(TopKConfig),
		`{"flash_attn": true}`:                       new(ConditionalRoutedImageAttentionConfig),
		`{"default_coor_descent_eps": 1}`:            new(ConditionalRoutedTransformerBlockConfig),
		`{"triton_checkpoint_segments": 1}`:          new(ConditionalRoutedAttentionConfig),
		`{"use_flash_attn": 1, "use_flash_attn": 1}`: new(ConditionalRoutedAttentionConfig),
		`{"default_coor_descent_eps": "1"}`:          new(ConditionalRoutedViTConfig),
		`{"Use_Triton": true}`:                       new(ConditionalRoutedAttentionConfig),
	} {
		assert.Error(t, json.Unmarshal([]byte(text), c), text)
	}
}

func TestModuleConfigJSON(t *testing.T) {
	attention, cross, image, vit := smallAttention(), smallCross(), smallImage(), smallViT()
	attention.Router.RouteBlockSize, attention.HasLightAttn, attention.Router.EpsInit = 7, false, 0
	cross.RouteBlockSize, image.RouteScope, vit.RouteScope = 5, RouteScopeWindow, RouteScopeWindow
	checkJSON(t, attention, Default[ConditionalRoutedAttentionConfig]())
	checkJSON(t, smallBlock(), Default[ConditionalRoutedTransformerBlockConfig]())
	checkJSON(t, smallEncoder(), Default[EncoderConfig]())
	checkJSON(t, cross, Default[ConditionalRoutedCrossAttentionConfig]())
	checkJSON(t, smallAutoregressive(), Default[ConditionalRoutedAutoregressiveAttentionConfig]())
	checkJSON(t, smallTransformer(), Default[AutoregressiveTransformerConfig]())
	checkJSON(t, image, Default[ConditionalRoutedImageAttentionConfig]())
	checkJSON(t, vit, Default[ConditionalRoutedViTConfig]())
	checkJSON(t, smallFeedForward(), Default[ConditionalRoutedFeedForwardConfig]())
	for text, c := range map[string]any{
		`{"dim":8,"window_size":4,"dim_head":4,"heads":2,"causal":true,"prenorm":true,"exact_windowsize":true,"use_rotary_pos_emb":true,"precision":"f32"}`: smallLocalMHA(),
		`{"dim":8,"mult":2,"precision":"f32"}`: smallPlainFeedForward(),
		`{"dim":8}`:                            RMSNormConfig{8},
	} {
		got, err := json.Marshal(c)
		require.NoError(t, err)
		assert.Equal(t, text, string(got))
		again := reflect.New(reflect.TypeOf(c))
		require.NoError(t, json.Unmarshal(got, again.Interface()))
		assert.Equal(t, c, again.Elem().Interface())
	}
}

// The defaults are those of the constructors of colt5-attention 0.11.1, except for RouteScope.
func TestReferenceDefaults(t *testing.T) {
	var c ConditionalRoutedTransformerBlockConfig
	require.NoError(t, json.Unmarshal([]byte(`{
		"light_dim_head": 64, "light_heads": 8, "light_window_size": 128, "heavy_dim_head": 64, "heavy_heads": 8, "light_ff_mult": 0.5, "heavy_ff_mult": 4,
		"use_null_q_tokens": true, "router_straight_through": true, "num_routed_kv": 1, "rotary_emb": false, "multiply_keys_by_score": false,
		"multiply_queries_by_score": false, "router_kwargs": {"n_iters": 20, "fetch_k_ratio": 1.125, "eps": 0.03, "eps_init": 4, "eps_decay": 0.7,
		"cosine_sim_routing": false, "cosine_sim_scale": 8, "route_block_size": null}}`), &c))
	assert.Equal(t, Default[ConditionalRoutedTransformerBlockConfig](), c)
	assert.True(t, Default[ConditionalRoutedAttentionConfig]().HasLightAttn)
	cross, image, vit, text := Default[ConditionalRoutedCrossAttentionConfig](), Default[ConditionalRoutedImageAttentionConfig](),
		Default[ConditionalRoutedViTConfig](), Default[AutoregressiveTransformerConfig]()
	assert.Equal(t, [3]int{64, 8, 1}, [3]int{cross.DimHead, cross.Heads, cross.KVRoutingTokens})
	assert.Equal(t, RouteScopeImage, image.RouteScope)
	assert.False(t, image.ChannelFirst)
	assert.Equal(t, 3, vit.Channels)
	assert.Equal(t, 1.0, vit.Router.Eps)
	assert.True(t, text.RotaryEmb)
	assert.False(t, text.LightRotaryEmb)
	assert.Equal(t, 4.0, text.FFMult)
	assert.Equal(t, LocalMHAConfig{DimHead: 64, Heads: 8, ExactWindowSize: true, UseRotaryPosEmb: true}, Default[LocalMHAConfig]())
	assert.Equal(t, FeedForwardConfig{Mult: 4}, Default[FeedForwardConfig]())
	assert.Equal(t, 256, text.NumTokens)
	assert.Zero(t, Default[ConditionalRoutedAutoregressiveAttentionConfig]().HeavyWindowSize, "0: LightWindowSize")
}

// In JSON, sizes are one number, or [height, width].
func TestSizeJSON(t *testing.T) {
	var c ConditionalRoutedViTConfig
	require.NoError(t, json.Unmarshal([]byte(`{"image_size": [32, 48], "patch_size": 8}`), &c))
	assert.Equal(t, Size{32, 48}, c.ImageSize)
	assert.Equal(t, Size{8, 8}, c.PatchSize)
	for size, want := range map[Size]string{Size{8, 8}: "8", {32, 48}: "[32,48]"} {
		text, err := json.Marshal(size)
		require.NoError(t, err)
		assert.Equal(t, want, string(text))
	}
	for _, text := range []string{`"32"`, `[1]`, `[1, 2, 3]`, `{}`, `1.5`, `[1, "2"]`} {
		assert.ErrorContains(t, json.Unmarshal([]byte(`{"image_size": `+text+`}`), &c), "want a number or [height, width]", text)
	}
}

// The parts of a block have its precision: a module made from such a configuration is the one inside the block.
func TestBlockParts(t *testing.T) {
	c := smallBlock()
	for _, p := range []DType{F32, F16, BF16} {
		c.Precision = p
		for _, part := range []any{c.Attention(), c.FeedForward()} {
			text, err := json.Marshal(part)
			require.NoError(t, err)
			assert.Contains(t, string(text), `"precision":"`+p.String()+`"`)
		}
	}
	attention, ff := c.Attention(), c.FeedForward()
	assert.Equal(t, [2]int{c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV}, [2]int{attention.NumHeavyTokensQ, attention.NumHeavyTokensKV})
	assert.Equal(t, c.NumHeavyFFTokens, ff.NumHeavyTokens)
	w := &weights{precision: F32}
	c.Precision = F32
	w.routedBlock("", c)
	require.NoError(t, w.err)
	in16Bit := &weights{precision: F32} // the precision of the weights decides, not that of the parts
	c.Precision = F16
	in16Bit.routedBlock("", c)
	assert.Equal(t, len(w.list), len(in16Bit.list))
	assert.Empty(t, in16Bit.matrices)
}
