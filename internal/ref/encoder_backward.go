package ref

import "fmt"

// EncoderBackward is the gradient of [Encoder]. With ids Inputs is empty, and embed.weight has a gradient. Steps: those
// of the layers; layers.{i}.y, the result of layer i.
//
//	dy [B, N, C]
func EncoderBackward(x []float32, ids []int32, mask []uint8, dy []float32, b, n, depth int, c BlockConfig, p Params,
	prefix string) Gradients {
	return encoderBackward(convert[float64](x), ids, mask, convert[float64](dy), b, n, depth, c, p, prefix)
}

// EncoderBackward32 is [EncoderBackward] in plain float32.
func EncoderBackward32(x []float32, ids []int32, mask []uint8, dy []float32, b, n, depth int, c BlockConfig,
	p Params, prefix string) GradientsOf[float32] {
	return encoderBackward(x, ids, mask, dy, b, n, depth, c, p, prefix)
}

func encoderBackward[T Float](x []T, ids []int32, mask []uint8, dy []T, b, n, depth int, c BlockConfig, p Params,
	prefix string) GradientsOf[T] {
	return runBackward("Encoder", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		h, layers := x, make([]blockState[T], depth)
		if ids != nil {
			h = m.embed("embed", ids, c.Dim)
		}
		for i := range layers {
			h, layers[i] = m.child(fmt.Sprintf("layers.%d.", i)).forwardBlock(h, mask, b, n, c)
		}
		y := m.rmsNorm("norm", h, b*n, c.Dim)

		dh := m.rmsNormBackward("norm", h, dy, b*n, c.Dim)
		for i := depth - 1; i >= 0; i-- {
			m.keep(fmt.Sprintf("layers.%d.y", i), dh)
			dh = layers[i].backward(dh)
		}
		if ids == nil {
			return onlyX(y, dh)
		}
		m.embedBackward(ids, dh, c.Dim)
		return y, map[string][]T{}
	})
}

// embedBackward adds the gradient of embed.weight.
func (m gradientModule[T]) embedBackward(ids []int32, dx []T, c int) {
	m.add("embed.weight", 0, embedBackward(ids, dx, len(m.params[m.prefix+"embed.weight"])/c, c))
}
