package ref

// ConditionalRoutedAttentionBackward is the gradient of [ConditionalRoutedAttention].
//
//	dy [B, N, C]
//	heavy branch: dy at the queries, times the score; null query token: the sum of dy over all other rows; light: dy
//
// Steps: light_attn.qkv, heavy_attn.q and heavy_attn.kv (attention), the linear layers, and q_router and kv_router with
// .scores and .logits.
func ConditionalRoutedAttentionBackward(x []float32, mask []uint8, dy []float32, b, n int, c AttentionConfig,
	p Params, prefix string) Gradients {
	return attentionBackward(convert[float64](x), mask, convert[float64](dy), b, n, c, p, prefix)
}

// ConditionalRoutedAttentionBackward32 is [ConditionalRoutedAttentionBackward] in plain float32.
func ConditionalRoutedAttentionBackward32(x []float32, mask []uint8, dy []float32, b, n int, c AttentionConfig,
	p Params, prefix string) GradientsOf[float32] {
	return attentionBackward(x, mask, dy, b, n, c, p, prefix)
}

func attentionBackward[T Float](x []T, mask []uint8, dy []T, b, n int, c AttentionConfig, p Params, prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedAttention", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardAttention(x, mask, b, n, c)
		return onlyX(y, s.backward(dy))
	})
}

// attentionState is a routed attention after the forward pass.
type attentionState[T Float] struct {
	c     AttentionConfig
	light lightAttentionState[T]
	q, kv routerState[T]
	heavy heavyState[T]
}

func (m gradientModule[T]) forwardAttention(x []T, mask []uint8, b, n int, c AttentionConfig) ([]T, attentionState[T]) {
	s, base := attentionState[T]{c: c}, make([]T, len(x))
	if c.HasLightAttn {
		base, s.light = m.child("light_attn.").forwardWindows(x, mask, b, n, c.light(c.LightWindowSize/2, false))
	}
	routerQ, routerKV := c.routers()
	s.q = m.forwardRouter("q_router", routerQ, x, mask, b, n, c.Dim, 1, nil)
	s.kv = m.forwardRouter("kv_router", routerKV, x, mask, b, n, c.Dim, max(c.NumRoutedKV, 1), nil)
	y, heavy := m.forwardHeavy(heavyInput[T]{x: x, context: x, base: base, q: s.q.list(), kv: s.kv.list()}, c.heavy())
	s.heavy = heavy
	return y, s
}

// light returns the config of the light branch.
func (c AttentionConfig) light(window int, causal bool) LocalMHAConfig {
	return LocalMHAConfig{Dim: c.Dim, WindowSize: window, DimHead: c.LightDimHead, Heads: c.LightHeads, Causal: causal, PreNorm: true}
}

func (s attentionState[T]) backward(dy []T) []T {
	heavy := s.heavy.backward(dy)
	dx := addTensors(heavy.x, heavy.context)
	dx = addTensors(dx, s.q.backward(heavy.qScores))
	dx = addTensors(dx, s.kv.backward(heavy.kvScores))
	if s.c.HasLightAttn {
		dx = addTensors(dx, s.light.backward(heavy.base))
	}
	return dx
}
