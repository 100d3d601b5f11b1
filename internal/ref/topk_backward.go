package ref

// TopKUpstream holds the gradients of the results of [TopK], each [Rows, K]; nil: 0.
type TopKUpstream = TopKUpstreamOf[float32]

// TopKUpstreamOf is [TopKUpstream] in one precision.
type TopKUpstreamOf[T Float] struct{ Values, CoorDescentValues, Gates []T }

// TopKBackward is the gradient of [TopK]. Gates are 1 in the forward pass and have the gradient of the soft scores.
//
//	x, dx [Rows, N]    mask [Rows, N] optional
//	dx = scattered dvalues + dsoft/dx . g    g = dvalues * x + dcoor_descent_values + dgates at the selected entries
//
// With NonDifferentiable dx is the scattered dvalues. Empty slots have gradient 0.
func TopKBackward(x []float32, mask []uint8, rows, n int, c TopKConfig, d TopKUpstream) []float64 {
	return topKBackward(convert[float64](x), mask, rows, n, c, TopKUpstreamOf[float64]{
		convert[float64](d.Values), convert[float64](d.CoorDescentValues), convert[float64](d.Gates),
	})
}

// TopKBackward32 is [TopKBackward] in plain float32.
func TopKBackward32(x []float32, mask []uint8, rows, n int, c TopKConfig, d TopKUpstream) []float32 {
	return topKBackward(x, mask, rows, n, c, d)
}

func topKBackward[T Float](x []T, mask []uint8, rows, n int, c TopKConfig, d TopKUpstreamOf[T]) []T {
	const op = "TopKBackward"
	checkOptional(op, "values", d.Values, rows*c.K)
	checkOptional(op, "coor descent values", d.CoorDescentValues, rows*c.K)
	checkOptional(op, "gates", d.Gates, rows*c.K)
	selected := selectRows(x, mask, rows, n, c.K)
	at := func(list []T, slot int) T {
		if list == nil {
			return 0
		}
		return list[slot]
	}
	direct, soft := make([]T, rows*n), make([]T, rows*n)
	for slot, index := range selected.Indices {
		if selected.Valid[slot] == 0 {
			continue
		}
		i := slot/c.K*n + int(index)
		direct[i] = at(d.Values, slot)
		soft[i] = at(d.Values, slot)*x[i] + at(d.CoorDescentValues, slot) + at(d.Gates, slot)
	}
	if c.NonDifferentiable {
		return direct
	}
	dx, _ := coorDescentBackward(x, mask, soft, rows, n, c.descent(n))
	return addTensors(dx, direct)
}
