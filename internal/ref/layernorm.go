package ref

// layerNormEps is added to the variance. It is the default of PyTorch.
const layerNormEps = 1e-5

// LayerNormArgs are the arguments of [LayerNorm].
type LayerNormArgs struct {
	X            []float32 // [Rows, C]
	Weight, Bias []float32 // [C]
	Add          []float32 // [Period, C] added after the norm, row r % Period to row r; nil: zeros
	Rows, C      int
	Period       int // rows of Add
}

// LayerNorm normalises each row to mean 0 and variance 1, then applies weight and bias.
//
//	x [Rows, C]    weight, bias [C]    add [Period, C] optional    y [Rows, C]
//	y[r] = (x[r] - mean) / sqrt(var + 1e-5) * weight + bias + add[r % Period]    var is the biased variance
func LayerNorm(a LayerNormArgs) []float64 { return layerNorm[float64](a) }

// LayerNorm32 is [LayerNorm] in plain float32.
func LayerNorm32(a LayerNormArgs) []float32 { return layerNorm[float32](a) }

func layerNorm[T Float](a LayerNormArgs) []T {
	const op = "LayerNorm"
	checkLen(op, "x", len(a.X), a.Rows*a.C)
	checkLen(op, "weight", len(a.Weight), a.C)
	checkLen(op, "bias", len(a.Bias), a.C)
	checkOptional(op, "add", a.Add, a.Period*a.C)
	y, weight, bias := make([]T, len(a.X)), convert[T](a.Weight), convert[T](a.Bias)
	copy(y, convert[T](a.X))
	parallel(a.Rows, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row := y[r*a.C : (r+1)*a.C]
			layerNormRow(row, weight, bias)
			for i := range row {
				if a.Add != nil {
					row[i] += T(a.Add[r%a.Period*a.C+i])
				}
			}
		}
	})
	return y
}

// layerNormRow is LayerNorm of one row, in place. It computes the mean first, then the squared deviations (two-pass).
func layerNormRow[T Float](row, weight, bias []T) {
	var sum, squares T
	for _, v := range row {
		sum += v
	}
	mean := sum / T(len(row))
	for _, v := range row {
		squares += (v - mean) * (v - mean)
	}
	deviation := sqrtT(squares/T(len(row)) + layerNormEps)
	for i, v := range row {
		row[i] = (v-mean)/deviation*weight[i] + bias[i]
	}
}
