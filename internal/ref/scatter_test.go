package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestScatter(t *testing.T) {
	value, base := []float32{1, 2, 3, 4, 10, 20, 30, 40}, []float32{7, 7, 8, 8, 9, 9, 70, 70, 80, 80, 90, 90} // 2 items, 3 rows of 2, 2 slots
	indices := []int32{2, 0, 1, 2}
	for _, c := range []struct {
		name string
		a    ScatterArgs
		want []float64
	}{
		{"onto zeros", ScatterArgs{}, []float64{3, 4, 0, 0, 1, 2, 0, 0, 10, 20, 30, 40}},
		{"onto a base", ScatterArgs{Base: base}, []float64{3, 4, 8, 8, 1, 2, 70, 70, 10, 20, 30, 40}},
		{"add", ScatterArgs{Base: base, Add: true}, []float64{10, 11, 8, 8, 10, 11, 70, 70, 90, 100, 120, 130}},
		{"add with score", ScatterArgs{Base: base, Add: true, Score: []float32{2, 1, 0.5, 0}}, []float64{10, 11, 8, 8, 11, 13, 70, 70, 85, 90, 90, 90}},
		{"an empty slot writes nothing", ScatterArgs{Base: base, Valid: []uint8{0, 1, 1, 0}, Indices: []int32{99, 0, 0, -1}},
			[]float64{3, 4, 8, 8, 9, 9, 10, 20, 80, 80, 90, 90}},
		{"a slot with score 0 writes nothing", ScatterArgs{Base: base, Score: []float32{0, 1, 1, 0}, Indices: []int32{0, 0, 0, 0}},
			[]float64{3, 4, 8, 8, 9, 9, 10, 20, 80, 80, 90, 90}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.Value, c.a.B, c.a.N, c.a.C, c.a.K = value, 2, 3, 2, 2
			if c.a.Indices == nil {
				c.a.Indices = indices
			}
			assertNear(t, c.want, Scatter(c.a), Scatter32(c.a))
		})
	}
	assert.Equal(t, []float32{7, 7, 8, 8, 9, 9, 70, 70, 80, 80, 90, 90}, base, "the base must not change")
	a := ScatterArgs{Value: value, Indices: []int32{0, 1, 2, 3}, B: 2, N: 3, C: 2, K: 2}
	assertPanics(t, "ref: Scatter: indices holds 3, want 0..2", func() { Scatter(a) })
	a.Valid = []uint8{1}
	assertPanics(t, "ref: Scatter: len(valid) is 1, want 4", func() { Scatter(a) })
	a.Base = value
	assertPanics(t, "ref: Scatter: len(base) is 8, want 12", func() { Scatter(a) })
}

// TestScatterInvertsGather gathers rows by a permutation and scatters them by the same permutation.
func TestScatterInvertsGather(t *testing.T) {
	x, order := normal(1, 7*3, 1), []int32{3, 0, 6, 1, 5, 2, 4}
	rows := Gather32(GatherArgs{X: x, Indices: order, B: 1, N: 7, C: 3, K: 7})
	assert.NotEqual(t, x, rows)
	assert.Equal(t, x, Scatter32(ScatterArgs{Value: rows, Indices: order, B: 1, N: 7, C: 3, K: 7}))
}
