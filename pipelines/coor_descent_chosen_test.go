package pipelines

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// chosenCase is a descent on windows or blocks, and slots that ask for scores.
type chosenCase struct {
	rows, n, routes, block int
	windows, prefix        int
	whole, slots           int
	k                      float64
	masked, unfilled       bool
	padded, odd, state     bool
	schedule               CoorDescentConfig
	s                      func(i int) float32 // nil: normal
}

func (c chosenCase) String() string {
	return fmt.Sprintf("%dx%d routes %d block %d windows %d of %d whole %d slots %d k %g masked %v padded %v odd %v state %v iters %d",
		c.rows, c.n, c.routes, c.block, c.windows, c.prefix, c.whole, c.slots, c.k, c.masked, c.padded, c.odd, c.state, c.schedule.Iters)
}

// input is logits, mask (rows of an item alike) and indices and filled words that name entries of the unit, of others and none.
func (c chosenCase) input() (s []float32, mask []uint8, indices []int32, filled []uint32) {
	s = scaled(normal(uint64(c.n+c.rows), c.rows*c.n), 3)
	if c.s != nil {
		for i := range s {
			s[i] = c.s(i)
		}
	}
	if c.masked {
		mask = someMask(uint64(c.n), c.rows/c.routes*c.n)
		if c.rows > c.routes {
			clear(mask[:c.n]) // an item without an entry
		}
	}
	random := rand.New(rand.NewPCG(3, uint64(c.n)))
	c.units(func(_, _, from, to int) {
		for range c.slots {
			index := random.IntN(c.n)
			switch random.IntN(8) {
			case 0:
				index = -1 - random.IntN(3)
			case 1:
				index = c.n + random.IntN(3)
			case 2:
				index = math.MaxInt32 - random.IntN(3)
			case 3, 4, 5:
				if from < to {
					index = from + random.IntN(to-from)
				}
			}
			indices, filled = append(indices, int32(index)), append(filled, uint32(random.IntN(3)))
		}
	})
	return s, mask, indices, filled
}

// units calls f for each block or window in order, with its row and entries.
func (c chosenCase) units(f func(unit, row, from, to int)) {
	for unit := range c.rows * max(c.windows, 0) {
		f(unit, unit/c.routes/c.windows*c.routes+unit%c.routes, 0, min(unit/c.routes%c.windows*c.prefix, c.n))
	}
	if c.windows > 0 {
		return
	}
	unit := 0
	for row := range c.rows {
		for from := 0; from < c.n; from += c.block {
			f(unit, row, from, min(from+c.block, c.n))
			unit++
		}
	}
}

// reference is the scores in float64 and plain float32.
func (c chosenCase) reference(s []float32, mask []uint8) (want []float64, naive []float32) {
	rc := ref.CoorDescentConfig{K: c.k, Iters: c.schedule.Iters, Eps: c.schedule.Eps, EpsInit: c.schedule.EpsInit, EpsDecay: c.schedule.EpsDecay}
	if rc.EpsDecay == 0 {
		rc.EpsDecay = 1
	}
	items := c.rows / c.routes
	if c.windows > 0 && c.n > c.whole {
		return ref.CoorDescentWindows(s, mask, items, c.routes, c.n, c.windows, c.prefix, rc),
			ref.CoorDescentWindows32(s, mask, items, c.routes, c.n, c.windows, c.prefix, rc)
	}
	c.units(func(_, row, from, to int) {
		part, m := s[row*c.n+from:row*c.n+to], []uint8(nil)
		if mask != nil {
			m = mask[row/c.routes*c.n+from : row/c.routes*c.n+to]
		}
		length := to - from
		if c.padded {
			length = c.block
		}
		if c.windows > 0 || length <= c.whole {
			for i := range part {
				v := 1.0
				if m != nil && m[i] == 0 {
					v = 0
				}
				want = append(want, v)
			}
			if c.windows > 0 {
				want = append(want, make([]float64, c.n-to)...)
			}
		} else {
			one := rc
			if !c.padded && length < c.block {
				one.K = min(c.k, float64(length))
			}
			want = append(want, ref.CoorDescent(part, m, 1, to-from, one)...)
			naive = append(naive, ref.CoorDescent32(part, m, 1, to-from, one)...)
		}
		for len(naive) < len(want) {
			naive = append(naive, float32(want[len(naive)]))
		}
	})
	return want, naive
}

