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

// emptySlots are the ways in which slots of a test are empty: score 0, valid word 0, index out of range.
type emptySlots struct{ score, valid, outOfRange bool }

// slotList is a list of row indices. The reference takes no index out of range; there refValid marks such a slot as
// empty.
type slotList struct {
	indices, refIndices []int32
	score               []float32 // nil: there is none
	valid               []uint32  // nil: there is none
	refValid            []uint8   // nil: there is none
}

// makeSlots selects k of n rows for each of b items, each row at most once unless k > n. Every third slot is empty, in
// each way in turn.
func makeSlots(kind emptySlots, b, n, k int) slotList {
	rng := rand.New(rand.NewPCG(uint64(b), uint64(n*k)))
	s := slotList{indices: make([]int32, b*k)}
	var ways []string
	if kind.score {
		s.score, ways = normal(7, b*k), append(ways, "score")
	}
	if kind.valid {
		s.valid, ways = make([]uint32, b*k), append(ways, "valid")
	}
	if kind.outOfRange {
		ways = append(ways, "out of range")
	}
	if kind.valid || kind.outOfRange {
		s.refValid = make([]uint8, b*k)
	}
	for i := range s.refValid {
		s.refValid[i] = 1
	}
	for i := range s.valid {
		s.valid[i] = 1
	}
	for item := range b {
		for i := range k {
			if i%n == 0 {
				for j, row := range rng.Perm(n)[:min(n, k-i)] {
					s.indices[item*k+i+j] = int32(row)
				}
			}
		}
	}
	s.refIndices = append([]int32{}, s.indices...)
	outside := []int32{-1, int32(n), int32(n + 1), math.MaxInt32, math.MinInt32}
	for i := 0; i < b*k && len(ways) > 0; i += 3 {
		s.indices[i], s.refIndices[i] = 0, 0
		switch ways[i/3%len(ways)] {
		case "score":
			s.score[i] = 0
		case "valid":
			s.valid[i], s.refValid[i] = 0, 0
		case "out of range":
			s.indices[i], s.refValid[i] = outside[i/3%len(outside)], 0
		}
	}
	return s
}

// inputs makes the input ranges; those of absent parts are zero.
func (s slotList) inputs(gpu *gputest.Harness) (indices, score, valid vk.Range) {
	indices = gpu.In("indices", s.indices)
	if s.score != nil {
		score = gpu.In("score", s.score)
	}
	if s.valid != nil {
		valid = gpu.In("valid", s.valid)
	}
	return indices, score, valid
}

func TestGather(t *testing.T) {
	all := emptySlots{true, true, true}
	for _, test := range []struct {
		b, n, k, c int
		kind       emptySlots
	}{
		{1, 1, 1, 1, emptySlots{}},
		{2, 1000, 255, 1, all}, {2, 1000, 256, 1, emptySlots{}}, {3, 1000, 257, 1, emptySlots{score: true}},
		{1, 5, 1000, 1, emptySlots{outOfRange: true}},
		{2, 7, 5, 3, all}, {2, 31, 17, 4, emptySlots{valid: true}}, {1, 40, 9, 7, all}, {3, 20, 20, 64, all},
		{2, 9, 4, 255, all}, {2, 9, 4, 256, all}, {2, 9, 4, 257, all}, {2, 70, 67, 512, all}, {1, 9, 5, 1020, all}, {1, 9, 5, 1024, all},
		{1, 9, 5, 1028, all}, {1, 5, 3, 1031, all}, {1, 3, 2, 4100, all},
		{1, 1, 1, 4, emptySlots{valid: true}}, // the only slot is empty
		{1, 100, 70001, 4, all},
		{1, 5, 65600, 129, all}, // one workgroup per row: more than many devices allow in x
	} {
		if testing.Short() && test.k == 65600 {
			continue // takes 3 s
		}
		t.Run(fmt.Sprintf("%d_%d_%d_%d", test.b, test.n, test.k, test.c), func(t *testing.T) {
			gpu := gputest.New(t)
			s := makeSlots(test.kind, test.b, test.n, test.k)
			x := normal(1, test.b*test.n*test.c)
			g, err := NewGather(gpu.Dev, GatherConfig{C: test.c})
			require.NoError(t, err)
			defer g.Close()
			a := GatherArgs{X: gpu.In("x", x), Y: gpu.Out("y", 4*test.b*test.k*test.c), B: test.b, N: test.n, K: test.k}
			a.Indices, a.Score, a.Valid = s.inputs(gpu)
			gpu.Run(func(list *vk.CommandList) error { return g.Record(list, a) })
			// One float32 product per element: bits are equal.
			assert.Equal(t, ref.Gather32(ref.GatherArgs{
				X: x, Indices: s.refIndices, Score: s.score, Valid: s.refValid, B: test.b, N: test.n, C: test.c, K: test.k,
			}), gpu.Float32("y"))
		})
	}
}

