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

// segmentCase is a problem on windows or blocks, with slots for selected scores.
type segmentCase struct {
	rows, n, routes, block         int
	windows, prefix                int
	selectAllUpTo, slots           int
	k                              float64
	masked, noValid                bool
	padLastBlock, unaligned, state bool
	schedule                       CoorDescentConfig
	logit                          func(i int) float32 // nil: normal
}

func (c segmentCase) String() string {
	return fmt.Sprintf("%dx%d routes %d block %d windows %d of %d select all up to %d slots %d k %g masked %v pad last block %v unaligned %v state %v iters %d",
		c.rows, c.n, c.routes, c.block, c.windows, c.prefix, c.selectAllUpTo, c.slots, c.k, c.masked, c.padLastBlock, c.unaligned, c.state, c.schedule.Iters)
}

// input returns logits, mask, indices and valid words. Indices name entries of the segment, of other segments, and
// none.
func (c segmentCase) input() (s []float32, mask []uint8, indices []int32, valid []uint32) {
	s = scaled(normal(uint64(c.n+c.rows), c.rows*c.n), 3)
	if c.logit != nil {
		for i := range s {
			s[i] = c.logit(i)
		}
	}
	if c.masked {
		mask = randomMask(uint64(c.n), c.rows/c.routes*c.n)
		if c.rows > c.routes {
			clear(mask[:c.n]) // an item without a valid entry
		}
	}
	random := rand.New(rand.NewPCG(3, uint64(c.n)))
	c.segments(func(_, _, from, to int) {
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
			indices, valid = append(indices, int32(index)), append(valid, uint32(random.IntN(3)))
		}
	})
	return s, mask, indices, valid
}

// segments calls f for each segment in order, with its row and its entries from..to-1.
func (c segmentCase) segments(f func(segment, row, from, to int)) {
	for segment := range c.rows * max(c.windows, 0) {
		f(segment, segment/c.routes/c.windows*c.routes+segment%c.routes, 0, min(segment/c.routes%c.windows*c.prefix, c.n))
	}
	if c.windows > 0 {
		return
	}
	segment := 0
	for row := range c.rows {
		for from := 0; from < c.n; from += c.block {
			f(segment, row, from, min(from+c.block, c.n))
			segment++
		}
	}
}

// reference returns the scores in float64 and in plain float32.
func (c segmentCase) reference(s []float32, mask []uint8) (want []float64, naive []float32) {
	rc := ref.CoorDescentConfig{K: c.k, Iters: c.schedule.Iters, Eps: c.schedule.Eps, EpsInit: c.schedule.EpsInit, EpsDecay: c.schedule.EpsDecay}
	if rc.EpsDecay == 0 {
		rc.EpsDecay = 1
	}
	items := c.rows / c.routes
	if c.windows > 0 && c.n > c.selectAllUpTo {
		return ref.CoorDescentWindows(s, mask, items, c.routes, c.n, c.windows, c.prefix, rc),
			ref.CoorDescentWindows32(s, mask, items, c.routes, c.n, c.windows, c.prefix, rc)
	}
	c.segments(func(_, row, from, to int) {
		part, partMask := s[row*c.n+from:row*c.n+to], []uint8(nil)
		if mask != nil {
			partMask = mask[row/c.routes*c.n+from : row/c.routes*c.n+to]
		}
		length := to - from
		if c.padLastBlock {
			length = c.block
		}
		if c.windows > 0 || length <= c.selectAllUpTo {
			for i := range part {
				v := 1.0
				if partMask != nil && partMask[i] == 0 {
					v = 0
				}
				want = append(want, v)
			}
			if c.windows > 0 {
				want = append(want, make([]float64, c.n-to)...)
			}
		} else {
			config := rc
			if !c.padLastBlock && length < c.block {
				config.K = min(c.k, float64(length))
			}
			want = append(want, ref.CoorDescent(part, partMask, 1, to-from, config)...)
			naive = append(naive, ref.CoorDescent32(part, partMask, 1, to-from, config)...)
		}
		for len(naive) < len(want) {
			naive = append(naive, float32(want[len(naive)]))
		}
	})
	return want, naive
}

