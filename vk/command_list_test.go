package vk_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/simulate"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program is a random command list on buffers of the given numbers of words. The last buffer is a binding.
type program struct {
	words []int
	steps []programStep
}

// span is words [from, from+n) of a buffer.
type span struct{ buffer, from, n int }

func (p span) disjoint(o span) bool {
	return p.buffer != o.buffer || p.from+p.n <= o.from || o.from+o.n <= p.from
}

type programStep struct {
	kind    string // fill, copy or mix
	y, a, b span   // fill: y; copy: y and a; mix: all, with a.n = 0 if a is absent
	word    uint32
}

func randomProgram(r *rand.Rand, buffers, words, steps int) program {
	p := program{}
	for range buffers {
		p.words = append(p.words, words/2+r.IntN(words/2)+8)
	}
	some := func(n int) span {
		for {
			i := r.IntN(buffers)
			if w := p.words[i]; w >= n {
				return span{i, r.IntN(w - n + 1), n}
			}
		}
	}
	// Inputs are disjoint from the output or equal to it.
	input := func(y span) span {
		for {
			if x := some(y.n); x == y || x.disjoint(y) {
				return x
			}
		}
	}
	for range steps {
		s := programStep{kind: []string{"fill", "copy", "mix", "mix", "mix"}[r.IntN(5)], word: r.Uint32()}
		s.y = some(1 + r.IntN(words/3))
		switch s.kind {
		case "copy":
			for s.a = some(s.y.n); !s.a.disjoint(s.y); {
				s.a = some(s.y.n)
			}
		case "mix":
			s.b = input(s.y)
			if r.IntN(4) > 0 {
				s.a = input(s.y)
			}
		}
		p.steps = append(p.steps, s)
	}
	return p
}

// accesses returns what a step reads and writes.
func (s programStep) accesses() (reads []span, writes span) {
	for _, x := range []span{s.a, s.b} {
		if x.n > 0 {
			reads = append(reads, x)
		}
	}
	return reads, s.y
}

// run is the CPU reference.
func (p program) run(data [][]uint32) {
	at := func(x span) []uint32 {
		if x.n == 0 {
			return nil
		}
		return data[x.buffer][x.from : x.from+x.n]
	}
	for _, s := range p.steps {
		switch s.kind {
		case "fill":
			for i := range at(s.y) {
				at(s.y)[i] = s.word
			}
		case "copy":
			copy(at(s.y), at(s.a))
		case "mix":
			mixReference(at(s.y), at(s.a), at(s.b), s.word, 0)
		}
	}
}

// record records the program on a command list.
func (p program) record(t testing.TB, l *vk.CommandList, k *vk.Kernel, ranges []vk.Range) {
	at := func(x span) vk.Range {
		if x.n == 0 {
			return vk.Range{}
		}
		return ranges[x.buffer].Slice(uint64(4*x.from), uint64(4*x.n))
	}
	for _, s := range p.steps {
		switch s.kind {
		case "fill":
			require.NoError(t, l.Fill(at(s.y), s.word))
		case "copy":
			require.NoError(t, l.Copy(at(s.y), at(s.a)))
		case "mix":
			require.NoError(t, l.Dispatch(mixDispatch(k, at(s.a), at(s.b), at(s.y), s.word)))
		}
	}
}

