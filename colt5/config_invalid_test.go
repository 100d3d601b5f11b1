package colt5

import (
	"context"
	"math"
	"reflect"
	"testing"

	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// invalid is a change that makes a config invalid, and the expected part of the error.
type invalid[C any] struct {
	want   string
	change func(*C)
}

// checkInvalid passes invalid configs to New and Memory. It fails if no entry of the list changes some field.
func checkInvalid[C any, M closer](t *testing.T, name string, valid C, newModule func(context.Context, *vk.Device, C) (M, error),
	memoryOf func(c C, caps vk.Caps, b, n int) (Memory, error), list []invalid[C],
) {
	memory := func(c C) error { _, err := memoryOf(c, vk.Caps{}, 1, 8); return err }
	t.Run(name, func(t *testing.T) {
		fx := newFixture(t)
		m, err := newModule(t.Context(), fx.dev, valid)
		require.NoError(t, err)
		fx.closeAtEnd(m)
		require.NoError(t, memory(valid))
		changed := map[string]bool{}
		for _, l := range list {
			c := valid
			l.change(&c)
			recordChanges(changed, reflect.ValueOf(valid), reflect.ValueOf(c))
			_, err := newModule(t.Context(), fx.dev, c)
			assert.ErrorContains(t, err, "colt5: New"+name+": "+l.want)
			assert.ErrorContains(t, memory(c), "colt5: "+name+"Config.Memory: "+l.want)
		}
		for _, field := range fieldNames(reflect.TypeOf(valid)) {
			switch field {
			case "HasLightAttn", "MultiplyKeysByScore", "MultiplyQueriesByScore", "UseNullQTokens", "ChannelFirst", "CosineSimRouting",
				"ScaleRoutingTokens", "RouterStraightThrough", "PreNorm", "Causal": // both values are valid
			default:
				assert.True(t, changed[field], "no invalid value of %s is tested", field)
			}
		}
	})
}

// fieldNames returns the names of the fields of a config, including those of nested structs.
func fieldNames(t reflect.Type) []string {
	var list []string
	for f := range t.NumField() {
		if f := t.Field(f); f.Type.Kind() == reflect.Struct {
			list = append(list, fieldNames(f.Type)...)
		} else {
			list = append(list, f.Name)
		}
	}
	return list
}

// recordChanges adds the names of the fields in which two configs differ.
func recordChanges(changed map[string]bool, a, b reflect.Value) {
	for f := range a.NumField() {
		switch {
		case a.Field(f).Kind() == reflect.Struct:
			recordChanges(changed, a.Field(f), b.Field(f))
		case !a.Field(f).Equal(b.Field(f)):
			changed[a.Type().Field(f).Name] = true
		}
	}
}

// invalidShared returns the invalid values of the fields that all configs have: precision and router options.
func invalidShared[C any](parts func(*C) (*DType, *RouterSettings)) []invalid[C] {
	o := func(want string, change func(*RouterSettings)) invalid[C] {
		return invalid[C]{want, func(c *C) { _, r := parts(c); change(r) }}
	}
	return []invalid[C]{
		{"Precision is DType(9), want f32, f16 or bf16", func(c *C) { p, _ := parts(c); *p = 9 }},
		o("Router.NIters is 0, want 1", func(o *RouterSettings) { o.NIters = 0 }),
		o("Router.FetchKRatio is 0, want a positive", func(o *RouterSettings) { o.FetchKRatio = 0 }),
		o("Router.Eps is -1, want a positive", func(o *RouterSettings) { o.Eps = -1 }),
		o("Router.EpsInit is -2, want a positive", func(o *RouterSettings) { o.EpsInit = -2 }),
		o("Router.EpsDecay is 1.1, want at most 1", func(o *RouterSettings) { o.EpsDecay = 1.1 }),
		o("Router.EpsDecay is 0, want a positive", func(o *RouterSettings) { o.EpsDecay = 0 }),
		o("Router.CosineSimScale is NaN, want a positive", func(o *RouterSettings) { o.CosineSimScale = math.NaN() }),
	}
}

func TestInvalidAttentionConfigs(t *testing.T) {
	type C = ConditionalRoutedAttentionConfig
	list := []invalid[C]{
		{"Dim is 0, want 1", func(c *C) { c.Dim = 0 }},
		{"NumHeavyTokensQ is 0, want 1", func(c *C) { c.NumHeavyTokensQ = 0 }},
		{"NumHeavyTokensKV is -1, want 1", func(c *C) { c.NumHeavyTokensKV = -1 }},
		{"NumRoutedKV is 3, want a divisor of HeavyHeads, 2", func(c *C) { c.NumRoutedKV = 3 }},
		{"NumRoutedKV is 0, want a divisor of HeavyHeads, 2", func(c *C) { c.NumRoutedKV = 0 }},
		{"LightDimHead is 129, want 1 to 128", func(c *C) { c.LightDimHead = 129 }},
		{"LightDimHead is 0, want 1", func(c *C) { c.LightDimHead = 0 }},
		{"LightHeads is 0, want 1", func(c *C) { c.LightHeads = 0 }},
		{"LightHeads is 65537, want 1 to 65536", func(c *C) { c.LightHeads = 1<<16 + 1 }},
		{"LightWindowSize is 0, want 2", func(c *C) { c.LightWindowSize = 0 }},
		{"LightWindowSize is 7, want an even number", func(c *C) { c.LightWindowSize = 7 }},
		{"HeavyDimHead is 200, want 1 to 128", func(c *C) { c.HeavyDimHead = 200 }},
		{"HeavyDimHead is 5, want an even number with RotaryEmb", func(c *C) { c.HeavyDimHead, c.RotaryEmb = 5, true }},
		{"HeavyHeads is -2, want 1", func(c *C) { c.HeavyHeads = -2 }},
		{"Router.RouteBlockSize is -1, want 0", func(c *C) { c.Router.RouteBlockSize = -1 }},
	}
	checkInvalid(t, "ConditionalRoutedAttention", smallAttention(), NewConditionalRoutedAttention, C.Memory,
		append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...))
	c := smallAttention() // without light branch, its fields are not checked
	c.HasLightAttn, c.LightDimHead, c.LightHeads, c.LightWindowSize = false, 0, 0, 0
	fx := newFixture(t)
	mustNewSeeded(fx, NewConditionalRoutedAttention, c)
}