// run computes scores, selected scores, or both, and returns them and the state.
func (c segmentCase) run(t *testing.T, withScores, withSelected bool) (scores, selected, state []float32) {
	t.Helper()
	gpu := gputest.New(t)
	d := openCoorDescent(t, gpu, c.schedule)
	s, mask, indices, valid := c.input()
	segments, count := len(indices)/c.slots, c.rows*c.n
	if c.windows > 0 {
		count = segments * c.n
	}
	offset := 0 // of ranges in their buffers, in words
	if c.unaligned {
		offset = 3
	}
	out := func(name string, words int) vk.Range {
		return gpu.Out(name, 4*(offset+words)).Slice(uint64(4*offset), uint64(4*words))
	}
	in := func(name string, data []byte, offset int) vk.Range {
		return gpu.In(name, append(make([]byte, offset), data...)).Slice(uint64(offset), uint64(len(data)))
	}
	a := CoorDescentArgs{
		Logits: in("logits", vk.Bytes(s), 2*offset/3*4), Rows: c.rows, N: c.n, Routes: c.routes, BlockSize: c.block, Windows: c.windows, WindowSize: c.prefix,
		K: c.k, SelectAllUpTo: c.selectAllUpTo, PadLastBlock: c.padLastBlock,
	}
	if c.masked {
		a.Mask = in("mask", mask, offset)
	}
	if withScores {
		a.Scores = out("scores", count)
	}
	if withSelected {
		a.Slots, a.SelectedScores, a.Indices = c.slots, out("selected scores", len(indices)), in("indices", vk.Bytes(indices), 4*offset)
		if !c.noValid {
			a.Valid = in("valid", vk.Bytes(valid), 4*offset)
		}
	}
	if c.state {
		a.State = gpu.Out("state", 16*segments*c.schedule.Iters)
	}
	kernels := 1
	if bytes := CoorDescentScratch(gpu.Dev.Caps(), c.rows, c.n, c.block, c.windows); bytes > 0 {
		a.Scratch, kernels = gpu.Out("scratch", int(bytes)), c.schedule.Iters+1
	}
	gpu.Run(func(list *vk.CommandList) error { return d.Record(list, a) })
	assert.Len(t, gpu.StepNames(), kernels)
	if withScores {
		scores = gpu.Float32("scores")[offset:]
	}
	if withSelected {
		selected = gpu.Float32("selected scores")[offset:]
	}
	if c.state {
		state = gpu.Float32("state")
	}
	return scores, selected, state
}

// check runs a case with scores, with selected scores, and with both.
func (c segmentCase) check(t *testing.T) {
	t.Helper()
	s, mask, indices, valid := c.input()
	scores, _, _ := c.run(t, true, false)
	want, naive := c.reference(s, mask)
	assert.NoError(t, ref.MaxErr(scores, want).Within(ref.Bound(naive, want, 1e-6)))
	for i, v := range scores {
		require.True(t, v >= 0 && v <= 1 && (want[i] != 0 || v == 0), "score %d is %g, want %g", i, v, want[i])
	}
	if c.noValid {
		valid = nil
	}
	var selected []float32 // the bits of the scores that slots name
	c.segments(func(segment, row, from, to int) {
		slots := indices[segment*c.slots : (segment+1)*c.slots]
		local, words := make([]int32, len(slots)), valid
		for i, index := range slots {
			local[i] = index - int32(from)
		}
		if words != nil {
			words = words[segment*c.slots : (segment+1)*c.slots]
		}
		part := scores[row*c.n:]
		if c.windows > 0 {
			part = scores[segment*c.n:]
		}
		selected = append(selected, ref.SelectedScores(part[from:to], local, words, 1, to-from, c.slots)...)
	})
	both, got, _ := c.run(t, true, true)
	assert.Equal(t, scores, both)
	assert.Equal(t, selected, got)
	_, got, _ = c.run(t, false, true)
	assert.Equal(t, selected, got)
}

// Windows and selected scores, on segments in registers and on long ones.
func TestCoorDescentWindows(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	limit := longestInRegisters(gputest.Device(t).Caps())
	short := CoorDescentConfig{Iters: 5, Eps: 0.05, EpsInit: 1, EpsDecay: 0.5}
	for _, c := range []segmentCase{
		{rows: 1, n: 1, routes: 1, windows: 1, prefix: 1, slots: 3, k: 1, schedule: routerSchedule},
		{rows: 2, n: 1, routes: 2, windows: 5, prefix: 1, slots: 1, k: 0.7, schedule: routerSchedule},
		{rows: 4, n: 509, routes: 2, windows: 63, prefix: 8, slots: 20, k: 12.5, masked: true, schedule: routerSchedule},
		{rows: 4, n: 512, routes: 2, windows: 5, prefix: 128, slots: 70, k: 64, schedule: topKSchedule},
		{rows: 4, n: 512, routes: 2, windows: 5, prefix: 128, slots: 70, k: 64, schedule: short, state: true, masked: true},
		{rows: 3, n: 509, routes: 1, windows: 5, prefix: 200, slots: 600, k: 700, masked: true, noValid: true, unaligned: true, schedule: short},
		{rows: 4, n: 300, routes: 2, windows: 5, prefix: 75, slots: 9, k: 7, masked: true, selectAllUpTo: 300, schedule: short},
		{rows: 4, n: 300, routes: 2, windows: 5, prefix: 75, slots: 9, k: 7, masked: true, selectAllUpTo: 299, schedule: short, logit: func(i int) float32 { return float32(i % 5) }},
		{rows: 2, n: 8192, routes: 2, windows: 5, prefix: 2048, slots: 300, k: 288, schedule: short},
		{rows: 2, n: 8209, routes: 2, windows: 5, prefix: 1000, slots: 100, k: 288, masked: true, unaligned: true, schedule: short},
		{rows: 2, n: limit + 233, routes: 2, windows: 5, prefix: limit / 4, slots: 300, k: 1100, masked: true, schedule: short},
		{rows: 1, n: limit + 4, routes: 1, windows: 5, prefix: limit/4 + 5, slots: 3000, k: 200, noValid: true, unaligned: true, schedule: topKSchedule},
		{rows: 2, n: limit + 233, routes: 1, windows: 3, prefix: limit / 2, slots: 50, k: 1100, selectAllUpTo: limit + 300, masked: true, schedule: short},
	} {
		if testing.Short() && (c.n > limit || !c.state && c.slots != 600 && c.selectAllUpTo != 299) {
			continue // one case for each option; all take 15 s
		}
		t.Run(c.String(), c.check)
	}
}

