package ref

// LocalMHABackward is the gradient of [LocalMHA]. Steps: to_qkv, to_out, and qkv [B, N, 3, H, D] after the rotation.
//
//	dy [B, N, C]
func LocalMHABackward(x []float32, mask []uint8, dy []float32, b, n int, c LocalMHAConfig, p Params, prefix string) Gradients {
	return localMHABackward(convert[float64](x), mask, convert[float64](dy), b, n, c, p, prefix)
}

// LocalMHABackward32 is [LocalMHABackward] in plain float32.
func LocalMHABackward32(x []float32, mask []uint8, dy []float32, b, n int, c LocalMHAConfig, p Params,
	prefix string) GradientsOf[float32] {
	return localMHABackward(x, mask, dy, b, n, c, p, prefix)
}

func localMHABackward[T Float](x []T, mask []uint8, dy []T, b, n int, c LocalMHAConfig, p Params, prefix string) GradientsOf[T] {
	return runBackward("LocalMHA", p, prefix, func(m gradientModule[T]) ([]T, map[string][]T) {
		y, s := m.forwardWindows(x, mask, b, n, c)
		return onlyX(y, s.backward(dy))
	})
}
