package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRotaryBackward(t *testing.T) {
	a := RotaryArgs{
		X: coarse(1, 2*3*2*4, 1), Positions: []int32{5, 0, 7, 1, 2, 3, 9, 9, 4, -1, 100, 6},
		Valid: []uint8{1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1},
		Heads: 2, DimHead: 4, Lists: 2, Rows: 3, Routes: 2, Route: 1, Limit: 50,
	}
	for _, whole := range []bool{true, false} {
		if !whole { // positions in order, and only the second half of each head's row
			a = RotaryArgs{X: coarse(2, 2*5*2*8, 1), Heads: 2, DimHead: 4, HeadStride: 8, Lists: 2, Rows: 5, First: 3}
		}
		x, dy := a.X, normal(3, len(a.X), 1)
		upstream := a
		upstream.X = dy
		checkGradient(t, "x", x, func() float64 { return lossOf(Rotary(a), dy) }, RotaryBackward(upstream), RotaryBackward32(upstream))
		// The rotation is orthogonal.
		a.X = Rotary32(a)
		assert.NoError(t, MaxErr(RotaryBackward32(a), convert[float64](x)).Within(1e-5))
	}
}
