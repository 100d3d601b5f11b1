package ref

import "testing"

func TestPermuteBackward(t *testing.T) {
	x, dy := coarse(1, 2*3*5, 1), normal(2, 2*3*5, 1)
	shape, strides := []int{5, 2, 3}, []int{1, 15, 5}
	loss := func() float64 { return lossOf(convert[float64](Permute(x, shape, strides)), dy) }
	checkGradient(t, "x", x, loss, PermuteBackward(convert[float64](dy), shape, strides), PermuteBackward(dy, shape, strides))
	assertPanics(t, "ref: Permute: len(x) is 3, want 30", func() { PermuteBackward(dy[:3], shape, strides) })
}
