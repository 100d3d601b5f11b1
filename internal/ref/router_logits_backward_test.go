package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRouterLogitsBackward(t *testing.T) {
	for _, c := range []int{2, 9} {
		for _, perItem := range []bool{false, true} {
			for _, scale := range []float64{0, 8} {
				a := RouterLogitsArgs{X: coarse(1, 2*5*c, 1), Tokens: coarse(2, 3*c, 1), B: 2, N: 5, C: c, R: 3,
					CosineScale: scale, TokensPerItem: perItem}
				if perItem {
					a.Tokens = coarse(2, 2*3*c, 1)
				}
				for i := range a.X {
					a.X[i] += 3 // away from 0, where the cosine has no derivative
				}
				for i := range a.Tokens {
					a.Tokens[i] += float32(1 - 2*(i%2))
				}
				dy := normal(3, 2*3*5, 1)
				loss := func() float64 { return lossOf(RouterLogits(a), dy) }
				dx, dtokens := RouterLogitsBackward(a, dy)
				dx32, dtokens32 := RouterLogitsBackward32(a, dy)
				checkGradient(t, "x", a.X, loss, dx, dx32)
				checkGradient(t, "tokens", a.Tokens, loss, dtokens, dtokens32)
			}
		}
	}
	// The unit vector of a zero row is row / 1e-12.
	a := RouterLogitsArgs{X: []float32{0, 0}, Tokens: []float32{3, 4}, B: 1, N: 1, C: 2, R: 1, CosineScale: 8}
	dx, dtokens := RouterLogitsBackward(a, []float32{1})
	assert.InDeltaSlice(t, []float64{8 * 0.6e12, 8 * 0.8e12}, dx, 1)
	assert.Equal(t, []float64{0, 0}, dtokens)
	assertPanics(t, "ref: RouterLogitsBackward: len(dlogits) is 2, want 1", func() { RouterLogitsBackward(a, []float32{1, 2}) })
}