func TestInvalidAutoregressiveConfigs(t *testing.T) {
	type C = ConditionalRoutedAutoregressiveAttentionConfig
	list := []invalid[C]{
		{"Dim is 0, want 1", func(c *C) { c.Dim = 0 }},
		{"NumHeavyTokensQ is 0, want 1", func(c *C) { c.NumHeavyTokensQ = 0 }},
		{"NumHeavyTokensKV is -1, want 1", func(c *C) { c.NumHeavyTokensKV = -1 }},
		{"NumRoutedKV is 3, want a divisor of HeavyHeads, 2", func(c *C) { c.NumRoutedKV = 3 }},
		{"LightDimHead is 129, want 1 to 128", func(c *C) { c.LightDimHead = 129 }},
		{"LightHeads is 0, want 1", func(c *C) { c.LightHeads = 0 }},
		{"LightWindowSize is 0, want 1", func(c *C) { c.LightWindowSize = 0 }},
		{"HeavyWindowSize is -1, want 0", func(c *C) { c.HeavyWindowSize = -1 }},
		{"HeavyDimHead is 0, want 1", func(c *C) { c.HeavyDimHead = 0 }},
		{"HeavyHeads is 0, want 1", func(c *C) { c.HeavyHeads = 0 }},
		{"HeavyDimHead is 3, want an even number with RotaryEmb", func(c *C) { c.HeavyDimHead, c.RotaryEmb = 3, true }},
		{"LightDimHead is 3, want an even number with LightRotaryEmb", func(c *C) { c.LightDimHead, c.LightRotaryEmb = 3, true }},
		{"Router.RouteBlockSize is 4, want 0: windows route on their own", func(c *C) { c.Router.RouteBlockSize = 4 }},
		{"CausalQueryRouting is true and RouterStraightThrough false, want both", func(c *C) {
			c.CausalQueryRouting, c.RouterStraightThrough = true, false
		}},
	}
	valid := smallAutoregressive()
	valid.RotaryEmb, valid.CausalQueryRouting = false, false
	checkInvalid(t, "ConditionalRoutedAutoregressiveAttention", valid, NewConditionalRoutedAutoregressiveAttention, C.Memory,
		append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...))

	type A = AutoregressiveTransformerConfig
	more := []invalid[A]{
		{"Depth is 0, want 1", func(c *A) { c.Depth = 0 }},
		{"NumTokens is 0, want 1", func(c *A) { c.NumTokens = 0 }},
		{"FFMult is 0, want a positive", func(c *A) { c.FFMult = 0 }},
		{"Dropout is 1, want at least 0 and below 1", func(c *A) { c.Dropout = 1 }},
		{"Dim * FFMult is 0.8, want 1 to", func(c *A) { c.FFMult = 0.1 }},
	}
	for _, l := range append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...) {
		more = append(more, invalid[A]{l.want, func(c *A) { l.change(&c.ConditionalRoutedAutoregressiveAttentionConfig) }})
	}
	checkInvalid(t, "AutoregressiveTransformer", AutoregressiveTransformerConfig{1, 256, 2, 0, valid}, NewAutoregressiveTransformer, A.Memory, more)
}

