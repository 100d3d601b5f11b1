package ref

// LayerNormGrads are the gradients of [LayerNorm].
type LayerNormGrads = LayerNormGradsOf[float64]

// LayerNormGradsOf is [LayerNormGrads] in one precision.
type LayerNormGradsOf[T Float] struct {
	X            []T // [Rows, C]
	Weight, Bias []T // [C]
	Add          []T // [Period, C]; nil without Add
}

// LayerNormBackward is the gradient of [LayerNorm].
//
//	dy [Rows, C]    n[r] = (x[r] - mean) / sqrt(var + 1e-5), g = dy * weight, means are over the row
//
//	dx[r]   = (g - mean(g) - n * mean(g * n)) / sqrt(var + 1e-5)
//	dweight = sum_r dy[r] * n[r]    dbias = sum_r dy[r]    dadd[p] = sum of dy[r] over r % Period = p
func LayerNormBackward(a LayerNormArgs, dy []float32) LayerNormGrads {
	return layerNormArgsBackward[float64](a, dy)
}

// LayerNormBackward32 is [LayerNormBackward] in plain float32.
func LayerNormBackward32(a LayerNormArgs, dy []float32) LayerNormGradsOf[float32] {
	return layerNormArgsBackward[float32](a, dy)
}

func layerNormArgsBackward[T Float](a LayerNormArgs, dy []float32) LayerNormGradsOf[T] {
	checkLen("LayerNormBackward", "bias", len(a.Bias), a.C)
	checkOptional("LayerNormBackward", "add", a.Add, a.Period*a.C)
	g := layerNormBackward(convert[T](a.X), convert[T](a.Weight), convert[T](dy), a.Rows, a.C)
	if a.Add != nil {
		g.Add = make([]T, a.Period*a.C)
		for i, v := range dy {
			g.Add[i%len(g.Add)] += T(v)
		}
	}
	return g
}

func layerNormBackward[T Float](x, weight, dy []T, rows, c int) LayerNormGradsOf[T] {
	const op = "LayerNormBackward"
	checkLen(op, "x", len(x), rows*c)
	checkLen(op, "weight", len(weight), c)
	checkLen(op, "dy", len(dy), rows*c)
	g := LayerNormGradsOf[T]{X: make([]T, rows*c), Weight: make([]T, c), Bias: make([]T, c)}
	for at := 0; at < rows*c; at += c {
		layerNormRowBackward(g.X[at:at+c], g.Weight, g.Bias, x[at:at+c], weight, dy[at:at+c])
	}
	return g
}

// layerNormRowBackward writes the gradient of one row to dx, and adds to dweight and dbias.
func layerNormRowBackward[T Float](dx, dweight, dbias, x, weight, dy []T) {
	count := T(len(x))
	var sum, squares, mean, along T
	for _, v := range x {
		sum += v
	}
	center := sum / count
	for _, v := range x {
		squares += (v - center) * (v - center)
	}
	deviation := sqrtT(squares/count + layerNormEps)
	for i, v := range x {
		n := (v - center) / deviation
		dweight[i] += dy[i] * n
		dbias[i] += dy[i]
		mean += dy[i] * weight[i] / count
		along += dy[i] * weight[i] * n / count
	}
	for i, v := range x {
		dx[i] = (dy[i]*weight[i] - mean - (v-center)/deviation*along) / deviation
	}
}
