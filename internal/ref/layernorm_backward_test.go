package ref

import "testing"

func TestLayerNormBackward(t *testing.T) {
	for _, c := range []int{1, 3, 5, 32} {
		a := LayerNormArgs{X: coarse(1, 5*c, 2), Weight: coarse(2, c, 1), Bias: coarse(3, c, 1), Add: coarse(4, 2*c, 1),
			Rows: 5, C: c, Period: 2}
		dy := normal(5, 5*c, 1)
		loss := func() float64 { return lossOf(LayerNorm(a), dy) }
		g, g32 := LayerNormBackward(a, dy), LayerNormBackward32(a, dy)
		checkGradient(t, "x", a.X, loss, g.X, g32.X)
		checkGradient(t, "weight", a.Weight, loss, g.Weight, g32.Weight)
		checkGradient(t, "bias", a.Bias, loss, g.Bias, g32.Bias)
		checkGradient(t, "add", a.Add, loss, g.Add, g32.Add)
	}
	assertPanics(t, "ref: LayerNormBackward: len(dy) is 1, want 2", func() {
		LayerNormBackward(LayerNormArgs{X: make([]float32, 2), Weight: make([]float32, 2), Bias: make([]float32, 2),
			Rows: 1, C: 2}, make([]float32, 1))
	})
}