func TestInvalidBlockConfigs(t *testing.T) {
	type C = ConditionalRoutedTransformerBlockConfig
	list := []invalid[C]{
		{"Dim is 0, want 1", func(c *C) { c.Dim = 0 }},
		{"NumHeavyAttnTokensQ is 0, want 1", func(c *C) { c.NumHeavyAttnTokensQ = 0 }},
		{"NumHeavyAttnTokensKV is 0, want 1", func(c *C) { c.NumHeavyAttnTokensKV = 0 }},
		{"NumHeavyFFTokens is 0, want 1", func(c *C) { c.NumHeavyFFTokens = 0 }},
		{"NumRoutedKV is 5, want a divisor", func(c *C) { c.NumRoutedKV = 5 }},
		{"LightDimHead is 0, want 1", func(c *C) { c.LightDimHead = 0 }},
		{"LightHeads is 0, want 1", func(c *C) { c.LightHeads = 0 }},
		{"LightWindowSize is 3, want an even number", func(c *C) { c.LightWindowSize = 3 }},
		{"HeavyDimHead is 129, want 1 to 128", func(c *C) { c.HeavyDimHead = 129 }},
		{"HeavyHeads is 0, want 1", func(c *C) { c.HeavyHeads = 0 }},
		{"LightFFMult is 0, want a positive", func(c *C) { c.LightFFMult = 0 }},
		{"HeavyFFMult is +Inf, want a positive", func(c *C) { c.HeavyFFMult = math.Inf(1) }},
		{"Dim * LightFFMult is 8e+30, want 1 to 1073741823", func(c *C) { c.LightFFMult = 1e30 }},
		{"HeavyDimHead is 7, want an even number with RotaryEmb", func(c *C) { c.HeavyDimHead, c.RotaryEmb = 7, true }},
		{"Router.RouteBlockSize is -1, want 0", func(c *C) { c.Router.RouteBlockSize = -1 }},
	}
	list = append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...)
	checkInvalid(t, "ConditionalRoutedTransformerBlock", smallBlock(), NewConditionalRoutedTransformerBlock, C.Memory, list)

	more := []invalid[EncoderConfig]{
		{"Depth is 0, want 1", func(c *EncoderConfig) { c.Depth = 0 }},
		{"NumTokens is -1, want 0", func(c *EncoderConfig) { c.NumTokens = -1 }},
		{"Dropout is -0.1, want at least 0 and below 1", func(c *EncoderConfig) { c.Dropout = -0.1 }},
	}
	for _, l := range list {
		more = append(more, invalid[EncoderConfig]{l.want, func(c *EncoderConfig) { l.change(&c.ConditionalRoutedTransformerBlockConfig) }})
	}
	checkInvalid(t, "Encoder", smallEncoder(), NewEncoder, EncoderConfig.Memory, more)
}

func TestInvalidCrossAttentionConfigs(t *testing.T) {
	type C = ConditionalRoutedCrossAttentionConfig
	list := []invalid[C]{
		{"Dim is 0, want 1", func(c *C) { c.Dim = 0 }},
		{"NumTokensQ is 0, want 1", func(c *C) { c.NumTokensQ = 0 }},
		{"NumTokensKV is 0, want 1", func(c *C) { c.NumTokensKV = 0 }},
		{"DimHead is 129, want 1 to 128", func(c *C) { c.DimHead = 129 }},
		{"Heads is 0, want 1", func(c *C) { c.Heads = 0 }},
		{"KVRoutingTokens is 3, want a divisor of Heads, 2", func(c *C) { c.KVRoutingTokens = 3 }},
		{"RouteBlockSize is -4, want 0", func(c *C) { c.RouteBlockSize = -4 }},
		{"Router.RouteBlockSize is 4, want 0: use the config's own RouteBlockSize", func(c *C) { c.Router.RouteBlockSize = 4 }},
	}
	checkInvalid(t, "ConditionalRoutedCrossAttention", smallCross(), NewConditionalRoutedCrossAttention,
		func(c C, caps vk.Caps, b, n int) (Memory, error) { return c.Memory(caps, b, n, 9) },
		append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...))
}

