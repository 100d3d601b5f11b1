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
	tight, wide := arena{}, arena{limit: 4096}
	var at [2][]uint64
	for i, l := range []*arena{&tight, &wide} {
		for range 6 {
			p := l.alloc(1024)
			at[i] = append(at[i], p.offset)
			l.release(p)
		}
	}
	assert.Equal(t, []uint64{0, 0, 0, 0, 0, 0}, at[0])
	assert.Equal(t, []uint64{0, 1024, 2048, 3072, 0, 1024}, at[1])
	assert.Equal(t, []uint64{1024, 4096}, []uint64{tight.peak, wide.peak})

	// A large piece takes the place of what rests, or goes beyond the limit.
	l := arena{limit: 4096}
	small, large := l.alloc(100), l.alloc(3000)
	assert.Equal(t, []uint64{0, 256}, []uint64{small.offset, large.offset})
	assert.Equal(t, extent{}, l.alloc(0))
	l.release(large, large, extent{})
	assert.Len(t, l.deferred, 1, "giving back twice does nothing")
	assert.EqualValues(t, 256, l.alloc(3500).offset)
	assert.Empty(t, l.deferred)
	assert.EqualValues(t, 3840, l.alloc(512).offset)
	assert.Greater(t, l.peak, l.limit, "there was no room")
}

// randomAllocations takes and gives pieces of random sizes, and says what is live at each taking.
func randomAllocations(seed uint64, took func(p extent, live []extent)) func(*builder) {
	return func(b *builder) {
		r := rand.New(rand.NewPCG(seed, 4))
		var live []extent
		for range 300 {
			if n := len(live); n > 0 && (n > 12 || r.IntN(2) == 0) {
				i := r.IntN(n)
				b.arena.release(live[i])
				live = slices.Delete(live, i, i+1)
				continue
			}
			p := b.arena.alloc(uint64(1 + r.IntN(1<<r.IntN(20))))
			took(p, live)
			live = append(live, p)
		}
	}
}

// TestManyPieces: a call that is cut in very many steps is laid out in reasonable time, for few pieces rest.
func TestManyPieces(t *testing.T) {
	l := arena{limit: 1 << 40}
	for range 100_000 {
		p := l.alloc(1000)
		q := l.alloc(300)
		l.release(p, q)
		require.LessOrEqual(t, len(l.deferred), maxDeferred+2)
	}
	assert.LessOrEqual(t, l.peak, uint64((maxDeferred+4)*1024))
}

// TestRandomLayouts: pieces that are needed at the same time share nothing, whatever was given back, and rest as long as they can. What is measured is
// at most a tenth larger than the tightest, and comes out the same when it is recorded.
func TestRandomLayouts(t *testing.T) {
	rested := 0
	for seed := range uint64(50) {
		var b *builder
		wire := randomAllocations(seed, func(p extent, live []extent) {
			require.Zero(t, p.offset%blockAlignment)
			require.LessOrEqual(t, p.offset+p.size, b.peak)
			for _, o := range live {
				require.True(t, p.end() <= o.offset || o.end() <= p.offset, fmt.Sprint(seed, p, o))
			}
		})
		run := func(limit uint64) arena {
			b = &builder{arena: arena{limit: limit}}
			wire(b)
			return b.arena
		}
		tight := run(0)
		assert.Equal(t, tight.peak, run(0).peak, "the same every time")
		wide := run(4 * tight.peak)
		assert.LessOrEqual(t, wide.peak, wide.limit)

		b = &builder{}
		b.measure(wire)
		measured := b.arena
		assert.LessOrEqual(t, measured.peak, tight.peak+tight.peak/10)
		assert.Equal(t, measured.peak, run(measured.limit).peak)
		if measured.limit > 0 {
			rested++
		}
	}
	assert.Greater(t, rested, 10)
	assert.Less(t, rested, 50, "where large pieces find no room, nothing rests")
}
