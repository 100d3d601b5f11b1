package ref

// ConditionalRoutedCrossAttentionBackward is the gradient of [ConditionalRoutedCrossAttention]. Inputs has x and context.
// Steps: those of [ConditionalRoutedAttentionBackward] without the light branch.
//
//	dy [B, N, C]
func ConditionalRoutedCrossAttentionBackward(in CrossAttentionInput, dy []float32, c CrossAttentionConfig, p Params,
	prefix string) Gradients {
	return crossBackward[float64](in, dy, c, p, prefix)
}

// ConditionalRoutedCrossAttentionBackward32 is [ConditionalRoutedCrossAttentionBackward] in plain float32.
func ConditionalRoutedCrossAttentionBackward32(in CrossAttentionInput, dy []float32, c CrossAttentionConfig,
	p Params, prefix string) GradientsOf[float32] {
	return crossBackward[float32](in, dy, c, p, prefix)
}

func crossBackward[T Float](in CrossAttentionInput, dy []float32, c CrossAttentionConfig, p Params, prefix string) GradientsOf[T] {
	return runBackward("ConditionalRoutedCrossAttention", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		x, context := convert[T](in.X), convert[T](in.Context)
		routerQ, routerKV := c.routers()
		q := m.forwardRouter("q_router", routerQ, x, in.Mask, in.B, in.N, c.Dim, 1, nil)
		kv := m.forwardRouter("kv_router", routerKV, context, in.ContextMask, in.B, in.M, c.Dim, max(c.KVRoutingTokens, 1), nil)
		y, s := m.forwardHeavy(heavyInput[T]{x: x, context: context, base: make([]T, len(x)), q: q.list(), kv: kv.list()}, c.heavy())
		g := s.backward(convert[T](dy))
		return y, map[string][]T{
			"x": addTensors(g.x, q.backward(g.qScores)), "context": addTensors(g.context, kv.backward(g.kvScores)),
		}
	})
}