func TestInvalidImageConfigs(t *testing.T) {
	type C = ConditionalRoutedImageAttentionConfig
	list := []invalid[C]{
		{"Dim is 0, want 1", func(c *C) { c.Dim = 0 }},
		{"NumHeavyTokensQ is 0, want 1", func(c *C) { c.NumHeavyTokensQ = 0 }},
		{"NumHeavyTokensKV is 0, want 1", func(c *C) { c.NumHeavyTokensKV = 0 }},
		{"NumRoutedKV is 3, want a divisor of HeavyHeads, 2", func(c *C) { c.NumRoutedKV = 3 }},
		{"LightDimHead is 0, want 1", func(c *C) { c.LightDimHead = 0 }},
		{"LightHeads is 0, want 1", func(c *C) { c.LightHeads = 0 }},
		{"LightWindowSize is 0, want 1", func(c *C) { c.LightWindowSize = 0 }},
		{"HeavyDimHead is 0, want 1", func(c *C) { c.HeavyDimHead = 0 }},
		{"HeavyHeads is 0, want 1", func(c *C) { c.HeavyHeads = 0 }},
		{`RouteScope is "", want "image" or "window"`, func(c *C) { c.RouteScope = "" }},
		{"Router.RouteBlockSize is -1, want 0", func(c *C) { c.Router.RouteBlockSize = -1 }},
	}
	checkInvalid(t, "ConditionalRoutedImageAttention", smallImage(), NewConditionalRoutedImageAttention,
		func(c C, caps vk.Caps, b, height int) (Memory, error) { return c.Memory(caps, b, height, 4) },
		append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...))
	large := smallImage()
	large.Dim, large.ChannelFirst = 1024, true
	_, err := large.Memory(vk.Caps{}, 1, 2048, 1024)
	assert.ErrorContains(t, err, "x has 2147483648 elements, want 2147483647 at most")
	_, err = large.Memory(vk.Caps{}, 1, 2048, 1020)
	assert.NoError(t, err)
	large.ChannelFirst = false
	_, err = large.Memory(vk.Caps{}, 1, 2048, 1024)
	assert.NoError(t, err, "no layout conversion")
	_, err = smallImage().Memory(vk.Caps{}, 1, 8, 6)
	assert.ErrorContains(t, err, "the image is 8 by 6 pixels, want multiples of LightWindowSize, 4")
}

func TestInvalidViTConfigs(t *testing.T) {
	type C = ConditionalRoutedViTConfig
	list := []invalid[C]{
		{"ImageSize.Height is 0, want 1", func(c *C) { c.ImageSize.Height = 0 }},
		{"ImageSize.Width is -2, want 1", func(c *C) { c.ImageSize.Width = -2 }},
		{"PatchSize.Height is 0, want 1", func(c *C) { c.PatchSize.Height = 0 }},
		{"PatchSize.Width is 0, want 1", func(c *C) { c.PatchSize.Width = 0 }},
		{"ImageSize is {16 25}, want a multiple of PatchSize, {2 2}", func(c *C) { c.ImageSize.Width = 25 }},
		{"the image is 7 by 12 tokens (ImageSize / PatchSize), want multiples of AttnLightWindowSize, 4", func(c *C) { c.ImageSize.Height = 14 }},
		{"NumClasses is 0, want 1", func(c *C) { c.NumClasses = 0 }},
		{"Dim is 4, want 8", func(c *C) { c.Dim = 4 }},
		{"Dim is 10, want a multiple of 4", func(c *C) { c.Dim = 10 }},
		{"Depth is 0, want 1", func(c *C) { c.Depth = 0 }},
		{"Channels is 0, want 1", func(c *C) { c.Channels = 0 }},
		{"AttnNumHeavyTokensQ is 0, want 1", func(c *C) { c.AttnNumHeavyTokensQ = 0 }},
		{"AttnNumHeavyTokensKV is 0, want 1", func(c *C) { c.AttnNumHeavyTokensKV = 0 }},
		{"AttnNumRoutedKV is 3, want a divisor of AttnHeavyHeads, 2", func(c *C) { c.AttnNumRoutedKV = 3 }},
		{"AttnHeavyDimHead is 0, want 1", func(c *C) { c.AttnHeavyDimHead = 0 }},
		{"AttnHeavyHeads is 0, want 1", func(c *C) { c.AttnHeavyHeads = 0 }},
		{"AttnLightDimHead is 0, want 1", func(c *C) { c.AttnLightDimHead = 0 }},
		{"AttnLightHeads is 0, want 1", func(c *C) { c.AttnLightHeads = 0 }},
		{"AttnLightWindowSize is 0, want 1", func(c *C) { c.AttnLightWindowSize = 0 }},
		{"FFNumHeavyTokens is 0, want 1", func(c *C) { c.FFNumHeavyTokens = 0 }},
		{"FFHeavyMult is 0, want a positive", func(c *C) { c.FFHeavyMult = 0 }},
		{"Dim * FFLightMult is 0.08, want 1 to", func(c *C) { c.FFLightMult = 0.01 }},
		{"FFLightMult is 0, want a positive", func(c *C) { c.FFLightMult = 0 }},
		{`RouteScope is "patch", want "image" or "window"`, func(c *C) { c.RouteScope = "patch" }},
		{"Router.RouteBlockSize is -1, want 0", func(c *C) { c.Router.RouteBlockSize = -1 }},
	}
	checkInvalid(t, "ConditionalRoutedViT", smallViT(), NewConditionalRoutedViT,
		func(c C, caps vk.Caps, b, _ int) (Memory, error) { return c.Memory(caps, b) },
		append(list, invalidShared(func(c *C) (*DType, *RouterSettings) { return &c.Precision, &c.Router })...))
}