func TestGatherAtOffset(t *testing.T) {
	for _, c := range []int{1, 7, 8} {
		gpu, offset := gputest.New(t), rowAlign(c)
		const b, n, k = 2, 9, 5
		s, x := makeSlots(emptySlots{true, true, true}, b, n, k), normal(1, b*n*c)
		g, err := NewGather(gpu.Dev, GatherConfig{C: c})
		require.NoError(t, err)
		defer g.Close()
		a := GatherArgs{
			X: inputAt(gpu, "x", x, offset), Indices: inputAt(gpu, "indices", s.indices, wordAlign), Score: inputAt(gpu, "score", s.score, wordAlign),
			Valid: inputAt(gpu, "valid", s.valid, wordAlign), Y: outputAt(gpu, "y", b*k*c, offset), B: b, N: n, K: k,
		}
		gpu.Run(func(list *vk.CommandList) error { return g.Record(list, a) })
		want := ref.Gather32(ref.GatherArgs{X: x, Indices: s.refIndices, Score: s.score, Valid: s.refValid, B: b, N: n, C: c, K: k})
		assert.Equal(t, want, outputFrom(t, gpu, "y", offset), c)
	}
}

func TestGatherBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, c := range []int{0, -1, 1 << 30} {
		_, err := NewGather(gpu.Dev, GatherConfig{C: c})
		assert.ErrorContains(t, err, fmt.Sprintf("pipelines: Gather: C is %d, want 1 to", c))
	}
	g, err := NewGather(gpu.Dev, GatherConfig{C: 8})
	require.NoError(t, err)
	defer g.Close()
	big := gpu.In("big", make([]float32, 400))
	good := GatherArgs{
		X: gpu.In("x", normal(1, 2*5*8)), Indices: gpu.In("indices", make([]int32, 6)), Y: gpu.Out("y", 2*3*8*4), B: 2, N: 5, K: 3,
	}
	assertRejected(t, gpu, good, g.Record, []badArgs[GatherArgs]{
		{"B is 0, want 1", func(a *GatherArgs) { a.B = 0 }},
		{"N is -1, want 1", func(a *GatherArgs) { a.N = -1 }},
		{"K is 0, want 1", func(a *GatherArgs) { a.K = 0 }},
		{"B*N is 4294967296, want 1", func(a *GatherArgs) { a.B, a.N = 1<<16, 1<<16 }},
		{"B*K is 4294967296, want 1", func(a *GatherArgs) { a.B, a.N, a.K = 1<<16, 1, 1<<16 }},
		{"x is missing, want [B 2, N 5, C 8] f32, 320 bytes", func(a *GatherArgs) { a.X = vk.Range{} }},
		{"x has 1600 bytes, want [B 2, N 5, C 8] f32, 320 bytes", func(a *GatherArgs) { a.X = big }},
		{"x starts at byte 264 of its buffer, want a multiple of 16", func(a *GatherArgs) { a.X = big.Slice(8, 320) }},
		{"indices is missing, want [B 2, K 3] i32, 24 bytes", func(a *GatherArgs) { a.Indices = vk.Range{} }},
		{"indices has 1600 bytes, want", func(a *GatherArgs) { a.Indices = big }},
		{"indices starts at byte 258 of its buffer, want a multiple of 4", func(a *GatherArgs) { a.Indices = big.Slice(2, 24) }},
		{"score has 1600 bytes, want [B 2, K 3] f32, 24 bytes", func(a *GatherArgs) { a.Score = big }},
		{"valid has 1600 bytes, want [B 2, K 3] u32, 24 bytes", func(a *GatherArgs) { a.Valid = big }},
		{"y is missing, want [B 2, K 3, C 8] f32, 192 bytes", func(a *GatherArgs) { a.Y = vk.Range{} }},
		{"y has 1600 bytes, want", func(a *GatherArgs) { a.Y = big }},
	})
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
	require.NoError(t, (*Gather)(nil).Close())
	assertRejected(t, gpu, good, g.Record, []badArgs[GatherArgs]{{"closed", func(*GatherArgs) {}}})
}