// pairs returns the pairs of dependent steps, found word by word.
func (p program) pairs() [][2]int {
	type use struct {
		step  int
		write bool
	}
	uses := map[[2]int][]use{}
	for i, s := range p.steps {
		reads, y := s.accesses()
		for _, x := range reads {
			for w := x.from; w < x.from+x.n; w++ {
				uses[[2]int{x.buffer, w}] = append(uses[[2]int{x.buffer, w}], use{i, false})
			}
		}
		for w := y.from; w < y.from+y.n; w++ {
			uses[[2]int{y.buffer, w}] = append(uses[[2]int{y.buffer, w}], use{i, true})
		}
	}
	found := map[[2]int]bool{}
	for _, list := range uses {
		for i, a := range list {
			for _, b := range list[i+1:] {
				if (a.write || b.write) && a.step != b.step {
					found[[2]int{a.step, b.step}] = true
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b [2]int) int { return cmp.Or(a[1]-b[1], a[0]-b[0]) })
}

// levels returns the minimum number of barriers before each step.
func (p program) levels(pairs [][2]int) []int {
	list := make([]int, len(p.steps))
	for _, x := range pairs { // sorted by the second step
		list[x[1]] = max(list[x[1]], list[x[0]]+1)
	}
	return list
}

// programRun holds the memory of a program; the last buffer is bound to a binding of each list.
type programRun struct {
	d       *vk.Device
	k       *vk.Kernel
	buffers []*vk.Buffer
}

func newProgramRun(t testing.TB, d *vk.Device, k *vk.Kernel, p program) programRun {
	b := programRun{d: d, k: k}
	for i, n := range p.words {
		b.buffers = append(b.buffers, newBuffer(t, d, fmt.Sprint("program ", i), uint64(4*n)))
	}
	return b
}

func (b programRun) record(t testing.TB, p program, c vk.CommandListConfig, skipped int) *vk.CommandList {
	l := newList(t, b.d, c)
	l.SkipBarrier(skipped)
	var ranges []vk.Range
	for _, x := range b.buffers {
		ranges = append(ranges, x.Range())
	}
	last := len(ranges) - 1
	binding := l.NewBinding("last", ranges[last].Size())
	require.NoError(t, l.Bind(binding, ranges[last]))
	ranges[last] = binding.Range()
	p.record(t, l, b.k, ranges)
	return l
}

func TestRandomLists(t *testing.T) {
	d := gputest.Device(t)
	k := newKernel(t, d, "mix", nil)
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			gputest.CountCase()
			r := rand.New(rand.NewPCG(seed, 9))
			size := 24
			if seed%8 == 7 {
				size = 60_000 // large enough for steps without a barrier to overlap on a GPU
			}
			p := randomProgram(r, 4, size, 25)
			b := newProgramRun(t, d, k, p)
			var start, want [][]uint32
			for i, n := range p.words {
				start = append(start, randomWords(seed*10+uint64(i), n))
				want = append(want, slices.Clone(start[i]))
			}
			p.run(want)
			for _, everywhere := range []bool{false, true} {
				l := b.record(t, p, vk.CommandListConfig{BarrierEverywhere: everywhere}, -1)
				for range 2 {
					for i, data := range start {
						uploadTo(t, b.buffers[i].Range(), data)
					}
					require.NoError(t, l.Run(t.Context()))
					for i, x := range b.buffers {
						require.True(t, slices.Equal(want[i], download(t, x.Range())), "buffer %d, everywhere %v", i, everywhere)
					}
				}
			}
		})
	}
}

// TestHazardChecker compares the scheduler and the hazard checker with a model that tracks single words.
func TestHazardChecker(t *testing.T) {
	d := gputest.Device(t)
	k := newKernel(t, d, "mix", nil)
	found, clean := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 10))
		p := randomProgram(r, 4, 24, 14)
		b := newProgramRun(t, d, k, p)
		l := b.record(t, p, vk.CommandListConfig{}, -1)
		pairs := p.pairs()
		require.Equal(t, p.levels(pairs), groups(l.Schedule()), "as few barriers as possible")
		require.NoError(t, l.CheckHazards())
		for i := range l.Barriers() {
			bad := b.record(t, p, vk.CommandListConfig{}, i)
			require.Equal(t, l.Barriers()-1, bad.Barriers())
			require.ErrorContains(t, bad.Run(t.Context()), "hazard: ", "seed %d, barrier %d", seed, i)
			closeAll(t, bad)
		}
		for range 20 { // swapped steps, and barriers in random places
			order, barriers := l.Schedule()
			for range r.IntN(3) {
				i := r.IntN(len(order) - 1)
				order[i], order[i+1] = order[i+1], order[i]
			}
			for range r.IntN(4) {
				i := r.IntN(len(order))
				barriers[i] = !barriers[i]
			}
			l.Reschedule(order, barriers)
			group := groups(order, barriers)
			hazard := slices.ContainsFunc(pairs, func(x [2]int) bool { return group[x[0]] >= group[x[1]] })
			require.Equal(t, hazard, l.CheckHazards() != nil, "seed %d, %v, %v", seed, order, barriers)
			if hazard {
				found++
			} else {
				clean++
			}
		}
		order, barriers := l.Schedule()
		order[0] = order[1]
		l.Reschedule(order, barriers)
		require.ErrorContains(t, l.CheckHazards(), "runs twice")
		l.Reschedule(order[1:], barriers[1:])
		require.ErrorContains(t, l.CheckHazards(), "does not run")
		closeAll(t, l)
	}
	assert.Greater(t, found, 50)
	assert.Greater(t, clean, 50)
}

