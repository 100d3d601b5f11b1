package ref

import "cmp"

// TopKConfig is the config of a differentiable top-k. [DefaultTopKConfig] returns the defaults of the PyTorch
// implementation.
type TopKConfig struct {
	K                 int     // >= 1
	Ratio             float64 // k of the coordinate descent is min(K * Ratio, N)
	Iters             int
	Eps               float64
	EpsInit           float64 // 0: Eps
	EpsDecay          float64 // 0: 1
	NonDifferentiable bool    // no coordinate descent: CoorDescentValues and Gates are nil
}

// DefaultTopKConfig returns the defaults of the PyTorch implementation: ratio 9/8, 20 iterations, eps 0.1.
func DefaultTopKConfig(k int) TopKConfig {
	return TopKConfig{K: k, Ratio: 9.0 / 8, Iters: 20, Eps: 0.1}
}

// TopKResult is the result of [TopK]. Empty slots have value 0, index -1 and gate 0.
type TopKResult = TopKResultOf[float64]

// TopKResultOf is a [TopKResult] in one precision.
type TopKResultOf[T Float] struct {
	Values            []T     // [Rows, K] the largest valid entries in descending order
	Indices           []int32 // [Rows, K]
	CoorDescentValues []T     // [Rows, K] their soft scores
	Gates             []T     // [Rows, K] 1; their gradient passes to the soft scores (straight-through)
}

// TopK is the forward pass of a differentiable top-k of each row.
//
//	x [Rows, N]    mask [Rows, N] optional    values, indices, coor_descent_values, gates [Rows, K]
//	soft = coordinate descent of x with k = min(K * Ratio, N)
func TopK(x []float32, mask []uint8, rows, n int, c TopKConfig) TopKResult {
	return topK(convert[float64](x), mask, rows, n, c)
}

// TopK32 is [TopK] in plain float32.
func TopK32(x []float32, mask []uint8, rows, n int, c TopKConfig) TopKResultOf[float32] {
	return topK(x, mask, rows, n, c)
}

func topK[T Float](x []T, mask []uint8, rows, n int, c TopKConfig) TopKResultOf[T] {
	selected := selectRows(x, mask, rows, n, c.K)
	r := TopKResultOf[T]{Values: make([]T, rows*c.K), Indices: selected.Indices}
	var soft []T
	if !c.NonDifferentiable {
		soft = coorDescent(x, mask, rows, n, c.descent(n))
		r.CoorDescentValues, r.Gates = make([]T, rows*c.K), make([]T, rows*c.K)
	}
	for slot := range r.Indices {
		if selected.Valid[slot] == 0 {
			r.Indices[slot] = -1
			continue
		}
		at := slot/c.K*n + int(r.Indices[slot])
		r.Values[slot] = x[at]
		if soft != nil {
			r.CoorDescentValues[slot], r.Gates[slot] = soft[at], 1
		}
	}
	return r
}

// descent returns the config of the coordinate descent of rows of n entries.
func (c TopKConfig) descent(n int) CoorDescentConfig {
	return CoorDescentConfig{
		K: min(float64(c.K)*c.Ratio, float64(n)), Iters: c.Iters, Eps: c.Eps, EpsInit: c.EpsInit, EpsDecay: cmp.Or(c.EpsDecay, 1),
	}
}