func TestInvalidPlainConfigs(t *testing.T) {
	checkInvalid(t, "RMSNorm", RMSNormConfig{8}, NewRMSNorm, RMSNormConfig.Memory, []invalid[RMSNormConfig]{
		{"Dim is 0, want 1 to", func(c *RMSNormConfig) { c.Dim = 0 }},
	})
	type F = FeedForwardConfig
	checkInvalid(t, "FeedForward", smallPlainFeedForward(), NewFeedForward, F.Memory, []invalid[F]{
		{"Dim is 0, want 1 to", func(c *F) { c.Dim = 0 }},
		{"Mult is 0, want a positive", func(c *F) { c.Mult = 0 }},
		{"Dim * Mult is 0.8, want 1 to", func(c *F) { c.Mult = 0.1 }},
		{"Precision is i32, want f32, f16 or bf16", func(c *F) { c.Precision = I32 }},
	})
	type L = LocalMHAConfig
	bidirectional := smallLocalMHA()
	bidirectional.Causal, bidirectional.UseRotaryPosEmb = false, false
	checkInvalid(t, "LocalMHA", bidirectional, NewLocalMHA, L.Memory, []invalid[L]{
		{"Dim is 0, want 1 to", func(c *L) { c.Dim = 0 }},
		{"WindowSize is 0, want 1 to 1073741823", func(c *L) { c.WindowSize = 0 }},
		{"WindowSize is 1073741824, want 1 to 1073741823", func(c *L) { c.WindowSize = 1 << 30 }},
		{"DimHead is 129, want 1 to 128", func(c *L) { c.DimHead = 129 }},
		{"Heads is 0, want 1", func(c *L) { c.Heads = 0 }},
		{"DimHead is 7, want an even number with UseRotaryPosEmb", func(c *L) { c.DimHead, c.UseRotaryPosEmb = 7, true }},
		{"ExactWindowSize is false, want true without Causal", func(c *L) { c.ExactWindowSize = false }},
		{"Precision is i32, want f32, f16 or bf16", func(c *L) { c.Precision = I32 }},
	})
}

