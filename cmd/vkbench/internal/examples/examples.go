// Package examples holds configurations of the modules at the sizes at which they are measured: the uses in the README
// of colt5-attention, and, for the two whole models, six of the same layers. bench times them; plan computes their
// memory. A size means the same in both, because both make configurations of sizes here.
package examples

import (
	"context"

	"github.com/colt5-vulkan/colt5/colt5"
	"github.com/colt5-vulkan/colt5/vk"
)

// Module is an example of a module with configuration C.
type Module[C any] struct {
	Name string // of the case in bench

	// Example returns the configuration for a size, of which only the numbers of the call need to be there. Other numbers
	// do not change it.
	Example func(size []int) C
	// Numbers returns the numbers of a size in order: first those of a call, then those of the configuration.
	Numbers   func(*C) []Number
	Precision func(*C) *colt5.DType
	// Call makes the module, on a device or, to plan, without one (nil).
	Call func(ctx context.Context, dev *vk.Device, c C, size []int) (*Call, error)
}

// Number is a number of a size. Fields are those of the configuration that it is; none: it is a number of the call.
type Number struct {
	Name   string
	Fields []*int
}

// Config returns the configuration for a size, whose last numbers may be missing: those of the example are used then.
func (m Module[C]) Config(size []int, precision colt5.DType) C {
	c := m.Example(size)
	*m.Precision(&c) = precision
	numbers := m.Numbers(&c)
	for i, n := range size {
		for _, f := range numbers[i].Fields {
			*f = n
		}
	}
	return c
}

// Names returns the names of the numbers of a size.
func (m Module[C]) Names() []string {
	var names []string
	for _, n := range m.Numbers(new(C)) {
		names = append(names, n.Name)
	}
	return names
}

const (
	dim         = 512
	heavyTokens = 1024 // per router, unless an example has another number
)

func number(name string, fields ...*int) Number { return Number{name, fields} }

var batch, tokens = number("batch"), number("tokens")

