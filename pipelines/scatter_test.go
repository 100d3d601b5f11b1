package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestScatter(t *testing.T) {
	all := emptySlots{true, true, true}
	for _, size := range []struct {
		b, n, k, c int
		kind       emptySlots
	}{
		{1, 1, 1, 1, emptySlots{}},
		{2, 1000, 255, 1, all}, {2, 300, 256, 1, emptySlots{score: true}}, {2, 257, 257, 1, emptySlots{outOfRange: true}},
		{2, 7, 5, 3, all}, {2, 31, 17, 4, emptySlots{valid: true}}, {3, 20, 20, 64, emptySlots{}},
		{2, 9, 4, 255, all}, {2, 9, 4, 257, all}, {2, 70, 67, 512, all}, {1, 9, 5, 1020, all}, {1, 9, 5, 1028, all}, {1, 5, 3, 1031, all},
		{2, 1, 1, 4, emptySlots{valid: true}}, // every slot is empty
		{1, 70001, 100, 4, all},
		{1, 65600, 65537, 129, all}, // one workgroup per row: more than many devices allow in x
	} {
		for _, mode := range []struct {
			add, base, inPlace, row bool
			dispatches              int
		}{
			{dispatches: 2},
			{row: true, dispatches: 2},
			{base: true, dispatches: 2},
			{base: true, inPlace: true, dispatches: 1},
			{base: true, inPlace: true, row: true, dispatches: 2},
			{add: true, row: true, dispatches: 2},
			{add: true, base: true, dispatches: 2},
			{add: true, base: true, row: true, dispatches: 2},
			{add: true, base: true, inPlace: true, dispatches: 1},
		} {
			if size.n == 65600 && !(mode.add && mode.inPlace || mode.row && mode.base && !mode.add) {
				continue // one large case per kernel is enough
			}
			if testing.Short() && size.c != 3 && size.c != 4 && size.c != 255 && size.c != 1020 || testing.Short() && size.n == 70001 {
				continue // CPU drivers compile a kernel for each, and the large cases take 9 s
			}
			name := fmt.Sprintf("%d_%d_%d_%d add=%t base=%t inPlace=%t row=%t",
				size.b, size.n, size.k, size.c, mode.add, mode.base, mode.inPlace, mode.row)
			t.Run(name, func(t *testing.T) {
				gpu := gputest.New(t)
				list := makeSlots(size.kind, size.b, size.n, size.k)
				args := ref.ScatterArgs{
					Value: normal(1, size.b*size.k*size.c), Indices: list.refIndices, Score: list.score, Valid: list.refValid, Add: mode.add,
					B: size.b, N: size.n, C: size.c, K: size.k,
				}
				s, err := NewScatter(gpu.Dev, ScatterConfig{C: size.c, Add: mode.add})
				require.NoError(t, err)
				defer s.Close()
				a := ScatterArgs{Value: gpu.In("value", args.Value), B: size.b, N: size.n, K: size.k}
				a.Indices, a.Score, a.Valid = list.inputs(gpu)
				if mode.row {
					args.Row = normal(2, size.c)
					a.Row = gpu.In("row", args.Row)
				}
				if mode.base {
					args.Base = normal(3, size.b*size.n*size.c)
				}
				switch {
				case mode.inPlace:
					a.Y = gpu.InOut("y", args.Base)
					a.Base = a.Y
				case mode.base:
					a.Base = gpu.In("base", args.Base)
					fallthrough
				default:
					a.Y = gpu.Out("y", 4*size.b*size.n*size.c)
				}
				gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
				assert.Len(t, gpu.StepNames(), mode.dispatches)
				naive, want := ref.Scatter32(args), ref.Scatter(args)
				if !mode.add {
					// One rounding per element: bits are equal.
					assert.Equal(t, naive, gpu.Float32("y"))
				}
				assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 1e-7)))
			})
		}
	}
}

// Without slots there is only the dispatch that initialises y.
func TestScatterWithoutSlots(t *testing.T) {
	const b, n = 2, 37
	for _, c := range []int{1, 8, 30} {
		for _, mode := range []struct {
			add, base, inPlace, row bool
			dispatches              int
		}{
			{dispatches: 1}, {row: true, dispatches: 1}, {base: true, dispatches: 1}, {base: true, row: true, dispatches: 1},
			{base: true, inPlace: true, row: true, dispatches: 1},
			{add: true, base: true, inPlace: true, row: true, dispatches: 1},
		} {
			t.Run(fmt.Sprintf("%d %+v", c, mode), func(t *testing.T) {
				gpu := gputest.New(t)
				args := ref.ScatterArgs{B: b, N: n, C: c}
				s, err := NewScatter(gpu.Dev, ScatterConfig{C: c, Add: mode.add})
				require.NoError(t, err)
				defer s.Close()
				a := ScatterArgs{B: b, N: n}
				if mode.row {
					args.Row = normal(2, c)
					a.Row = gpu.In("row", args.Row)
				}
				if mode.base {
					args.Base = normal(3, b*n*c)
				}
				switch {
				case mode.inPlace:
					a.Y = gpu.InOut("y", args.Base)
					a.Base = a.Y
				case mode.base:
					a.Base = gpu.In("base", args.Base)
					fallthrough
				default:
					a.Y = gpu.Out("y", 4*b*n*c)
				}
				gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
				assert.Len(t, gpu.StepNames(), mode.dispatches)
				assert.Equal(t, ref.Scatter32(args), gpu.Float32("y"))
			})
		}
	}
}

