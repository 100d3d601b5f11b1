package ref

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGatherBackward(t *testing.T) {
	a := GatherArgs{
		X: coarse(1, 2*4*3, 1), Indices: []int32{3, 0, 3, 1, 0, 2, 2, 2, 1, 0}, Score: []float32{1, -0.5, 2, 0, 1, 3, 0.25, 1, 1, 1},
		Valid: []uint8{1, 1, 1, 1, 0, 1, 1, 1, 1, 1}, B: 2, N: 4, C: 3, K: 5,
	}
	dy := normal(2, 2*5*3, 1)
	loss := func() float64 { return lossOf(Gather(a), dy) }
	dx, dscore := GatherBackward(a, dy)
	dx32, dscore32 := GatherBackward32(a, dy)
	checkGradient(t, "x", a.X, loss, dx, dx32)
	assert.Zero(t, dscore[3], "score 0")
	assert.Zero(t, dscore[4], "empty")
	checkGradient(t, "score", a.Score[:3], loss, dscore[:3], dscore32[:3])
	checkGradient(t, "score", a.Score[5:], loss, dscore[5:], dscore32[5:])
	a.Score, a.Valid = nil, nil
	dx, dscore = GatherBackward(a, dy)
	dx32, _ = GatherBackward32(a, dy)
	checkGradient(t, "x without scores", a.X, loss, dx, dx32)
	assert.Nil(t, dscore)
	assertPanics(t, "ref: GatherBackward: len(dy) is 3, want 30", func() { GatherBackward(a, dy[:3]) })
	a.Indices[0] = 4
	assertPanics(t, "ref: GatherBackward: indices holds 4, want 0..3", func() { GatherBackward(a, dy) })
}
