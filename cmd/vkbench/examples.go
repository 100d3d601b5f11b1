package main

import "github.com/colt5-vulkan/colt5/colt5"

// The examples are the uses that the modules are measured by: those of the colt5-attention package, and for the two whole models the same
// layers, six of them. bench times them, plan tells their memory.

const exampleTokens = 1024 // heavy tokens, where an example does not say otherwise

func feedForwardExample(dim int) colt5.ConditionalRoutedFeedForwardConfig {
	c := colt5.Default[colt5.ConditionalRoutedFeedForwardConfig]()
	c.Dim, c.NumHeavyTokens = dim, exampleTokens
	return c
}

func attentionExample(dim int) colt5.ConditionalRoutedAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV = dim, exampleTokens, exampleTokens
	return c
}

func blockExample(dim int) colt5.ConditionalRoutedTransformerBlockConfig {
	c := colt5.Default[colt5.ConditionalRoutedTransformerBlockConfig]()
	c.Dim, c.NumHeavyAttnTokensQ, c.NumHeavyAttnTokensKV, c.NumHeavyFFTokens = dim, exampleTokens, exampleTokens, exampleTokens
	return c
}

// crossExample has 512 queries, and two routes to blocks of 131,072 memories.
func crossExample(dim int) colt5.ConditionalRoutedCrossAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedCrossAttentionConfig]()
	c.Dim, c.NumTokensQ, c.NumTokensKV, c.KVRoutingTokens, c.RouteBlockSize = dim, 512, exampleTokens, 2, 131072
	return c
}

// autoregressiveExample has 32 queries of a window of 128, and two routes.
func autoregressiveExample(dim int) colt5.ConditionalRoutedAutoregressiveAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedAutoregressiveAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.NumRoutedKV = dim, 32, exampleTokens, 2
	return c
}

// imageExample has the channels first, and patches of 32 by 32 pixels.
func imageExample(dim int) colt5.ConditionalRoutedImageAttentionConfig {
	c := colt5.Default[colt5.ConditionalRoutedImageAttentionConfig]()
	c.Dim, c.NumHeavyTokensQ, c.NumHeavyTokensKV, c.LightWindowSize, c.ChannelFirst = dim, exampleTokens, exampleTokens, 32, true
	return c
}

// vitExample classifies images of 8 by 8 patches into 1,000 classes.
func vitExample() colt5.ConditionalRoutedViTConfig {
	c := colt5.Default[colt5.ConditionalRoutedViTConfig]()
	c.ImageSize, c.PatchSize, c.NumClasses, c.Dim, c.Depth = colt5.Square(256), colt5.Square(32), 1000, 1024, 6
	c.AttnNumHeavyTokensQ, c.AttnNumHeavyTokensKV, c.AttnHeavyDimHead, c.AttnHeavyHeads = 16, 16, 64, 8
	c.AttnLightWindowSize, c.AttnLightDimHead, c.AttnLightHeads = 4, 32, 4
	c.FFNumHeavyTokens, c.FFHeavyMult, c.FFLightMult = 16, 4, 2
	return c
}

// encoderExample reads bytes.
func encoderExample(dim int) colt5.EncoderConfig {
	return colt5.EncoderConfig{Depth: 6, NumTokens: 256, ConditionalRoutedTransformerBlockConfig: blockExample(dim)}
}

// autoregressiveTransformerExample reads bytes.
func autoregressiveTransformerExample(dim int) colt5.AutoregressiveTransformerConfig {
	c := colt5.Default[colt5.AutoregressiveTransformerConfig]()
	rotary := c.RotaryEmb
	c.Depth, c.ConditionalRoutedAutoregressiveAttentionConfig = 6, autoregressiveExample(dim)
	c.RotaryEmb = rotary
	return c
}
