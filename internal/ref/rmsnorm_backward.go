package ref

import "math"

// RMSNormBackward is the gradient of [RMSNorm].
//
//	x, dy, dx [Rows, C]    gamma, dgamma [C]    s = sqrt(C) / max(||x[r]||_2, 1e-12)
//
//	dgamma[i] = sum_r dy[r, i] * x[r, i] * s
//	dx[r, i]  = s * (gamma[i] * dy[r, i] - x[r, i] * sum_j gamma[j] * dy[r, j] * x[r, j] / ||x[r]||^2)
//
// The sum over j is left out where the norm is at most 1e-12: there s is constant.
func RMSNormBackward(x, gamma, dy []float32, rows, c int) (dx, dgamma []float64) {
	return rmsNormBackward(convert[float64](x), convert[float64](gamma), convert[float64](dy), rows, c)
}

// RMSNormBackward32 is [RMSNormBackward] in plain float32.
func RMSNormBackward32(x, gamma, dy []float32, rows, c int) (dx, dgamma []float32) {
	return rmsNormBackward(x, gamma, dy, rows, c)
}

func rmsNormBackward[T Float](x, gamma, dy []T, rows, c int) (dx, dgamma []T) {
	checkLen("RMSNormBackward", "x", len(x), rows*c)
	checkLen("RMSNormBackward", "gamma", len(gamma), c)
	checkLen("RMSNormBackward", "dy", len(dy), rows*c)
	dx, dgamma = make([]T, rows*c), make([]T, c)
	for at := 0; at < rows*c; at += c {
		rmsNormRowBackward(dx[at:at+c], dgamma, x[at:at+c], gamma, dy[at:at+c])
	}
	return dx, dgamma
}

// rmsNormRowBackward adds the gradients of one row to dx and dgamma.
func rmsNormRowBackward[T Float](dx, dgamma, x, gamma, dy []T) {
	length := norm(x)
	scale := T(math.Sqrt(float64(len(x)))) / max(length, normFloor)
	var along T // sum_j gamma[j] * dy[j] * x[j] / ||x||^2
	for i, v := range x {
		dgamma[i] += dy[i] * v * scale
		if length > normFloor {
			along += gamma[i] * dy[i] * (v / length)
		}
	}
	for i, v := range x {
		dx[i] += scale * gamma[i] * dy[i]
		if length > normFloor {
			dx[i] -= scale * (v / length) * along
		}
	}
}
