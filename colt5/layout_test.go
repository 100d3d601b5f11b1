package colt5

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLayout(t *testing.T) {
	// Without a limit memory is used again at once; with one, only where there is no other room, and then what rests longest.
	tight, wide := layout{}, layout{limit: 4096}
	var at [2][]uint64
	for i, l := range []*layout{&tight, &wide} {
		for range 6 {
			p := l.take(1024)
			at[i] = append(at[i], p.offset)
			l.give(p)
		}
	}
	assert.Equal(t, []uint64{0, 0, 0, 0, 0, 0}, at[0])
	assert.Equal(t, []uint64{0, 1024, 2048, 3072, 0, 1024}, at[1])
	assert.Equal(t, []uint64{1024, 4096}, []uint64{tight.peak, wide.peak})

	// Small pieces leave the room for large ones whole.
	l := layout{limit: 100 << 10}
	small, large := l.take(100), l.take(60<<10)
	assert.Equal(t, []uint64{100<<10 - 256, 0}, []uint64{small.offset, large.offset})
	assert.Equal(t, piece{}, l.take(0))
	l.give(small, small, piece{})
	assert.Len(t, l.resting, 1, "giving back twice does nothing")
	l.take(100 << 10)
	assert.Greater(t, l.peak, l.limit, "there was no room")
}

// TestRandomLayouts: pieces that are needed at the same time share nothing, whatever was given back, and rest as long as they can.
func TestRandomLayouts(t *testing.T) {
	for seed := range uint64(50) {
		run := func(limit uint64) layout {
			r := rand.New(rand.NewPCG(seed, 4))
			l := layout{limit: limit}
			var live []piece
			for range 300 {
				if n := len(live); n > 0 && (n > 12 || r.IntN(2) == 0) {
					i := r.IntN(n)
					l.give(live[i])
					live = slices.Delete(live, i, i+1)
					continue
				}
				p := l.take(uint64(1 + r.IntN(1<<r.IntN(20))))
				require.Zero(t, p.offset%pieceAlignment)
				require.LessOrEqual(t, p.offset+p.size, l.peak)
				for _, o := range live {
					require.True(t, p.end() <= o.offset || o.end() <= p.offset, fmt.Sprint(seed, p, o))
				}
				live = append(live, p)
			}
			return l
		}
		tight := run(0)
		assert.Equal(t, tight.peak, run(0).peak, "the same every time")
		wide := run(4 * tight.peak)
		assert.LessOrEqual(t, wide.peak, wide.limit)
	}
}