func TestFillCopy(t *testing.T) {
	d := openDevice(t, vk.Options{})
	a, b := newBuffer(t, d, "a", 64), newBuffer(t, d, "b", 64)
	x, y := a.Range(), b.Range()
	l := newList(t, d, vk.CommandListConfig{Name: "steps"})
	for want, err := range map[string]error{
		`vk: command list "steps": Fill: offset 2 and size 4, want multiples of 4`:     l.Fill(x.Slice(2, 4), 1),
		"offset 4 and size 6, want multiples of 4":                                     l.Fill(x.Slice(4, 6), 1),
		"Fill: argument 0 is the zero Range":                                           l.Fill(vk.Range{}, 1),
		"Fill: argument 0 is 8 bytes at offset 60 of buffer \"a\", which has 64 bytes": l.Fill(x.Slice(60, 8), 1),
		"Copy: 8 bytes of buffer \"b\" to 4 bytes of buffer \"a\", want equal sizes":   l.Copy(x.Slice(0, 4), y.Slice(0, 8)),
		"Copy: offset 4 to offset 0 of buffer \"a\", 8 bytes: the ranges overlap":      l.Copy(x.Slice(0, 8), x.Slice(4, 8)),
		"Copy: argument 1 is the zero Range":                                           l.Copy(x, vk.Range{}),
		"Copy: argument 0 is 64 bytes at offset 8 of buffer \"a\", which has 64 bytes": l.Copy(x.Slice(8, 64), y),
	} {
		assert.ErrorContains(t, err, want)
	}
	require.Empty(t, l.StepNames())
	uploadTo(t, x, make([]uint8, 64))
	uploadTo(t, y, randomWords(1, 16))
	want := make([]uint8, 64)
	copy(want[1:34], vk.Bytes(randomWords(1, 16))[20:53]) // copies need no alignment
	for i := 40; i < 48; i += 4 {
		copy(want[i:], []uint8{4, 3, 2, 1})
	}
	require.NoError(t, l.Fill(x.Slice(40, 8), 0x01020304))
	require.NoError(t, l.Copy(x.Slice(1, 33), y.Slice(20, 33)))
	assert.Equal(t, []string{"fill", "copy"}, l.StepNames())
	flops, bytes := l.Work()
	assert.Equal(t, 0.0, flops)
	assert.Equal(t, 8+66.0, bytes)
	require.NoError(t, l.Run(t.Context()))
	assert.Equal(t, want, vk.Bytes(download(t, x)))
	assert.Equal(t, randomWords(1, 16), download(t, y))
	assert.ErrorContains(t, l.Fill(x, 1), "recording ended with Finish or the first run")
	assert.ErrorContains(t, l.Copy(x, y), "recording ended with Finish or the first run")
}

