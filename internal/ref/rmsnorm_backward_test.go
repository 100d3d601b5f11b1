package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRMSNormBackward(t *testing.T) {
	for _, c := range []int{1, 2, 7, 33} {
		const rows = 3
		x, gamma, dy := coarse(1, rows*c, 2), coarse(2, c, 1), normal(3, rows*c, 1)
		for i := range x {
			x[i] += 1 // with one column the output is sign(x): no row may be near 0
		}
		loss := func() float64 { return lossOf(RMSNorm(x, gamma, rows, c), dy) }
		dx, dgamma := RMSNormBackward(x, gamma, dy, rows, c)
		dx32, dgamma32 := RMSNormBackward32(x, gamma, dy, rows, c)
		checkGradient(t, "x", x, loss, dx, dx32)
		checkGradient(t, "gamma", gamma, loss, dgamma, dgamma32)
	}
	// A row of zeros is divided by the constant 1e-12. A row of tiny values is not.
	dx, dgamma := RMSNormBackward([]float32{0, 0, 0, 0}, []float32{1, 2, 3, 4}, []float32{1, -1, 0.5, 0}, 1, 4)
	assert.InDeltaSlice(t, []float64{2e12, -4e12, 3e12, 0}, dx, 1)
	assert.Equal(t, []float64{0, 0, 0, 0}, dgamma)
	dx, _ = RMSNormBackward([]float32{3e-11, 4e-11}, []float32{1, 1}, []float32{1, 0}, 1, 2)
	assert.InEpsilonSlice(t, []float64{math.Sqrt2 / 5e-11 * 0.64, -math.Sqrt2 / 5e-11 * 0.48}, dx, 1e-6)
	assertPanics(t, "ref: RMSNormBackward: len(dy) is 1, want 2", func() {
		RMSNormBackward([]float32{1, 2}, []float32{1}, []float32{1}, 2, 1)
	})
}
