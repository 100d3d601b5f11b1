package colt5

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// NaN and infinity in one item do not reach the others, and nothing hangs.
func TestNaNItemsAreAlone(t *testing.T) {
	b := newBench(t)
	for _, s := range b.subjects() {
		if s.ids > 0 {
			continue
		}
		for _, masks := range []bool{false, true} {
			for _, value := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
				v := s.some(1, 2, masks)
				other := s.some(2, 2, masks)
				for i := range other.x {
					other.x[i] = value
				}
				for i := range other.second {
					other.second[i] = value
				}
				run := func(v values) []float32 {
					y, in := b.upload(s, 2, v)
					require.NoError(t, y.Write(nans(y.Len())))
					require.NoError(t, s.forward(y, in))
					return b.read(y)
				}
				good := run(v)
				for j := range 2 {
					got := run(s.with(v, other, j, 2))
					i, size := 1-j, len(good)/2
					assert.True(t, sameBits(good[i*size:][:size], got[i*size:][:size]), "%s item %d %v %v", s.name, i, masks, value)
				}
			}
		}
	}
}
