package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRotaryHandComputed(t *testing.T) {
	sin1, cos1, sin3, cos3 := math.Sin(1), math.Cos(1), math.Sin(3), math.Cos(3)
	sinS, cosS := math.Sin(0.03), math.Cos(0.03) // the second pair of D = 4 rotates 100 times more slowly
	for _, c := range []struct {
		name string
		a    RotaryArgs
		want []float64
	}{
		{"one pair, positions 0 and 1", RotaryArgs{X: []float32{1, 2, 3, 4}, Heads: 1, DimHead: 2, Lists: 1, Rows: 2},
			[]float64{1, 2, 3*cos1 - 4*sin1, 4*cos1 + 3*sin1}},
		{"two pairs", RotaryArgs{X: []float32{1, 2, 3, 4}, Heads: 1, DimHead: 4, Lists: 1, Rows: 1, First: 3},
			[]float64{cos3 - 3*sin3, 2*cosS - 4*sinS, 3*cos3 + sin3, 4*cosS + 2*sinS}},
		{"keys of [rows 1, heads 2, K and V 2, D 2]", RotaryArgs{X: []float32{1, 2, 7, 8, 3, 4, 9, 10}, Heads: 2, DimHead: 2, Stride: 8, HeadStride: 4,
			Positions: []int32{1}, Lists: 1, Rows: 1}, []float64{cos1 - 2*sin1, 2*cos1 + sin1, 7, 8, 3*cos1 - 4*sin1, 4*cos1 + 3*sin1, 9, 10}},
		{"second of two routes; an empty slot; two positions out of range", RotaryArgs{X: []float32{1, 2, 3, 4, 5, 6, 7, 8},
			Heads: 1, DimHead: 2, Lists: 2, Rows: 2, Routes: 2, Route: 1, Limit: 4,
			Positions: []int32{0, 0, 1, 1, 0, 0, -1, 4}, Valid: []uint8{1, 1, 1, 0, 1, 1, 1, 1}},
			[]float64{cos1 - 2*sin1, 2*cos1 + sin1, 3, 4, 5, 6, 7, 8}},
	} {
		t.Run(c.name, func(t *testing.T) { assertNear(t, c.want, Rotary(c.a), Rotary32(c.a)) })
	}
	a := RotaryArgs{X: make([]float32, 7), Heads: 1, DimHead: 4, Lists: 1, Rows: 2}
	assertPanics(t, "ref: Rotary: len(x) is 7, want 8", func() { Rotary(a) })
	a.X, a.Valid = make([]float32, 8), make([]uint8, 3)
	assertPanics(t, "ref: Rotary: len(valid) is 3, want 2", func() { Rotary(a) })
	a.Positions = make([]int32, 1)
	assertPanics(t, "ref: Rotary: len(positions) is 1, want 2", func() { Rotary(a) })
}

// TestRotaryIsRelative checks that the dot product of two rotated rows depends only on the difference of their positions.
func TestRotaryIsRelative(t *testing.T) {
	x := normal(1, 2*24, 1)
	at := func(p, q int32) float64 {
		y := Rotary(RotaryArgs{X: x, Positions: []int32{p, q}, Heads: 1, DimHead: 24, Lists: 1, Rows: 2})
		return dot(y[:24], y[24:])
	}
	assert.InDelta(t, at(0, 17), at(100, 117), 1e-12)
	assert.NotEqual(t, at(0, 17), at(0, 18))
}
