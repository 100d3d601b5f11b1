package ref

// MeanPool is the mean over the tokens of each item.
//
//	x [B, N, C]    y [B, C]
func MeanPool(x []float32, b, n, c int) []float64 { return meanPool(convert[float64](x), b, n, c) }

// MeanPool32 is [MeanPool] in plain float32.
func MeanPool32(x []float32, b, n, c int) []float32 { return meanPool(x, b, n, c) }

func meanPool[T Float](x []T, b, n, c int) []T {
	checkLen("MeanPool", "x", len(x), b*n*c)
	y := make([]T, b*c)
	for item := range b {
		out := y[item*c : (item+1)*c]
		for i := range n {
			for j, v := range x[(item*n+i)*c:][:c] {
				out[j] += v
			}
		}
		for j := range out {
			out[j] /= T(n)
		}
	}
	return y
}
