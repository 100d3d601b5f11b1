package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestScatterBackward(t *testing.T) {
	for _, add := range []bool{false, true} {
		a := ScatterArgs{
			Base: coarse(1, 2*5*3, 1), Row: coarse(2, 3, 1), Value: coarse(3, 2*3*3, 1), Indices: []int32{4, 0, 1, 2, 0, 3},
			Score: []float32{0.5, 2, 0, -1, 3, 1}, Valid: []uint8{1, 1, 1, 1, 0, 1}, Add: add, B: 2, N: 5, C: 3, K: 3,
		}
		dy := normal(4, 2*5*3, 1)
		loss := func() float64 { return lossOf(Scatter(a), dy) }
		g, g32 := ScatterBackward(a, dy), ScatterBackward32(a, dy)
		checkGradient(t, "base", a.Base, loss, g.Base, g32.Base)
		checkGradient(t, "row", a.Row, loss, g.Row, g32.Row)
		checkGradient(t, "value", a.Value, loss, g.Value, g32.Value)
		for i, v := range a.Score {
			if v == 0 || a.Valid[i] == 0 {
				assert.Zero(t, g.Score[i])
			} else {
				checkGradient(t, "score", a.Score[i:i+1], loss, g.Score[i:i+1], g32.Score[i:i+1])
			}
		}
		a.Base, a.Row, a.Score, a.Valid, a.Indices = nil, nil, nil, nil, []int32{4, 0, 1, 2, 0, 3}
		g, g32 = ScatterBackward(a, dy), ScatterBackward32(a, dy)
		checkGradient(t, "value alone", a.Value, loss, g.Value, g32.Value)
		assert.Equal(t, [3]bool{true, true, true}, [3]bool{g.Base == nil, g.Row == nil, g.Score == nil})
		assertPanics(t, "ref: ScatterBackward: len(dy) is 1, want 30", func() { ScatterBackward(a, dy[:1]) })
	}
}