// Selected scores of blocks, with padded last blocks.
func TestCoorDescentSelectedScores(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	limit := longestInRegisters(gputest.Device(t).Caps())
	short := CoorDescentConfig{Iters: 5, Eps: 0.05, EpsInit: 1, EpsDecay: 0.5}
	for _, c := range []segmentCase{
		{rows: 1, n: 1, routes: 1, block: 1, slots: 2, k: 1, schedule: short},
		{rows: 4, n: 1000, routes: 2, block: 1000, slots: 70, k: 70, masked: true, schedule: routerSchedule},
		{rows: 4, n: 1031, routes: 2, block: 256, slots: 30, k: 28.5, masked: true, noValid: true, schedule: routerSchedule},
		{rows: 4, n: 1031, routes: 2, block: 256, slots: 30, k: 28.5, masked: true, padLastBlock: true, selectAllUpTo: 100, unaligned: true, schedule: routerSchedule},
		{rows: 2, n: 1031, routes: 1, block: 256, slots: 30, k: 28.5, selectAllUpTo: 7, state: true, schedule: short},
		{rows: 2, n: 1031, routes: 1, block: 256, slots: 30, k: 28.5, selectAllUpTo: 256, padLastBlock: true, masked: true, schedule: short},
		{rows: 2, n: 100, routes: 1, block: 128, slots: 30, k: 28.5, selectAllUpTo: 127, padLastBlock: true, schedule: short}, // a row shorter than a block
		{rows: 2, n: 100, routes: 1, block: 128, slots: 30, k: 144, selectAllUpTo: 127, padLastBlock: true, schedule: short},
		{rows: 2, n: 100, routes: 1, block: 128, slots: 30, k: 28.5, selectAllUpTo: 128, padLastBlock: true, schedule: short},
		{rows: 2, n: limit + 1000, routes: 2, block: limit + 1000, slots: 1500, k: 900, masked: true, unaligned: true, schedule: short},
		{rows: 2, n: 2*limit + 70, routes: 2, block: limit + 36, slots: 700, k: 50000, masked: true, padLastBlock: true, selectAllUpTo: limit, schedule: short},
		{rows: 1, n: limit + 9, routes: 1, block: limit + 9, slots: 70, k: 5, masked: true, selectAllUpTo: limit + 9, schedule: short},
	} {
		if testing.Short() && (c.n > limit && c.slots != 1500 || c.n < limit && !c.padLastBlock && !c.state) {
			continue
		}
		t.Run(c.String(), c.check)
	}
}

// A window has the bits of a row whose mask excludes the entries beyond the prefix.
func TestCoorDescentWindowsAreMasks(t *testing.T) {
	limit := longestInRegisters(gputest.Device(t).Caps())
	for _, n := range []int{300, 8192, limit + 100} {
		if testing.Short() && n != 300 {
			continue // take 7 s
		}
		c := segmentCase{rows: 2, n: n, routes: 2, windows: 5, prefix: n / 5, slots: 1, k: float64(n) / 8, schedule: routerSchedule, state: true}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			got, _, state := c.run(t, true, false)
			s, _, _, _ := c.input()
			size := len(state) / c.windows
			for window := range c.windows {
				mask := make([]uint8, n)
				for i := range window * c.prefix {
					mask[i] = 1
				}
				one := descentCase{config: c.schedule, logits: s, mask: mask, rows: 2, n: n, routes: 2, k: c.k, state: true}
				gpu := gputest.New(t)
				assert.Equal(t, one.run(t, gpu), got[window*2*n:(window+1)*2*n], "window %d", window)
				assert.Equal(t, gpu.Float32("state"), state[window*size:(window+1)*size], "state of window %d", window)
			}
		})
	}
}
