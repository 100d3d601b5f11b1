package ref

// ColumnSum is the sum over the rows of x [Rows, C], of length C, added to base if that is not nil.
func ColumnSum(x, base []float32, c int) []float64 {
	return columnSum(convert[float64](x), convert[float64](base), c)
}

// ColumnSum32 is [ColumnSum] in plain float32.
func ColumnSum32(x, base []float32, c int) []float32 { return columnSum(x, base, c) }

func columnSum[T Float](x, base []T, c int) []T {
	y := make([]T, c)
	if len(base) > 0 {
		checkLen("ColumnSum", "base", len(base), c)
		copy(y, base)
	}
	for i, v := range x {
		y[i%c] += v
	}
	return y
}
