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

func TestColumnSum(t *testing.T) {
	for _, size := range []struct{ rows, c int }{
		{1, 1}, {2, 3}, {7, 31}, {8, 32}, {9, 33}, {255, 64}, {256, 5}, {257, 65}, {513, 100}, {65536, 3}, {65537, 2}, {70001, 1},
	} {
		for _, add := range []bool{false, true} {
			t.Run(fmt.Sprintf("%dx%d add %v", size.rows, size.c, add), func(t *testing.T) {
				gpu := gputest.New(t)
				s, err := NewColumnSum(gpu.Dev, ColumnSumConfig{C: size.c, Add: add})
				require.NoError(t, err)
				defer s.Close()
				x, base := normal(1, size.rows*size.c), []float32(nil)
				a := ColumnSumArgs{X: inputAt(gpu, "x", x, wordAlign), Rows: size.rows}
				if add {
					base = normal(2, size.c)
					a.Y = gpu.InOut("y", base)
				} else {
					a.Y = gpu.Out("y", 4*size.c)
				}
				steps := 1
				if bytes := ColumnSumScratch(size.rows, size.c); bytes > 0 {
					a.Scratch, steps = gpu.Out("scratch", int(bytes)), 2
				}
				assert.Equal(t, size.rows > 256, steps == 2)
				gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
				assert.Len(t, gpu.StepNames(), steps)
				want, naive := ref.ColumnSum(x, base, size.c), ref.ColumnSum32(x, base, size.c)
				assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 1e-6)))
			})
		}
	}
}

func TestColumnSumBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewColumnSum(gpu.Dev, ColumnSumConfig{})
	assert.ErrorContains(t, err, "C is 0, want 1")
	s, err := NewColumnSum(gpu.Dev, ColumnSumConfig{C: 2})
	require.NoError(t, err)
	x, y, scratch := gpu.In("x", normal(1, 600)), gpu.Out("y", 8), gpu.Out("scratch", 16)
	good := ColumnSumArgs{X: x, Y: y, Scratch: scratch, Rows: 300}
	assertRejected(t, gpu, good, s.Record, []badArgs[ColumnSumArgs]{
		{"Rows is 0, want 1", func(a *ColumnSumArgs) { a.Rows = 0 }},
		{"x has 2400 bytes, want [Rows 299, C 2] f32, 2392 bytes", func(a *ColumnSumArgs) { a.Rows = 299 }},
		{"y is missing, want [C 2] f32, 8 bytes", func(a *ColumnSumArgs) { a.Y = vk.Range{} }},
		{"scratch is missing, want ColumnSumScratch, 16 bytes", func(a *ColumnSumArgs) { a.Scratch = vk.Range{} }},
		{"scratch has 16 bytes, want ColumnSumScratch, 0 bytes", func(a *ColumnSumArgs) { a.Rows, a.X = 1, x.Slice(0, 8) }},
	})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}
