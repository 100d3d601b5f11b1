package ref

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestDropout(t *testing.T) {
	a := DropoutArgs{X: coarse(1, 101, 1), Seed: 0x123456789abcdef0, Step: 3, Layer: 5, First: 1<<34 - 7, Rate: 0.3}
	upstream := normal(2, 101, 1)
	loss := func() float64 { return lossOf(Dropout(a), upstream) }
	back := a
	back.X = upstream
	checkGradient(t, "x", a.X, loss, Dropout(back), Dropout32(back))

	// A part of a tensor has the same elements.
	part := a
	part.X, part.First = a.X[10:], a.First+10
	assert.Equal(t, Dropout(a)[10:], Dropout(part))

	// Rates, and the sum, over many elements; seeds, steps and layers differ.
	const n = 100000
	a.X = slices.Repeat([]float32{1}, n)
	kept, same := map[string][]float64{"base": Dropout(a)}, a
	same.Seed++
	kept["seed"], same = Dropout(same), a
	same.Seed += 1 << 32
	kept["seed high"], same = Dropout(same), a
	same.Step++
	kept["step"], same = Dropout(same), a
	same.Layer++
	kept["layer"] = Dropout(same)
	for name, y := range kept {
		equal, sum := 0, 0.0
		for i, v := range y {
			sum += v
			if v == kept["base"][i] {
				equal++
			}
		}
		assert.InDelta(t, 1, sum/n, 0.01, name)
		if name != "base" {
			assert.InDelta(t, 0.7*0.7+0.3*0.3, float64(equal)/n, 0.01, name)
		}
	}
	a.Rate = 0
	assert.Equal(t, convert[float64](a.X), Dropout(a))
}