// FeedForward routes 1,024 tokens.
func FeedForward() Module[colt5.ConditionalRoutedFeedForwardConfig] {
	type config = colt5.ConditionalRoutedFeedForwardConfig
	return Module[config]{
		Name: "feedforward",
		Example: func([]int) config {
			c := colt5.Default[config]()
			c.Dim, c.NumHeavyTokens = dim, heavyTokens
			return c
		},
		Numbers: func(c *config) []Number {
			return []Number{batch, tokens, number("dim", &c.Dim), number("heavy tokens", &c.NumHeavyTokens)}
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      feedForwardCall,
	}
}

// LocalMHA is the light branch of Attention: windows of 64 tokens on each side.
func LocalMHA(dim int) colt5.LocalMHAConfig {
	c := colt5.Default[colt5.LocalMHAConfig]()
	c.Dim, c.WindowSize, c.PreNorm, c.UseRotaryPosEmb = dim, 64, true, false
	return c
}

// PlainFeedForward is the heavy branch of FeedForward, for every token.
func PlainFeedForward(dim int) colt5.FeedForwardConfig {
	c := colt5.Default[colt5.FeedForwardConfig]()
	c.Dim = dim
	return c
}

// Attention routes 1,024 queries and 1,024 keys and values.
func Attention() Module[colt5.ConditionalRoutedAttentionConfig] {
	type config = colt5.ConditionalRoutedAttentionConfig
	return Module[config]{
		Name: "attention",
		Example: func([]int) config {
			c := colt5.Default[config]()
			c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV = dim, heavyTokens, heavyTokens
			return c
		},
		Numbers: func(c *config) []Number {
			return []Number{batch, tokens, number("dim", &c.Dim), number("heavy tokens", &c.NumHeavyTokensQ, &c.NumHeavyTokensKV)}
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      attentionCall,
	}
}

// blockConfig routes 1,024 tokens in each of its three routers.
func blockConfig() colt5.ConditionalRoutedTransformerBlockConfig {
	c := colt5.Default[colt5.ConditionalRoutedTransformerBlockConfig]()
	c.Dim, c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = dim, heavyTokens, heavyTokens, heavyTokens
	return c
}

func blockNumbers(c *colt5.ConditionalRoutedTransformerBlockConfig) []Number {
	return []Number{batch, tokens, number("dim", &c.Dim), number("heavy tokens", &c.NumHeavyAttnTokensQ, &c.NumHeavyAttnTokensKV, &c.NumHeavyFFTokens)}
}

// Block routes 1,024 tokens in each of its three routers.
func Block() Module[colt5.ConditionalRoutedTransformerBlockConfig] {
	type config = colt5.ConditionalRoutedTransformerBlockConfig
	return Module[config]{
		Name: "block", Example: func([]int) config { return blockConfig() }, Numbers: blockNumbers,
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      blockCall,
	}
}

// Cross has two routes to blocks of 131,072 memories. It routes 512 queries and 1,024 memories, but at most half of the
// queries and a 64th of the memories: otherwise small sizes would route everything.
func Cross() Module[colt5.ConditionalRoutedCrossAttentionConfig] {
	type config = colt5.ConditionalRoutedCrossAttentionConfig
	return Module[config]{
		Name: "cross",
		Example: func(size []int) config {
			c := colt5.Default[config]()
			c.Dim, c.KVRoutingTokens, c.RouteBlockSize = dim, 2, 131072
			c.NumTokensQ, c.NumTokensKV = min(512, max(size[1]/2, 1)), min(heavyTokens, max(size[2]/64, 1))
			return c
		},
		Numbers: func(c *config) []Number {
			return []Number{batch, tokens, number("memories"), number("dim", &c.Dim), number("routes", &c.KVRoutingTokens), number("block", &c.RouteBlockSize)}
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      crossCall,
	}
}

// autoregressiveConfig has 32 queries per window of 128, and two routes.
func autoregressiveConfig() colt5.ConditionalRoutedAutoregressiveAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedAutoregressiveAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.NumRoutedKV = dim, 32, heavyTokens, 2
	return c
}

func autoregressiveNumbers(c *colt5.ConditionalRoutedAutoregressiveAttentionConfig) []Number {
	return []Number{batch, tokens, number("dim", &c.Dim), number("heavy keys", &c.NumHeavyTokensKV)}
}

// Autoregressive has 32 queries per window of 128, and two routes.
func Autoregressive() Module[colt5.ConditionalRoutedAutoregressiveAttentionConfig] {
	type config = colt5.ConditionalRoutedAutoregressiveAttentionConfig
	return Module[config]{
		Name: "autoregressive", Example: func([]int) config { return autoregressiveConfig() }, Numbers: autoregressiveNumbers,
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      autoregressiveCall,
	}
}

// Image has the channels first and patches of 32 by 32 pixels.
func Image() Module[colt5.ConditionalRoutedImageAttentionConfig] {
	type config = colt5.ConditionalRoutedImageAttentionConfig
	return Module[config]{
		Name: "image",
		Example: func([]int) config {
			c := colt5.Default[config]()
			c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightWindowSize, c.ChannelFirst = 32, heavyTokens, heavyTokens, 32, true
			return c
		},
		Numbers: func(c *config) []Number {
			return []Number{batch, number("dim", &c.Dim), number("height"), number("width"), number("window", &c.LightWindowSize),
				number("heavy tokens", &c.NumHeavyTokensQ, &c.NumHeavyTokensKV)}
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      imageCall,
	}
}

// ViT classifies images of 8 by 8 patches into 1,000 classes.
func ViT() Module[colt5.ConditionalRoutedViTConfig] {
	type config = colt5.ConditionalRoutedViTConfig
	return Module[config]{
		Name: "vit",
		Example: func([]int) config {
			c := colt5.Default[config]()
			c.ImageSize, c.PatchSize, c.NumClasses, c.Dim, c.Depth = colt5.Size{Height: 256, Width: 256}, colt5.Size{Height: 32, Width: 32}, 1000, 1024, 6
			c.AttnNumHeavyTokensQ, c.AttnNumHeavyTokensKV, c.AttnHeavyDimHead, c.AttnHeavyHeads = 16, 16, 64, 8
			c.AttnLightWindowSize, c.AttnLightDimHead, c.AttnLightHeads = 4, 32, 4
			c.FFNumHeavyTokens, c.FFHeavyMult, c.FFLightMult = 16, 4, 2
			return c
		},
		Numbers: func(c *config) []Number {
			return []Number{batch, number("side", &c.ImageSize.Height, &c.ImageSize.Width), number("patch", &c.PatchSize.Height, &c.PatchSize.Width),
				number("dim", &c.Dim), number("depth", &c.Depth)}
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      vitCall,
	}
}

// Encoder is a model of bytes, of six blocks.
func Encoder() Module[colt5.EncoderConfig] {
	type config = colt5.EncoderConfig
	return Module[config]{
		Name: "encoder",
		Example: func([]int) config {
			return config{Depth: 6, NumTokens: 256, ConditionalRoutedTransformerBlockConfig: blockConfig()}
		},
		Numbers: func(c *config) []Number {
			return append(blockNumbers(&c.ConditionalRoutedTransformerBlockConfig), number("depth", &c.Depth))
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      encoderCall,
	}
}

// AutoregressiveTransformer is a model of bytes, of six layers.
func AutoregressiveTransformer() Module[colt5.AutoregressiveTransformerConfig] {
	type config = colt5.AutoregressiveTransformerConfig
	return Module[config]{
		Name: "autoregressive_transformer",
		Example: func([]int) config {
			c := colt5.Default[config]()
			rotary := c.RotaryEmb
			c.Depth, c.ConditionalRoutedAutoregressiveAttentionConfig = 6, autoregressiveConfig()
			c.RotaryEmb = rotary
			return c
		},
		Numbers: func(c *config) []Number {
			return append(autoregressiveNumbers(&c.ConditionalRoutedAutoregressiveAttentionConfig), number("depth", &c.Depth))
		},
		Precision: func(c *config) *colt5.DType { return &c.Precision },
		Call:      autoregressiveTransformerCall,
	}
}
