package ref

import "fmt"

// AutoregressiveTransformer is a decoder-only language model.
//
//	ids [B, N]    y [B, N, V] logits of the next id    V = rows of to_logits.weight
//	h = embed.weight[ids]
//	depth times: h += layers.{i}.attn(h) (ConditionalRoutedAutoregressiveAttention, rotary); h += layers.{i}.ff(h) (FeedForward)
//	y = rmsnorm(h, norm.gamma) to_logits.weight^T
func AutoregressiveTransformer(ids []int32, b, n, depth int, c AutoregressiveConfig, p Params, prefix string) Result {
	return autoregressiveTransformer[float64](ids, b, n, depth, c, p, prefix)
}

// AutoregressiveTransformer32 is [AutoregressiveTransformer] in plain float32.
func AutoregressiveTransformer32(ids []int32, b, n, depth int, c AutoregressiveConfig, p Params, prefix string) ResultOf[float32] {
	return autoregressiveTransformer[float32](ids, b, n, depth, c, p, prefix)
}

func autoregressiveTransformer[T Float](ids []int32, b, n, depth int, c AutoregressiveConfig, p Params, prefix string) ResultOf[T] {
	return runModule("AutoregressiveTransformer", p, prefix, func(m module[T]) []T {
		checkLen(m.name, "ids", len(ids), b*n)
		c.RotaryEmb = true
		x := m.embed("embed", ids, c.Dim)
		for i := range depth {
			layer := m.child(fmt.Sprintf("layers.%d.", i))
			x = addTensors(x, layer.child("attn.").autoregressive(x, nil, b, n, c))
			x = addTensors(x, layer.child("ff.").feedForward(x, b*n, c.Dim))
		}
		x = m.rmsNorm("norm", x, b*n, c.Dim)
		return m.linear("to_logits", x, b*n, c.Dim, len(m.params[m.prefix+"to_logits.weight"])/c.Dim)
	})
}
