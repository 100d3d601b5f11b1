package ref

import "math"

// GradientNorm is the Euclidean norm of the finite elements of x, and whether the others exist.
func GradientNorm(x []float32) (norm float64, overflow bool) {
	var sum float64
	for _, v := range x {
		if v-v != 0 { // infinite or NaN
			overflow = true
			continue
		}
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum), overflow
}

// GradientNorm32 is the norm of [GradientNorm] in plain float32; squares may overflow.
func GradientNorm32(x []float32) float32 {
	var sum float32
	for _, v := range x {
		if v-v == 0 {
			sum += v * v
		}
	}
	return sqrtT(sum)
}
