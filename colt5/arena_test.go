package colt5

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestArena(t *testing.T) {
	// Without a limit a freed block is reused at once. With a limit freed blocks are reused only if there is no other
	// space, in the order in which they were freed.
	tight, wide := arena{}, arena{limit: 4096}
	var at [2][]uint64
	for i, l := range []*arena{&tight, &wide} {
		for range 6 {
			p := l.alloc(1024)
			at[i] = append(at[i], p.offset)
			l.releaseLater(p)
		}
	}
	assert.Equal(t, []uint64{0, 0, 0, 0, 0, 0}, at[0])
	assert.Equal(t, []uint64{0, 1024, 2048, 3072, 0, 1024}, at[1])
	assert.Equal(t, []uint64{1024, 4096}, []uint64{tight.peak, wide.peak})

	// A large block reuses deferred blocks, or exceeds the limit.
	l := arena{limit: 4096}
	small, large := l.alloc(100), l.alloc(3000)
	assert.Equal(t, []uint64{0, 256}, []uint64{small.offset, large.offset})
	assert.Equal(t, extent{}, l.alloc(0))
	l.releaseLater(large, large, extent{})
	assert.Len(t, l.deferred, 1, "the second release of a block has no effect")
	assert.EqualValues(t, 256, l.alloc(3500).offset)
	assert.Empty(t, l.deferred)
	assert.EqualValues(t, 3840, l.alloc(512).offset)
	assert.Greater(t, l.peak, l.limit, "no space below the limit")
}

// recordFunc is a layer that consists of its recording.
type recordFunc func(*builder)

func (f recordFunc) record(b *builder) { f(b) }

// randomAllocations returns a recording that allocates and releases blocks of random sizes. At each allocation it calls
// onAlloc with the live blocks.
func randomAllocations(seed uint64, onAlloc func(p extent, live []extent)) func(*builder) {
	return func(b *builder) {
		r := rand.New(rand.NewPCG(seed, 4))
		var live []extent
		for range 300 {
			if n := len(live); n > 0 && (n > 12 || r.IntN(2) == 0) {
				i := r.IntN(n)
				b.arena.releaseLater(live[i])
				live = slices.Delete(live, i, i+1)
				continue
			}
			p := b.arena.alloc(uint64(1 + r.IntN(1<<r.IntN(20))))
			onAlloc(p, live)
			live = append(live, p)
		}
	}
}

// TestManyBlocks: the number of deferred blocks is bounded, so that calls with very many steps are planned in
// reasonable time.
func TestManyBlocks(t *testing.T) {
	l := arena{limit: 1 << 40}
	for range 100_000 {
		p := l.alloc(1000)
		q := l.alloc(300)
		l.releaseLater(p, q)
		require.LessOrEqual(t, len(l.deferred), maxDeferred+2)
	}
	assert.LessOrEqual(t, l.peak, uint64((maxDeferred+4)*1024))
}

// TestRandomArenas: live blocks never overlap. The peak is at most 110% of that without deferral, and is the same when
// measured and when recorded. So also of a planned workspace, which is often smaller than the one without deferral.
func TestRandomArenas(t *testing.T) {
	deferring, planned := 0, 0
	for seed := range uint64(50) {
		var b *builder
		record := randomAllocations(seed, func(p extent, live []extent) {
			require.Zero(t, p.offset%extentAlignment)
			require.LessOrEqual(t, p.offset+p.size, b.peak)
			for _, o := range live {
				require.True(t, p.end() <= o.offset || o.end() <= p.offset, fmt.Sprint(seed, p, o))
			}
		})
		run := func(limit uint64) arena {
			b = &builder{arena: arena{limit: limit}}
			record(b)
			return b.arena
		}
		tight := run(0)
		assert.Equal(t, tight.peak, run(0).peak, "not deterministic")
		wide := run(4 * tight.peak)
		assert.LessOrEqual(t, wide.peak, wide.limit)

		b = &builder{}
		b.layOut(singleNode(call{}, recordFunc(record), F32, nil))
		measured := b.arena
		assert.LessOrEqual(t, measured.peak, tight.peak+tight.peak/10)
		assert.Equal(t, measured.peak, run(measured.limit).peak)
		if measured.limit > 0 {
			deferring++
		}

		training := singleNode(call{}, recordFunc(record), F32, nil)
		training.backward = &backwardPass{nodes: []bool{false}, arena: -1}
		b = &builder{}
		b.layOut(training)
		laidOut := b.arena
		if laidOut.planned == nil {
			assert.Equal(t, measured.peak, laidOut.peak)
			continue
		}
		assert.LessOrEqual(t, laidOut.peak, tight.peak+tight.peak/10)
		if laidOut.peak < tight.peak {
			planned++
		}
		b = &builder{arena: arena{planned: laidOut.planned}}
		record(b)
		assert.Equal(t, laidOut.peak, b.peak)
		assert.Equal(t, extent{}, b.arena.alloc(1), "more allocations than were planned")
	}
	assert.Greater(t, planned, 5, "as many planned workspaces are smaller")
	assert.Greater(t, deferring, 10)
	assert.Less(t, deferring, 50, "sequences of large blocks leave no space to defer frees")
}

// TestPlanReusesLate: a planned workspace reuses the memory of small extents late, and grows by at most 4 % for that.
func TestPlanReusesLate(t *testing.T) {
	const large, small, count = 1 << 20, 1000, 60
	var l lifetimes
	l.alloc(extent{0, large})
	for range count {
		l.alloc(extent{large, small})
		l.release(extent{large, small})
	}
	placed, peak := l.plan()
	require.Len(t, placed, 1+count)
	assert.LessOrEqual(t, peak, uint64((large+1024)*26/25))
	last := map[uint64]int{}
	for i, e := range placed[1:] {
		require.GreaterOrEqual(t, e.offset, uint64(large))
		if before, ok := last[e.offset]; ok {
			require.GreaterOrEqual(t, i-before, 25, "the peak has space for that many")
		}
		last[e.offset] = i
	}
}
