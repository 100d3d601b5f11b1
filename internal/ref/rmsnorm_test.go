package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRMSNorm(t *testing.T) {
	// (3, 4) has norm 5; a row of zeros stays zero; a tiny row is divided by 1e-12 instead of its norm.
	x, gamma := []float32{3, 4, 0, 0, 3e-13, 4e-13}, []float32{1, -2}
	want := []float64{3. / 5 * math.Sqrt2, -8. / 5 * math.Sqrt2, 0, 0, float64(x[4]) * 1e12 * math.Sqrt2, float64(x[5]) * -2e12 * math.Sqrt2}
	assertNear(t, want, RMSNorm(x, gamma, 3, 2), RMSNorm32(x, gamma, 3, 2))

	// The result has norm sqrt(C) for any scale of the row.
	for _, scale := range []float64{1e-6, 1, 1e6} {
		x := normal(1, 513, scale)
		ones := make([]float32, 513)
		for i := range ones {
			ones[i] = 1
		}
		sum := 0.0
		for _, v := range RMSNorm(x, ones, 1, 513) {
			sum += v * v
		}
		assert.InDelta(t, 513, sum, 1e-9)
		assert.NoError(t, MaxErr(RMSNorm32(x, ones, 1, 513), RMSNorm(x, ones, 1, 513)).Within(1e-5))
	}
	assertPanics(t, "ref: RMSNorm: len(x) is 6, want 4", func() { RMSNorm(x, gamma, 2, 2) })
	assertPanics(t, "ref: RMSNorm: len(gamma) is 2, want 3", func() { RMSNorm32(x, gamma, 2, 3) })
}