// In place, without slots and without a row, there is nothing to do.
func TestScatterNoDispatch(t *testing.T) {
	gpu := gputest.New(t)
	s, err := NewScatter(gpu.Dev, ScatterConfig{C: 4})
	require.NoError(t, err)
	defer s.Close()
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "no dispatch"})
	require.NoError(t, err)
	defer list.Close()
	y := gpu.Out("y", 3*4*4)
	require.NoError(t, s.Record(list, ScatterArgs{Base: y, Y: y, B: 1, N: 3}))
	assert.Empty(t, list.StepNames())
}

func TestScatterAtOffset(t *testing.T) {
	for _, c := range []int{1, 7, 8} {
		gpu, offset := gputest.New(t), rowAlign(c)
		const b, n, k = 2, 9, 5
		list := makeSlots(emptySlots{true, true, true}, b, n, k)
		args := ref.ScatterArgs{
			Value: normal(1, b*k*c), Indices: list.refIndices, Score: list.score, Valid: list.refValid, Row: normal(2, c), Base: normal(3, b*n*c),
			B: b, N: n, C: c, K: k,
		}
		s, err := NewScatter(gpu.Dev, ScatterConfig{C: c})
		require.NoError(t, err)
		defer s.Close()
		a := ScatterArgs{
			Value: inputAt(gpu, "value", args.Value, offset), Indices: inputAt(gpu, "indices", list.indices, wordAlign),
			Score: inputAt(gpu, "score", list.score, wordAlign), Valid: inputAt(gpu, "valid", list.valid, wordAlign),
			Base: inputAt(gpu, "base", args.Base, offset), Row: inputAt(gpu, "row", args.Row, offset), Y: outputAt(gpu, "y", b*n*c, offset),
			B: b, N: n, K: k,
		}
		gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
		assert.Equal(t, ref.Scatter32(args), outputFrom(t, gpu, "y", offset), c)
	}
}

func TestScatterBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, c := range []int{0, -1, 1 << 30} {
		_, err := NewScatter(gpu.Dev, ScatterConfig{C: c})
		assert.ErrorContains(t, err, fmt.Sprintf("pipelines: Scatter: C is %d, want 1 to", c))
	}
	s, err := NewScatter(gpu.Dev, ScatterConfig{C: 8, Add: true})
	require.NoError(t, err)
	defer s.Close()
	big, row := gpu.In("big", make([]float32, 400)), gpu.In("row", normal(2, 8))
	good := ScatterArgs{
		Value: gpu.In("value", normal(1, 2*3*8)), Indices: gpu.In("indices", make([]int32, 6)), Y: gpu.Out("y", 2*5*8*4), B: 2, N: 5, K: 3,
	}
	assertRejected(t, gpu, good, s.Record, []badArgs[ScatterArgs]{
		{"B is 0, want 1", func(a *ScatterArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *ScatterArgs) { a.N = 0 }},
		{"K is 0, want 1", func(a *ScatterArgs) { a.K = 0 }},
		{"K is -1, want 1", func(a *ScatterArgs) { a.K, a.Value = -1, vk.Range{} }},
		{"indices has 24 bytes, score 0 and valid 0, want none: K is 0", func(a *ScatterArgs) { a.K, a.Value = 0, vk.Range{} }},
		{"row starts at byte 260 of its buffer, want a multiple of 16", func(a *ScatterArgs) { a.Row = big.Slice(4, 32) }},
		{"indices starts at byte 257 of its buffer, want a multiple of 4", func(a *ScatterArgs) { a.Indices = big.Slice(1, 24) }},
		{"B*N is 4294967296, want 1", func(a *ScatterArgs) { a.B, a.N = 1<<16, 1<<16 }},
		{"B*K is 4294967296, want 1", func(a *ScatterArgs) { a.B, a.N, a.K = 1<<16, 1, 1<<16 }},
		{"value is missing, want [B 2, K 3, C 8] f32, 192 bytes", func(a *ScatterArgs) { a.Value = vk.Range{} }},
		{"value has 1600 bytes, want", func(a *ScatterArgs) { a.Value = big }},
		{"value starts at byte 260 of its buffer, want a multiple of 16", func(a *ScatterArgs) { a.Value = big.Slice(4, 192) }},
		{"indices is missing, want [B 2, K 3] i32, 24 bytes", func(a *ScatterArgs) { a.Indices = vk.Range{} }},
		{"indices has 1600 bytes, want", func(a *ScatterArgs) { a.Indices = big }},
		{"score has 1600 bytes, want [B 2, K 3] f32, 24 bytes", func(a *ScatterArgs) { a.Score = big }},
		{"valid has 1600 bytes, want [B 2, K 3] u32, 24 bytes", func(a *ScatterArgs) { a.Valid = big }},
		{"base has 1600 bytes, want [B 2, N 5, C 8] f32, 320 bytes", func(a *ScatterArgs) { a.Base = big }},
		{"row has 1600 bytes, want [C 8] f32, 32 bytes", func(a *ScatterArgs) { a.Row = big }},
		{"y is missing, want [B 2, N 5, C 8] f32, 320 bytes", func(a *ScatterArgs) { a.Y = vk.Range{} }},
		{"y has 1600 bytes, want", func(a *ScatterArgs) { a.Y = big }},
		{"want a base other than y", func(a *ScatterArgs) { a.Base, a.Row = a.Y, row }},
	})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NoError(t, (*Scatter)(nil).Close())
	assertRejected(t, gpu, good, s.Record, []badArgs[ScatterArgs]{{"closed", func(*ScatterArgs) {}}})
}
