package ref

import "fmt"

// AutoregressiveTransformerBackward is the gradient of [AutoregressiveTransformer]. Inputs is empty. Steps: those of the
// layers, layers.{i}.attn and layers.{i}.ff; layers.{i}.h, the sum after the attention; layers.{i}.y, the result of layer
// i; to_logits.
//
//	dy [B, N, V]
func AutoregressiveTransformerBackward(ids []int32, dy []float32, b, n, depth int, c AutoregressiveConfig, p Params,
	prefix string) Gradients {
	return autoregressiveTransformerBackward(ids, convert[float64](dy), b, n, depth, c, p, prefix)
}

// AutoregressiveTransformerBackward32 is [AutoregressiveTransformerBackward] in plain float32.
func AutoregressiveTransformerBackward32(ids []int32, dy []float32, b, n, depth int, c AutoregressiveConfig,
	p Params, prefix string) GradientsOf[float32] {
	return autoregressiveTransformerBackward(ids, dy, b, n, depth, c, p, prefix)
}

// decoderLayer is a layer of a transformer after the forward pass.
type decoderLayer[T Float] struct {
	attention autoregressiveState[T]
	ff        feedForwardState[T]
}

func autoregressiveTransformerBackward[T Float](ids []int32, dy []T, b, n, depth int, c AutoregressiveConfig,
	p Params, prefix string) GradientsOf[T] {
	return runBackward("AutoregressiveTransformer", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		checkLen(m.name, "ids", len(ids), b*n)
		c.RotaryEmb = true
		x, layers := m.embed("embed", ids, c.Dim), make([]decoderLayer[T], depth)
		for i := range layers {
			layer, y := m.child(fmt.Sprintf("layers.%d.", i)), []T(nil)
			y, layers[i].attention = layer.child("attn.").forwardAutoregressive(x, nil, b, n, c)
			x = addTensors(x, y)
			y, layers[i].ff = layer.child("ff.").forwardFeedForward(x, tokenList[T]{b: 1, n: b * n, k: b * n}, c.Dim, nil)
			x = addTensors(x, y)
		}
		logits := m.linearArgs("to_logits", x, b*n, c.Dim, len(m.params[m.prefix+"to_logits.weight"])/c.Dim, false)
		logits.Gamma = m.weight("norm.gamma", c.Dim)
		y := linear(logits)

		g := m.linearBackward("to_logits", logits, dy)
		m.add("norm.gamma", 0, g.Gamma)
		dx := g.X
		for i := depth - 1; i >= 0; i-- {
			layer := fmt.Sprintf("layers.%d.", i)
			m.keep(layer+"y", dx)
			dff, _, _ := layers[i].ff.backward(dx)
			dx = addTensors(dx, dff)
			m.keep(layer+"h", dx)
			dx = addTensors(dx, layers[i].attention.backward(dx))
		}
		m.embedBackward(ids, dx, c.Dim)
		return y, map[string][]T{}
	})
}
