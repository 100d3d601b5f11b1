package ref

// ConditionalRoutedTransformerBlockBackward is the gradient of [ConditionalRoutedTransformerBlock]. Steps: those of
// conditional_attn and conditional_ff, and h, the sum after the attention.
//
//	dy [B, N, C]    dh = dy + conditional_ff backward of dy    dx = dh + conditional_attn backward of dh
func ConditionalRoutedTransformerBlockBackward(x []float32, mask []uint8, dy []float32, b, n int, c BlockConfig,
	p Params, prefix string) Gradients {
	return blockBackward(convert[float64](x), mask, convert[float64](dy), b, n, c, p, prefix)
}

// ConditionalRoutedTransformerBlockBackward32 is [ConditionalRoutedTransformerBlockBackward] in plain float32.
func ConditionalRoutedTransformerBlockBackward32(x []float32, mask []uint8, dy []float32, b, n int, c BlockConfig,
	p Params, prefix string) GradientsOf[float32] {
	return blockBackward(x, mask, dy, b, n, c, p, prefix)
}

func blockBackward[T Float](x []T, mask []uint8, dy []T, b, n int, c BlockConfig, p Params, prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedTransformerBlock", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardBlock(x, mask, b, n, c)
		return onlyX(y, s.backward(dy))
	})
}

// blockState is a transformer block after the forward pass.
type blockState[T Float] struct {
	m         gradientModule[T]
	attention attentionState[T]
	ff        routedFeedForwardState[T]
}

func (m gradientModule[T]) forwardBlock(x []T, mask []uint8, b, n int, c BlockConfig) ([]T, blockState[T]) {
	y, attention := m.child("conditional_attn.").forwardAttention(x, mask, b, n, c.AttentionConfig)
	h := addTensors(x, y)
	router := c.Router
	router.NumTokens = c.NumHeavyFFTokens
	y, ff := m.child("conditional_ff.").forwardRoutedFeedForward(h, mask, b, n, c.Dim, router)
	return addTensors(h, y), blockState[T]{m, attention, ff}
}

func (s blockState[T]) backward(dy []T) []T {
	dh := addTensors(dy, s.ff.backward(dy))
	s.m.keep("h", dh)
	return addTensors(dh, s.attention.backward(dh))
}
