package ref

// BlockConfig is the config of [ConditionalRoutedTransformerBlock].
type BlockConfig struct {
	AttentionConfig      // NumHeavyTokensQ and NumHeavyTokensKV: num_heavy_attn_tokens_q and _kv in PyTorch
	NumHeavyFFTokens int `json:"num_heavy_ff_tokens"`
}

// ConditionalRoutedTransformerBlock is attention and feedforward, each with a residual connection.
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
	return runModule("ConditionalRoutedTransformerBlock", p, prefix, func(m module[T]) []T { return m.block(x, mask, b, n, c) })
}

func (m module[T]) block(x []T, mask []uint8, b, n int, c BlockConfig) []T {
	x = addTensors(x, m.child("conditional_attn.").attention(x, mask, b, n, c.AttentionConfig))
	router := c.Router
	router.NumTokens = c.NumHeavyFFTokens
	return addTensors(x, m.child("conditional_ff.").routedFeedForward(x, mask, b, n, c.Dim, router))
}
