package ref

import "fmt"

// Encoder is a stack of transformer blocks.
//
//	x [B, N, C], or ids [B, N] with embed.weight [V, C]    mask [B, N] optional    y [B, N, C]
//	depth times layers.{i} (ConditionalRoutedTransformerBlock), then RMSNorm with norm.gamma
//
// Exactly one of x and ids is nil.
func Encoder(x []float32, ids []int32, mask []uint8, b, n, depth int, c BlockConfig, p Params, prefix string) Result {
	return encoder(convert[float64](x), ids, mask, b, n, depth, c, p, prefix)
}

// Encoder32 is [Encoder] in plain float32.
func Encoder32(x []float32, ids []int32, mask []uint8, b, n, depth int, c BlockConfig, p Params, prefix string) ResultOf[float32] {
	return encoder(x, ids, mask, b, n, depth, c, p, prefix)
}

func encoder[T Float](x []T, ids []int32, mask []uint8, b, n, depth int, c BlockConfig, p Params, prefix string) ResultOf[T] {
	return runModule("Encoder", p, prefix, func(m module[T]) []T {
		if ids != nil {
			x = m.embed("embed", ids, c.Dim)
		}
		checkLen(m.name, "x", len(x), b*n*c.Dim)
		for i := range depth {
			x = m.child(fmt.Sprintf("layers.%d.", i)).block(x, mask, b, n, c)
		}
		return m.rmsNorm("norm", x, b*n, c.Dim)
	})
}
