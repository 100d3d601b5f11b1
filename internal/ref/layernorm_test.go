package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLayerNorm(t *testing.T) {
	// (1, 3) and (-7, -5) have mean 2 and -6 and variance 1; a row of equal values becomes the bias.
	a := LayerNormArgs{X: []float32{1, 3, 4, 4, -7, -5}, Weight: []float32{2, 3}, Bias: []float32{10, 20}, Rows: 3, C: 2}
	d := 1 / math.Sqrt(1+1e-5)
	want := []float64{10 - 2*d, 20 + 3*d, 10, 20, 10 - 2*d, 20 + 3*d}
	assertNear(t, want, LayerNorm(a), LayerNorm32(a))
	a.Add, a.Period = []float32{100, 200, 1000, 2000}, 2 // rows 0 and 2 get the first row of Add
	for i, add := range []float64{100, 200, 1000, 2000, 100, 200} {
		want[i] += add
	}
	assertNear(t, want, LayerNorm(a), LayerNorm32(a))

	// The result has mean 0 and variance 1, also if the input has a large mean.
	const c = 509
	b := LayerNormArgs{X: normal(1, c, 3), Weight: make([]float32, c), Bias: make([]float32, c), Rows: 1, C: c}
	for i := range c {
		b.X[i] += 1000
		b.Weight[i] = 1
	}
	var sum, squares float64
	for _, v := range LayerNorm(b) {
		sum, squares = sum+v, squares+v*v
	}
	assert.InDelta(t, 0, sum/c, 1e-9)
	assert.InDelta(t, 1, squares/c, 1e-5)
	assert.NoError(t, MaxErr(LayerNorm32(b), LayerNorm(b)).Within(1e-3))

	for _, bad := range []struct {
		want   string
		change func(*LayerNormArgs)
	}{
		{"ref: LayerNorm: len(x) is 6, want 4", func(a *LayerNormArgs) { a.Rows = 2 }},
		{"ref: LayerNorm: len(weight) is 1, want 2", func(a *LayerNormArgs) { a.Weight = a.Weight[:1] }},
		{"ref: LayerNorm: len(bias) is 1, want 2", func(a *LayerNormArgs) { a.Bias = a.Bias[:1] }},
		{"ref: LayerNorm: len(add) is 4, want 6", func(a *LayerNormArgs) { a.Period = 3 }},
	} {
		a := a
		bad.change(&a)
		assertPanics(t, bad.want, func() { LayerNorm(a) })
	}
}
