package pipelines

import (
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSelectBadInput(t *testing.T) {
	gpu := gputest.New(t)
	s, err := NewSelect(gpu.Dev, SelectConfig{Sorted: true})
	require.NoError(t, err)
	defer s.Close()
	const rows, n, k = 4, 40000, 3
	size := s.Scratch(rows, n, k, 0)
	logits, mask, indices := gpu.In("logits", make([]float32, rows*n)), gpu.In("mask", make([]uint8, rows/2*n)), gpu.Out("indices", 4*rows*k)
	valid, values, scratch := gpu.Out("valid", 4*rows*k), gpu.Out("values", 4*rows*k), gpu.Out("scratch", int(size)+16)
	good := SelectArgs{Logits: logits, Mask: mask, Indices: indices, Valid: valid, Values: values, Scratch: scratch, Rows: rows, N: n, K: k, Routes: 2}
	for _, test := range []struct {
		name, want string
		change     func(*SelectArgs)
	}{
		{"good", "", func(*SelectArgs) {}},
		{"rows", "Rows is 0, want 1", func(a *SelectArgs) { a.Rows = 0 }},
		{"n", "N is -1, want 1", func(a *SelectArgs) { a.N = -1 }},
		{"n large", "N is 268435457, want at most 268435456", func(a *SelectArgs) { a.N = selectMax + 1 }},
		{"k", "K is 0, want 1", func(a *SelectArgs) { a.K = 0 }},
		{"k large", "K is 268435457, want at most 268435456", func(a *SelectArgs) { a.K = selectMax + 1 }},
		{"routes", "Routes is 3, want a divisor of Rows, 4", func(a *SelectArgs) { a.Routes = 3 }},
		{"routes negative", "Routes is -1, want 1", func(a *SelectArgs) { a.Routes = -1 }},
		{"block size", "BlockSize is -1, want at least 0", func(a *SelectArgs) { a.BlockSize = -1 }},
		{"skip blocks negative", "SkipBlocks is -1, want 0 to 4", func(a *SelectArgs) { a.SkipBlocks, a.BlockSize = -1, 10000 }},
		{"skip blocks large", "SkipBlocks is 5, want 0 to 4, the blocks of a row", func(a *SelectArgs) { a.SkipBlocks, a.BlockSize = 5, 10000 }},
		{"skip blocks of a row", "SkipBlocks is 1, want 0 to 0", func(a *SelectArgs) { a.SkipBlocks = 1 }},
		{"skip blocks of windows", "SkipBlocks is 1, want 0 to 0", func(a *SelectArgs) { a.SkipBlocks, a.Windows, a.WindowSize = 1, 4, 10000 }},
		{"windows alone", "WindowSize is 0, want 1", func(a *SelectArgs) { a.Windows = 4 }},
		{"window size alone", "Windows is 0, want 1", func(a *SelectArgs) { a.WindowSize = 4 }},
		{"windows negative", "Windows is -2, want 1", func(a *SelectArgs) { a.Windows, a.WindowSize = -2, 4 }},
		{"window size negative", "WindowSize is -4, want 1", func(a *SelectArgs) { a.Windows, a.WindowSize = 2, -4 }},
		{"windows and blocks", "BlockSize is 8 with 2 windows, want 0", func(a *SelectArgs) { a.Windows, a.WindowSize, a.BlockSize = 2, 4, 8 }},
		{"windows large", "Windows is 32768, want at most 32767 with WindowSize 65536", func(a *SelectArgs) { a.Windows, a.WindowSize = 32768, 65536 }},
		{"windows of indices", "indices has 48 bytes, want [Items 2, Windows 3, Routes 2, K 3] i32, 144 bytes", func(a *SelectArgs) { a.Windows, a.WindowSize = 3, 9 }},
		{"blocks", "Rows 2147483647 with 40000 blocks each", func(a *SelectArgs) { a.Rows, a.Routes, a.BlockSize = math.MaxInt32, 1, 1 }},
		{"logits missing", "logits is missing, want [Rows 4, N 40000] f32, 640000 bytes", func(a *SelectArgs) { a.Logits = vk.Range{} }},
		{"logits short", "logits has 639996 bytes, want [Rows 4, N 40000] f32", func(a *SelectArgs) { a.Logits = logits.Slice(0, 639996) }},
		{"mask long", "mask has 80000 bytes, want [Rows / Routes 1, N 40000] u8", func(a *SelectArgs) { a.Routes = 4 }},
		{"indices missing", "indices is missing, want [Rows 4, Blocks 1, K 3] i32, 48 bytes", func(a *SelectArgs) { a.Indices = vk.Range{} }},
		{"indices short", "indices has 48 bytes, want [Rows 4, Blocks 2, K 3] i32, 96 bytes", func(a *SelectArgs) { a.BlockSize = 39999 }},
		{"indices unaligned", "indices starts at byte 258 of its buffer, want a multiple of 4", func(a *SelectArgs) {
			a.Rows, a.Routes, a.K, a.N, a.Indices = 1, 1, 3, 10, indices.Slice(2, 12)
			a.Logits, a.Mask, a.Valid, a.Values = logits.Slice(4, 40), mask.Slice(1, 10), valid.Slice(8, 12), values.Slice(4, 12)
		}},
		{"valid missing", "valid is missing, want [Rows 4, Blocks 1, K 3] u32", func(a *SelectArgs) { a.Valid = vk.Range{} }},
		{"values short", "values has 44 bytes, want [Rows 4, Blocks 1, K 3] f32, 48 bytes", func(a *SelectArgs) { a.Values = values.Slice(0, 44) }},
		{"scratch missing", fmt.Sprintf("scratch has 0 bytes, want at least %d", size), func(a *SelectArgs) { a.Scratch = vk.Range{} }},
		{"scratch short", fmt.Sprintf("scratch has %d bytes, want at least %d", size-1, size), func(a *SelectArgs) { a.Scratch = scratch.Slice(0, size-1) }},
		{"scratch unaligned", "scratch starts at byte 260 of its buffer, want a multiple of 16", func(a *SelectArgs) { a.Scratch = scratch.Slice(4, size) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := good
			test.change(&a)
			list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
			require.NoError(t, err)
			defer list.Close()
			if err := s.Record(list, a); test.want == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, test.want)
			}
		})
	}
	assert.Zero(t, s.Scratch(0, 1, 1, 0))
	assert.Zero(t, s.Scratch(1, 1, 1, -1))
	assert.Equal(t, size, SelectScratch(gpu.Dev.Caps(), SelectConfig{Sorted: true}, rows, n, k, 0, 0))
	assert.Greater(t, SelectScratch(gpu.Dev.Caps(), SelectConfig{Sorted: true}, rows, n, k, 0, 5), size)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NoError(t, (*Select)(nil).Close())
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "closed"})
	require.NoError(t, err)
	defer list.Close()
	assert.ErrorIs(t, s.Record(list, good), vk.ErrClosed)
}
