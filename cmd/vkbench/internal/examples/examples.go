// Package examples holds configurations of the modules at the sizes at which they are measured: the uses in the README
// of colt5-attention, and, for the two whole models, six of the same layers. bench times them; plan computes their
// memory.
package examples

import "github.com/colt5-vulkan/colt5/colt5"

const heavyTokens = 1024 // per router, unless an example has another number

// FeedForward routes 1,024 tokens.
func FeedForward(dim int) colt5.ConditionalRoutedFeedForwardConfig {
	c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens = dim, heavyTokens
	return c
}

// Attention routes 1,024 queries and 1,024 keys and values.
func Attention(dim int) colt5.ConditionalRoutedAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV = dim, heavyTokens, heavyTokens
	return c
}

// Block routes 1,024 tokens in each of its three routers.
func Block(dim int) colt5.ConditionalRoutedTransformerBlockConfig {
	c := colt5.Default[colt5.ConditionalRoutedTransformerBlockConfig]()
	c.Dim, c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = dim, heavyTokens, heavyTokens, heavyTokens
	return c
}

// Cross has 512 queries, and two routes to blocks of 131,072 memories.
func Cross(dim int) colt5.ConditionalRoutedCrossAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedCrossAttentionConfig]()
	c.Dim, c.NumTokensQ, c.NumTokensKV, c.KVRoutingTokens, c.RouteBlockSize = dim, 512, heavyTokens, 2, 131072
	return c
}

// Autoregressive has 32 queries per window of 128, and two routes.
func Autoregressive(dim int) colt5.ConditionalRoutedAutoregressiveAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedAutoregressiveAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.NumRoutedKV = dim, 32, heavyTokens, 2
	return c
}

// Image has the channels first and patches of 32 by 32 pixels.
func Image(dim int) colt5.ConditionalRoutedImageAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedImageAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightWindowSize, c.ChannelFirst = dim, heavyTokens, heavyTokens, 32, true
	return c
}

// ViT classifies images of 8 by 8 patches into 1,000 classes.
func ViT() colt5.ConditionalRoutedViTConfig {
	c := colt5.Default[colt5.ConditionalRoutedViTConfig]()
	c.ImageSize, c.PatchSize, c.NumClasses, c.Dim, c.Depth = colt5.Size{Height: 256, Width: 256}, colt5.Size{Height: 32, Width: 32}, 1000, 1024, 6
	c.AttnNumHeavyTokensQ, c.AttnNumHeavyTokensKV, c.AttnHeavyDimHead, c.AttnHeavyHeads = 16, 16, 64, 8
	c.AttnLightWindowSize, c.AttnLightDimHead, c.AttnLightHeads = 4, 32, 4
	c.FFNumHeavyTokens, c.FFHeavyMult, c.FFLightMult = 16, 4, 2
	return c
}

// Encoder is a model of bytes.
func Encoder(dim int) colt5.EncoderConfig {
	return colt5.EncoderConfig{Depth: 6, NumTokens: 256, ConditionalRoutedTransformerBlockConfig: Block(dim)}
}

// AutoregressiveTransformer is a model of bytes.
func AutoregressiveTransformer(dim int) colt5.AutoregressiveTransformerConfig {
	c := colt5.Default[colt5.AutoregressiveTransformerConfig]()
	rotary := c.RotaryEmb
	c.Depth, c.ConditionalRoutedAutoregressiveAttentionConfig = 6, Autoregressive(dim)
	c.RotaryEmb = rotary
	return c
}
