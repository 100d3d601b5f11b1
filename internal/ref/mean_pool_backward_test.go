package ref

import "testing"

func TestMeanPoolBackward(t *testing.T) {
	for _, mask := range [][]uint8{nil, {1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0}} { // the second item has no valid token
		x, dy := coarse(1, 3*4*5, 1), normal(2, 3*5, 1)
		loss := func() float64 { return lossOf(MeanPool(x, mask, 3, 4, 5), dy) }
		checkGradient(t, "x", x, loss, MeanPoolBackward(dy, mask, 3, 4, 5), MeanPoolBackward32(dy, mask, 3, 4, 5))
	}
	assertPanics(t, "ref: MeanPoolBackward: len(dy) is 1, want 2", func() { MeanPoolBackward(make([]float32, 1), nil, 1, 4, 2) })
}
