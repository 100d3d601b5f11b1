package ref

// ColumnSum is the sum over the rows of each item of x [Batch, Rows, C], [Batch, C], added to base if that is not nil.
// Rows whose skip [Batch, Rows] is not 0 are left out; nil: none is.
func ColumnSum(x []float32, skip []uint32, base []float32, batch, c int) []float64 {
	return columnSum(convert[float64](x), skip, convert[float64](base), batch, c)
}

// ColumnSum32 is [ColumnSum] in plain float32.
func ColumnSum32(x []float32, skip []uint32, base []float32, batch, c int) []float32 {
	return columnSum(x, skip, base, batch, c)
}

func columnSum[T Float](x []T, skip []uint32, base []T, batch, c int) []T {
	rows := len(x) / c / batch
	checkLen("ColumnSum", "x", len(x), batch*rows*c)
	checkOptional("ColumnSum", "skip", skip, batch*rows)
	checkOptional("ColumnSum", "base", base, batch*c)
	y := make([]T, batch*c)
	copy(y, base)
	for i, v := range x {
		if row := i / c; skip == nil || skip[row] == 0 {
			y[row/rows*c+i%c] += v
		}
	}
	return y
}
