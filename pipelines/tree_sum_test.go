package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// treeSum returns the sum of the items of x.
func treeSum(t *testing.T, x []float32, c int) []float32 {
	gpu, items := gputest.New(t), len(x)/c
	s, err := NewTreeSum(gpu.Dev, TreeSumConfig{})
	require.NoError(t, err)
	defer s.Close()
	a := TreeSumArgs{X: inputAt(gpu, "x", x, wordAlign), Y: outputAt(gpu, "y", c, wordAlign), Items: items, C: c}
	steps := 1
	for n := items; n > 8; n = (n + 7) / 8 {
		steps++
	}
	if bytes := TreeSumScratch(items, c); bytes > 0 {
		a.Scratch = gpu.Out("scratch", int(bytes))
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	assert.Len(t, gpu.StepNames(), steps)
	if !a.Scratch.IsZero() { // the sums of each power of eight have memory of their own: writing over them would be a race
		var sums []float32
		for level := x; len(level) > 8*c; level = sums[len(sums)-(len(level)/c+7)/8*c:] {
			for group := range slices.Chunk(level, 8*c) {
				sums = append(sums, ref.TreeSum32(group, c)...)
			}
		}
		assert.Equal(t, bitsOf(sums), bitsOf(gpu.Float32("scratch")))
	}
	return slices.Clone(outputFrom(t, gpu, "y", wordAlign))
}

// bitsOf returns the bits of floats: 0 and -0 differ.
func bitsOf(x []float32) []uint32 {
	list := make([]uint32, len(x))
	for i, v := range x {
		list[i] = math.Float32bits(v)
	}
	return list
}

// treeItems are items of very different magnitudes, and of zeros of both signs, so that another order has other bits.
func treeItems(items, c int) []float32 {
	x := normal(uint64(items), items*c)
	for i := range x {
		x[i] *= float32(math.Pow(10, float64(i%13-6)))
		if i%c == 0 {
			x[i] = float32(math.Copysign(0, float64(i/c%3-1)))
		}
	}
	for i := c - 1; i < len(x); i += c {
		x[i] = float32(math.Copysign(0, -1))
	}
	return x
}

// The sum has the bits of the balanced tree on the CPU.
func TestTreeSum(t *testing.T) {
	for _, size := range []struct{ items, c int }{
		{1, 1}, {1, 300}, {2, 255}, {3, 256}, {4, 257}, {5, 31}, {6, 1}, {7, 1000}, {8, 513}, {9, 64}, {15, 7}, {16, 3}, {63, 5}, {64, 2}, {20, 512}, {65, 258}, {513, 9}, {1000, 2},
	} {
		t.Run(fmt.Sprintf("%+v", size), func(t *testing.T) {
			x := treeItems(size.items, size.c)
			y, want := treeSum(t, x, size.c), ref.TreeSum(x, size.c)
			assert.Equal(t, bitsOf(ref.TreeSum32(x, size.c)), bitsOf(y))
			assert.NoError(t, ref.MaxErr(y, want).Within(ref.Bound(ref.TreeSum32(x, size.c), want, 0)))
		})
	}
}

// Every division of the items into consecutive groups of a power of two gives the same bits, and so do zeros at the end
// except for the sign of a zero.
func TestTreeSumGroups(t *testing.T) {
	const c = 37
	for _, items := range []int{8, 1, 3, 5, 6, 7, 11, 16, 24, 64, 77} {
		x := treeItems(items, c)
		want := treeSum(t, x, c)
		for group := 1; group <= 16; group *= 2 {
			var sums []float32
			for part := range slices.Chunk(x, group*c) {
				sums = append(sums, treeSum(t, part, c)...)
			}
			assert.Equal(t, bitsOf(want), bitsOf(treeSum(t, sums, c)), "%d items in groups of %d", items, group)
		}
		padded := 1
		for padded < items {
			padded *= 2
		}
		assert.Equal(t, want, treeSum(t, slices.Concat(x, make([]float32, (padded-items)*c)), c), "%d items and zeros", items)
	}
}

// The result may replace the first item.
func TestTreeSumInPlace(t *testing.T) {
	const c = 300
	for _, items := range []int{5, 70} {
		gpu, x := gputest.New(t), treeItems(items, c)
		s, err := NewTreeSum(gpu.Dev, TreeSumConfig{})
		require.NoError(t, err)
		defer s.Close()
		a := TreeSumArgs{X: gpu.InOut("x", x), Items: items, C: c}
		a.Y = a.X.Slice(0, 4*c)
		if bytes := TreeSumScratch(items, c); bytes > 0 {
			a.Scratch = gpu.Out("scratch", int(bytes))
		}
		gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
		assert.Equal(t, bitsOf(slices.Concat(ref.TreeSum32(x, c), x[c:])), bitsOf(gpu.Float32("x")))
	}
}

func TestTreeSumBadInput(t *testing.T) {
	gpu := gputest.New(t)
	s, err := NewTreeSum(gpu.Dev, TreeSumConfig{})
	require.NoError(t, err)
	x, y, scratch := gpu.In("x", normal(1, 27)), gpu.Out("y", 12), gpu.Out("scratch", 24)
	good := TreeSumArgs{X: x, Y: y, Scratch: scratch, Items: 9, C: 3}
	assertRejected(t, gpu, good, s.Record, []badArgs[TreeSumArgs]{
		{"Items is 0, want 1", func(a *TreeSumArgs) { a.Items = 0 }},
		{"C is 0, want 1", func(a *TreeSumArgs) { a.C = 0 }},
		{"x has 108 bytes, want [Items 10, C 3] f32, 120 bytes", func(a *TreeSumArgs) { a.Items = 10 }},
		{"y is missing, want [C 3] f32, 12 bytes", func(a *TreeSumArgs) { a.Y = vk.Range{} }},
		{"scratch is missing, want TreeSumScratch, 24 bytes", func(a *TreeSumArgs) { a.Scratch = vk.Range{} }},
		{"scratch has 24 bytes, want TreeSumScratch, 0 bytes", func(a *TreeSumArgs) { a.Items, a.X = 8, x.Slice(0, 96) }},
	})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}