// run records with scores, chosen scores, or both, and returns them and the state.
func (c chosenCase) run(t *testing.T, withScores, withChosen bool) (scores, chosen, state []float32) {
	t.Helper()
	gpu := gputest.New(t)
	d := descend(t, gpu, c.schedule)
	s, mask, indices, filled := c.input()
	units, count := len(indices)/c.slots, c.rows*c.n
	if c.windows > 0 {
		count = units * c.n
	}
	before := 0 // words in front
	if c.odd {
		before = 3
	}
	out := func(name string, words int) vk.Range {
		return gpu.Out(name, 4*(before+words)).Slice(uint64(4*before), uint64(4*words))
	}
	in := func(name string, data []byte, before int) vk.Range {
		return gpu.In(name, append(make([]byte, before), data...)).Slice(uint64(before), uint64(len(data)))
	}
	a := CoorDescentArgs{
		Logits: in("logits", vk.Bytes(s), 2*before/3*4), Rows: c.rows, N: c.n, Routes: c.routes, BlockSize: c.block, Windows: c.windows, Prefix: c.prefix,
		K: c.k, SelectAllUpTo: c.whole, PadLastBlock: c.padded,
	}
	if c.masked {
		a.Mask = in("mask", mask, before)
	}
	if withScores {
		a.Scores = out("scores", count)
	}
	if withChosen {
		a.Slots, a.SelectedScores, a.Indices = c.slots, out("chosen", len(indices)), in("indices", vk.Bytes(indices), 4*before)
		if !c.unfilled {
			a.Valid = in("filled", vk.Bytes(filled), 4*before)
		}
	}
	if c.state {
		a.State = gpu.Out("state", 16*units*c.schedule.Iters)
	}
	kernels := 1
	if bytes := CoorDescentScratch(gpu.Dev.Caps(), c.rows, c.n, c.block, c.windows); bytes > 0 {
		a.Scratch, kernels = gpu.Out("scratch", int(bytes)), c.schedule.Iters+1
	}
	gpu.Run(func(list *vk.CommandList) error { return d.Record(list, a) })
	assert.Len(t, gpu.Kernels(), kernels)
	if withScores {
		scores = gpu.Float32("scores")[before:]
	}
	if withChosen {
		chosen = gpu.Float32("chosen")[before:]
	}
	if c.state {
		state = gpu.Float32("state")
	}
	return scores, chosen, state
}

// check runs a case in all three ways.
func (c chosenCase) check(t *testing.T) {
	t.Helper()
	s, mask, indices, filled := c.input()
	scores, _, _ := c.run(t, true, false)
	want, naive := c.reference(s, mask)
	assert.NoError(t, ref.MaxErr(scores, want).Within(ref.Bound(naive, want, 1e-6)))
	for i, v := range scores {
		require.True(t, v >= 0 && v <= 1 && (want[i] != 0 || v == 0), "score %d is %g, want %g", i, v, want[i])
	}
	if c.unfilled {
		filled = nil
	}
	var chosen []float32 // what the slots must have: bits of scores
	c.units(func(unit, row, from, to int) {
		slots := indices[unit*c.slots : (unit+1)*c.slots]
		local, words := make([]int32, len(slots)), filled
		for i, index := range slots {
			local[i] = index - int32(from)
		}
		if words != nil {
			words = words[unit*c.slots : (unit+1)*c.slots]
		}
		part := scores[row*c.n:]
		if c.windows > 0 {
			part = scores[unit*c.n:]
		}
		chosen = append(chosen, ref.SelectedScores(part[from:to], local, words, 1, to-from, c.slots)...)
	})
	both, got, _ := c.run(t, true, true)
	assert.Equal(t, scores, both)
	assert.Equal(t, chosen, got)
	_, got, _ = c.run(t, false, true)
	assert.Equal(t, chosen, got)
}

