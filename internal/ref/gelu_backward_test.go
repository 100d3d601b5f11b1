package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGELUBackward(t *testing.T) {
	x, dy := coarse(1, 40, 3), normal(2, 40, 1)
	x[0], x[1], x[2] = 0, 30, -30
	loss := func() (sum float64) {
		for i, v := range x {
			sum += gelu(float64(v)) * float64(dy[i])
		}
		return sum
	}
	dx, dx32 := GELUBackward(x, dy), GELUBackward32(x, dy)
	checkGradient(t, "x", x, loss, dx, dx32)
	assert.InDelta(t, 0.5*float64(dy[0]), dx[0], 1e-12)
	assertPanics(t, "ref: GELUBackward: len(dy) is 1, want 2", func() { GELUBackward(x[:2], dy[:1]) })
}
