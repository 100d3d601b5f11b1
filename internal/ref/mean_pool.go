package ref

// MeanPool is the mean over the tokens of each item whose mask is not 0; 0 for an item without any.
//
//	x [B, N, C]    mask [B, N], nil: all tokens    y [B, C]
func MeanPool(x []float32, mask []uint8, b, n, c int) []float64 {
	return meanPool(convert[float64](x), mask, b, n, c)
}

// MeanPool32 is [MeanPool] in plain float32.
func MeanPool32(x []float32, mask []uint8, b, n, c int) []float32 { return meanPool(x, mask, b, n, c) }

func meanPool[T Float](x []T, mask []uint8, b, n, c int) []T {
	checkLen("MeanPool", "x", len(x), b*n*c)
	y := make([]T, b*c)
	for item := range b {
		out := y[item*c : (item+1)*c]
		tokens := 0
		for i := range n {
			if mask != nil && mask[item*n+i] == 0 {
				continue
			}
			tokens++
			for j, v := range x[(item*n+i)*c:][:c] {
				out[j] += v
			}
		}
		for j := range out {
			out[j] /= T(max(tokens, 1))
		}
	}
	return y
}
