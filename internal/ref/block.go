package ref

// BlockConfig is the config of [ConditionalRoutedTransformerBlock].
type BlockConfig struct {
	AttentionConfig      // NumHeavyTokensQ and NumHeavyTokensKV are the reference's num_heavy_attn_tokens_q and _kv
	NumHeavyFFTokens int `json:"num_heavy_ff_tokens"`
}

// ConditionalRoutedTransformerBlock is attention and feedforward, each added to x.
//
//	x [B, N, C]    mask [B, N] optional    y [B, N, C]
//	h = x + conditional_attn(x);  y = h + conditional_ff(h)
func ConditionalRoutedTransformerBlock(x []float32, mask []uint8, b, n int, c BlockConfig, p Params, prefix string) Result {
	return block(convert[float64](x), mask, b, n, c, p, prefix)
}

// ConditionalRoutedTransformerBlock32 is [ConditionalRoutedTransformerBlock] in plain float32.
func ConditionalRoutedTransformerBlock32(x []float32, mask []uint8, b, n int, c BlockConfig, p Params, prefix string) ResultOf[float32] {
	return block(x, mask, b, n, c, p, prefix)
}

func block[T Float](x []T, mask []uint8, b, n int, c BlockConfig, p Params, prefix string) ResultOf[T] {
	return within("ConditionalRoutedTransformerBlock", p, prefix, func(m module[T]) []T { return m.block(x, mask, b, n, c) })
}

func (m module[T]) block(x []T, mask []uint8, b, n int, c BlockConfig) []T {
	x = sum(x, m.under("conditional_attn.").attention(x, mask, b, n, c.AttentionConfig))
	router := c.Router
	router.NumTokens = c.NumHeavyFFTokens
	return sum(x, m.under("conditional_ff.").routedFeedForward(x, mask, b, n, c.Dim, router))
}
