package ref

// MSE is the squared error of each item divided by count, and the gradient of the sum of losses times upstream.
//
//	y, target, dy [Items, N]    losses [Items]
//	loss = sum of (y - target)^2 / count    dy = 2 (y - target) / count * upstream
func MSE(y, target []float32, items, count int, upstream float32) (losses, dy []float64) {
	return mse(convert[float64](y), convert[float64](target), items, count, float64(upstream))
}

// MSE32 is [MSE] in plain float32.
func MSE32(y, target []float32, items, count int, upstream float32) (losses, dy []float32) {
	return mse(y, target, items, count, upstream)
}

func mse[T Float](y, target []T, items, count int, upstream T) (losses, dy []T) {
	n := len(y) / items
	checkLen("MSE", "y", len(y), items*n)
	checkLen("MSE", "target", len(target), len(y))
	losses, dy = make([]T, items), make([]T, len(y))
	for i, v := range y {
		d := v - target[i]
		losses[i/n] += d * d
		dy[i] = 2 * d / T(count) * upstream
	}
	for i := range losses {
		losses[i] /= T(count)
	}
	return losses, dy
}
