package ref

import "math"

// normFloor is the lower bound of the norm in a division.
const normFloor = 1e-12

// RMSNorm scales each row to norm sqrt(C), then multiplies by gamma.
//
//	x [Rows, C]    gamma [C]    y [Rows, C]
//	y[r, i] = x[r, i] / max(||x[r]||_2, 1e-12) * sqrt(C) * gamma[i]
func RMSNorm(x, gamma []float32, rows, c int) []float64 {
	return rmsNorm(convert[float64](x), convert[float64](gamma), rows, c)
}

// RMSNorm32 is [RMSNorm] in plain float32.
func RMSNorm32(x, gamma []float32, rows, c int) []float32 {
	return rmsNorm(x, gamma, rows, c)
}

func rmsNorm[T Float](x, gamma []T, rows, c int) []T {
	checkLen("RMSNorm", "x", len(x), rows*c)
	checkLen("RMSNorm", "gamma", len(gamma), c)
	y := make([]T, rows*c)
	parallel(rows, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			rmsNormRow(y[r*c:(r+1)*c], x[r*c:(r+1)*c], gamma)
		}
	})
	return y
}

// rmsNormRow writes the RMSNorm of row x to y. Both may be the same slice.
func rmsNormRow[T Float](y, x, gamma []T) {
	scale := T(math.Sqrt(float64(len(x)))) / max(norm(x), normFloor)
	for i, v := range x {
		y[i] = v * scale * gamma[i]
	}
}

// norm returns ||x||_2.
func norm[T Float](x []T) T {
	return sqrtT(dot(x, x))
}
