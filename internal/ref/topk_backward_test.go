package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestTopKBackward compares with finite differences of the values times the soft scores, which is what the values with
// their straight-through gates are differentiated as: gates * x with gates = soft scores.
func TestTopKBackward(t *testing.T) {
	const rows, n, k = 3, 13, 4
	x, mask := coarse(1, rows*n, 1), randomMask(2, rows*n, 0.7)
	copy(mask[n:2*n], []uint8{0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}) // fewer than k
	clear(mask[2*n:])
	c := TopKConfig{K: k, Ratio: 9. / 8, Iters: 8, Eps: 1}
	for _, m := range [][]uint8{nil, mask} {
		d := TopKUpstream{CoorDescentValues: normal(3, rows*k, 1), Gates: normal(4, rows*k, 1)}
		soft := func() float64 {
			r := TopK(x, m, rows, n, c)
			return lossOf(r.CoorDescentValues, d.CoorDescentValues) + lossOf(r.CoorDescentValues, d.Gates)
		}
		checkGradient(t, "soft scores and gates", x, soft, TopKBackward(x, m, rows, n, c, d), TopKBackward32(x, m, rows, n, c, d))

		plain := TopKConfig{K: k, NonDifferentiable: true}
		v := TopKUpstream{Values: normal(5, rows*k, 1)}
		values := func() float64 { return lossOf(TopK(x, m, rows, n, plain).Values, v.Values) }
		checkGradient(t, "values", x, values, TopKBackward(x, m, rows, n, plain, v), TopKBackward32(x, m, rows, n, plain, v))

		// Differentiable values have in addition the gradient of soft scores with upstream dvalues * x.
		r := TopK(x, m, rows, n, c)
		gates := make([]float32, rows*k)
		for i, value := range r.Values {
			gates[i] = v.Values[i] * float32(value)
		}
		want := addTensors(TopKBackward(x, m, rows, n, plain, v), TopKBackward(x, m, rows, n, c, TopKUpstream{Gates: gates}))
		assert.InDeltaSlice(t, want, TopKBackward(x, m, rows, n, c, v), 1e-6)
	}
	assertPanics(t, "ref: TopKBackward: len(gates) is 1, want 12", func() {
		TopKBackward(x, nil, rows, n, c, TopKUpstream{Gates: make([]float32, 1)})
	})
}