func TestInvalidConfigs(t *testing.T) {
	fx := newFixture(t)
	nan, inf := math.NaN(), math.Inf(1)
	ff := func(change func(*ConditionalRoutedFeedForwardConfig)) error {
		c := Default[ConditionalRoutedFeedForwardConfig]()
		c.Dim, c.NumHeavyTokens = 8, 4
		change(&c)
		_, err := NewConditionalRoutedFeedForward(t.Context(), fx.dev, c)
		return err
	}
	router := func(change func(*RouterConfig)) error {
		c := Default[RouterConfig]()
		c.Dim = 8
		change(&c)
		_, err := NewCoordinateDescentRouter(t.Context(), fx.dev, c)
		return err
	}
	topK := func(change func(*TopKConfig)) error {
		c := Default[TopKConfig]()
		c.K = 2
		change(&c)
		_, err := NewTopK(fx.dev, c)
		return err
	}
	descent := func(change func(*CoordinateDescentConfig)) error {
		c := Default[CoordinateDescentConfig]()
		c.K = 2
		change(&c)
		_, err := NewCoordinateDescent(fx.dev, c)
		return err
	}
	for want, err := range map[string]error{
		"Dim is 0, want 1":                        ff(func(c *ConditionalRoutedFeedForwardConfig) { c.Dim = 0 }),
		"NumHeavyTokens is -1, want 1":            ff(func(c *ConditionalRoutedFeedForwardConfig) { c.NumHeavyTokens = -1 }),
		"LightFFMult is 0, want a positive":       ff(func(c *ConditionalRoutedFeedForwardConfig) { c.LightFFMult = 0 }),
		"HeavyFFMult is NaN, want a positive":     ff(func(c *ConditionalRoutedFeedForwardConfig) { c.HeavyFFMult = nan }),
		"Dim * LightFFMult is 0.8, want 1 to":     ff(func(c *ConditionalRoutedFeedForwardConfig) { c.LightFFMult = 0.1 }),
		"Router.RouteBlockSize is -3, want 0":     ff(func(c *ConditionalRoutedFeedForwardConfig) { c.Router.RouteBlockSize = -3 }),
		"Eps is 0, want a positive":               router(func(c *RouterConfig) { c.Eps = 0 }),
		"Eps is -1, want a positive":              router(func(c *RouterConfig) { c.Eps = -1 }),
		"Eps is NaN, want a positive":             router(func(c *RouterConfig) { c.Eps = nan }),
		"EpsInit is -2, want a positive":          router(func(c *RouterConfig) { c.EpsInit = -2 }),
		"EpsDecay is 1.5, want at most 1":         router(func(c *RouterConfig) { c.EpsDecay = 1.5 }),
		"NIters is 0, want 1":                     router(func(c *RouterConfig) { c.NIters = 0 }),
		"FetchKRatio is +Inf, want a positive":    router(func(c *RouterConfig) { c.FetchKRatio = inf }),
		"CosineSimScale is 0, want a positive":    router(func(c *RouterConfig) { c.CosineSimScale = 0 }),
		"NumRoutingTokens is 0, want 1":           router(func(c *RouterConfig) { c.NumRoutingTokens = 0 }),
		"K is 0, want 1":                          topK(func(c *TopKConfig) { c.K = 0 }),
		"K is -1, want 1":                         topK(func(c *TopKConfig) { c.K = -1 }),
		"NewTopK: Eps is NaN":                     topK(func(c *TopKConfig) { c.Eps = nan }),
		"NewTopK: EpsInit is -1, want a positive": topK(func(c *TopKConfig) { c.EpsInit = -1 }),
		"NewTopK: EpsDecay is 2, want at most 1":  topK(func(c *TopKConfig) { c.EpsDecay = 2 }),
		"CoorDescentKRatio is 0":                  topK(func(c *TopKConfig) { c.CoorDescentKRatio = 0 }),
		"K is 0, want a positive":                 descent(func(c *CoordinateDescentConfig) { c.K = 0 }),
		"K is NaN, want a positive":               descent(func(c *CoordinateDescentConfig) { c.K = nan }),
		"NewCoordinateDescent: Eps is 0, want a":  descent(func(c *CoordinateDescentConfig) { c.Eps = 0 }),
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestInvalidMemorySizes(t *testing.T) {
	var caps vk.Caps
	for shape, want := range map[[2]int]string{
		{0, 8}: "is 0, want 1 to 2147483647", {1, 0}: "is 0, want 1", {-1, 8}: "B is -1, want 1", {1, 1 << 31}: "is 2147483648, want 1 to 2147483647",
	} {
		for _, k := range moduleTypes(F32) {
			if k.n > 0 {
				_, err := k.memory(caps, shape[0], shape[1])
				assert.ErrorContains(t, err, want, k.name)
			}
		}
		_, err := smallCross().Memory(caps, shape[0], 8, shape[1])
		assert.ErrorContains(t, err, want, "context")
	}
	_, err := smallViT().Memory(caps, 0)
	assert.ErrorContains(t, err, "B is 0, want 1")
	_, err = smallViT().Memory(caps, math.MaxInt32)
	assert.ErrorContains(t, err, "B is 2147483647, want 1 to", "patches are tokens")
}