// Windows, and the scores of chosen entries: one workgroup each, and several.
func TestCoorDescentWindows(t *testing.T) {
	limit := longest(gputest.Device(t).Caps())
	short := CoorDescentConfig{Iters: 5, Eps: 0.05, EpsInit: 1, EpsDecay: 0.5}
	for _, c := range []chosenCase{
		{rows: 1, n: 1, routes: 1, windows: 1, prefix: 1, slots: 3, k: 1, schedule: routerSchedule},
		{rows: 2, n: 1, routes: 2, windows: 5, prefix: 1, slots: 1, k: 0.7, schedule: routerSchedule},
		{rows: 4, n: 509, routes: 2, windows: 63, prefix: 8, slots: 20, k: 12.5, masked: true, schedule: routerSchedule},
		{rows: 4, n: 512, routes: 2, windows: 5, prefix: 128, slots: 70, k: 64, schedule: topKSchedule},
		{rows: 4, n: 512, routes: 2, windows: 5, prefix: 128, slots: 70, k: 64, schedule: short, state: true, masked: true},
		{rows: 3, n: 509, routes: 1, windows: 5, prefix: 200, slots: 600, k: 700, masked: true, unfilled: true, odd: true, schedule: short},
		{rows: 4, n: 256, routes: 2, windows: 5, prefix: 64, slots: 9, k: 7, masked: true, whole: 256, schedule: short},
		{rows: 4, n: 256, routes: 2, windows: 5, prefix: 64, slots: 9, k: 7, masked: true, whole: 255, schedule: short, s: func(i int) float32 { return float32(i % 5) }},
		{rows: 2, n: 8192, routes: 2, windows: 5, prefix: 2048, slots: 300, k: 288, schedule: short},
		{rows: 2, n: 8209, routes: 2, windows: 5, prefix: 1000, slots: 100, k: 288, masked: true, odd: true, schedule: short},
		{rows: 2, n: limit + 233, routes: 2, windows: 5, prefix: limit / 4, slots: 300, k: 1100, masked: true, schedule: short},
		{rows: 1, n: limit + 4, routes: 1, windows: 5, prefix: limit/4 + 5, slots: 3000, k: 200, unfilled: true, odd: true, schedule: topKSchedule},
		{rows: 2, n: limit + 233, routes: 1, windows: 3, prefix: limit / 2, slots: 50, k: 1100, whole: limit + 300, masked: true, schedule: short},
	} {
		t.Run(c.String(), c.check)
	}
}

// The scores of chosen entries of blocks; a shorter last block that counts as a full one.
func TestCoorDescentChosen(t *testing.T) {
	limit := longest(gputest.Device(t).Caps())
	short := CoorDescentConfig{Iters: 5, Eps: 0.05, EpsInit: 1, EpsDecay: 0.5}
	for _, c := range []chosenCase{
		{rows: 1, n: 1, routes: 1, block: 1, slots: 2, k: 1, schedule: short},
		{rows: 4, n: 1000, routes: 2, block: 1000, slots: 70, k: 70, masked: true, schedule: routerSchedule},
		{rows: 4, n: 1031, routes: 2, block: 256, slots: 30, k: 28.5, masked: true, unfilled: true, schedule: routerSchedule},
		{rows: 4, n: 1031, routes: 2, block: 256, slots: 30, k: 28.5, masked: true, padded: true, whole: 100, odd: true, schedule: routerSchedule},
		{rows: 2, n: 1031, routes: 1, block: 256, slots: 30, k: 28.5, whole: 7, state: true, schedule: short},
		{rows: 2, n: 1031, routes: 1, block: 256, slots: 30, k: 28.5, whole: 256, padded: true, masked: true, schedule: short},
		{rows: 2, n: 100, routes: 1, block: 128, slots: 30, k: 28.5, whole: 127, padded: true, schedule: short}, // a row shorter than a block
		{rows: 2, n: 100, routes: 1, block: 128, slots: 30, k: 144, whole: 127, padded: true, schedule: short},
		{rows: 2, n: 100, routes: 1, block: 128, slots: 30, k: 28.5, whole: 128, padded: true, schedule: short},
		{rows: 2, n: limit + 1000, routes: 2, block: limit + 1000, slots: 1500, k: 900, masked: true, odd: true, schedule: short},
		{rows: 2, n: 2*limit + 70, routes: 2, block: limit + 36, slots: 700, k: 50000, masked: true, padded: true, whole: limit, schedule: short},
		{rows: 1, n: limit + 9, routes: 1, block: limit + 9, slots: 70, k: 5, masked: true, whole: limit + 9, schedule: short},
	} {
		t.Run(c.String(), c.check)
	}
}

// A window has the bits of a row whose mask ends where its prefix does.
func TestCoorDescentWindowsAreMasks(t *testing.T) {
	limit := longest(gputest.Device(t).Caps())
	for _, n := range []int{100, 8192, limit + 100} {
		c := chosenCase{rows: 2, n: n, routes: 2, windows: 5, prefix: n / 5, slots: 1, k: float64(n) / 8, schedule: routerSchedule, state: true}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			got, _, state := c.run(t, true, false)
			s, _, _, _ := c.input()
			kept := len(state) / c.windows
			for window := range c.windows {
				mask := make([]uint8, n)
				for i := range window * c.prefix {
					mask[i] = 1
				}
				one := descentCase{config: c.schedule, s: s, mask: mask, rows: 2, n: n, routes: 2, k: c.k, state: true}
				gpu := gputest.New(t)
				assert.Equal(t, one.run(t, gpu), got[window*2*n:(window+1)*2*n], "window %d", window)
				assert.Equal(t, gpu.Float32("state"), state[window*kept:(window+1)*kept], "state of window %d", window)
			}
		})
	}
}