// TestDivide: parts cover a grid once, are not larger than they may be where the grid allows it, and keep the first dimension
// whole beside a second.
func TestDivide(t *testing.T) {
	for _, groups := range [][3]uint32{{1, 1, 1}, {7, 1, 1}, {1, 1, 5}, {4, 3, 1}, {4, 1, 3}, {3, 4, 2}} {
		for _, share := range []float64{2, 1, 0.9, 0.5, 0.34, 0.2, 0.01} {
			seen, all := map[[3]uint32]int{}, float64(groups[0]*groups[1]*groups[2])
			smallest := 1.0 // workgroups of a part that cannot be divided
			if groups[1] > 1 {
				smallest = float64(groups[0])
			}
			for _, p := range vk.Divide(groups, share) {
				count := float64(p[1][0] * p[1][1] * p[1][2])
				assert.LessOrEqual(t, count, max(share*all, smallest), "%v %v", groups, share)
				if groups[1] > 1 {
					assert.Equal(t, groups[0], p[1][0])
				}
				for x := range p[1][0] {
					for y := range p[1][1] {
						for z := range p[1][2] {
							seen[[3]uint32{p[0][0] + x, p[0][1] + y, p[0][2] + z}]++
						}
					}
				}
			}
			assert.Len(t, seen, int(all), "%v %v", groups, share)
			for at, n := range seen {
				assert.Equal(t, 1, n, "%v %v: %v", groups, share, at)
				assert.True(t, at[0] < groups[0] && at[1] < groups[1] && at[2] < groups[2], "%v %v: %v", groups, share, at)
			}
			if share >= 1 {
				assert.Len(t, vk.Divide(groups, share), 1)
			}
		}
	}
}

// TestDividedSteps: dispatches, fills and copies beyond the limit of traffic become several steps, which run without barriers
// between them and give the same bits.
func TestDividedSteps(t *testing.T) {
	const n, limit, noRoom = 5000, 4096, 40 // the kernel has 32 bytes of push constants
	var results [][]uint32
	for _, limits := range []simulate.Limits{{}, {DispatchBytes: limit}, {DispatchBytes: limit, MaxPushBytes: noRoom}} {
		d := openDevice(t, vk.Options{CacheDir: "-", Simulate: &limits})
		k := newKernel(t, d, "mix", map[uint32]uint32{0: mixWidth, 1: 3})
		x, y, z := newBuffer(t, d, "x", 4*n), newBuffer(t, d, "y", 4*n), newBuffer(t, d, "z", 4*n)
		require.NoError(t, d.Upload(t.Context(), vk.Transfer{Range: x.Range(), Data: vk.Bytes(randomWords(1, n))}))
		l := newList(t, d, vk.CommandListConfig{})
		require.NoError(t, l.Fill(y.Range(), 7))
		run := mixDispatch(k, x.Range(), y.Range(), y.Range(), 1)
		run.Bytes = 3 * 4 * n
		require.NoError(t, l.Dispatch(run))
		require.NoError(t, l.Copy(z.Range(), y.Range()))
		require.NoError(t, l.Finish())
		require.NoError(t, l.CheckHazards())
		_, barriers := l.Schedule()
		count := 0
		for _, b := range barriers {
			if b {
				count++
			}
		}
		assert.Equal(t, 2, count)
		_, traffic := l.Work()
		assert.InDelta(t, 6*4*n, traffic, 1e-6)
		if limits.DispatchBytes > 0 {
			assert.Equal(t, 5+16+10, l.Steps())
		} else {
			assert.Equal(t, 3, l.Steps())
		}
		for range 2 {
			require.NoError(t, l.Run(t.Context()))
		}
		got := make([]uint32, n)
		require.NoError(t, d.Download(t.Context(), vk.Transfer{Range: z.Range(), Data: vk.Bytes(got)}))
		results = append(results, got)
		all, _ := d.CountPipelines()
		assert.Equal(t, map[simulate.Limits]int{{}: 1, {DispatchBytes: limit}: 2, {DispatchBytes: limit, MaxPushBytes: noRoom}: 16}[limits], all)
	}
	assert.Equal(t, results[0], results[1])
	assert.Equal(t, results[0], results[2])
	assert.NotEqual(t, results[0][0], results[0][1])
}
