package ref

import "math"

// GELUBackward is the gradient of the exact GELU x * Phi(x), with the normal distribution function Phi and density phi.
//
//	dx = dy * (Phi(x) + x * phi(x))
func GELUBackward(x, dy []float32) []float64 {
	return geluBackward(convert[float64](x), convert[float64](dy))
}

// GELUBackward32 is [GELUBackward] in plain float32.
func GELUBackward32(x, dy []float32) []float32 { return geluBackward(x, dy) }

func geluBackward[T Float](x, dy []T) []T {
	checkLen("GELUBackward", "dy", len(dy), len(x))
	dx := make([]T, len(x))
	for i, v := range x {
		dx[i] = dy[i] * geluSlope(v)
	}
	return dx
}

// geluSlope returns the derivative of gelu.
func geluSlope[T Float](x T) T {
	distribution := T(0.5) * (1 + T(math.Erf(float64(x)/math.Sqrt2)))
	return distribution + x*expT(-x*x/2)*T(1/math.Sqrt(2*math.Pi))
}
