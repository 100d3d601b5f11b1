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

func TestPermute(t *testing.T) {
	for _, test := range []struct{ shape, strides []int }{
		{[]int{1}, []int{7}}, {[]int{257}, []int{1}}, {[]int{3, 5}, []int{1, 3}}, {[]int{5, 1, 3}, []int{1, 0, 5}},
		{[]int{1000, 32}, []int{1, 1000}}, {[]int{32, 1000}, []int{1, 32}},
		{[]int{2, 255, 3}, []int{765, 1, 255}},                   // channels last
		{[]int{2, 3, 2, 4, 4, 5}, []int{480, 160, 20, 40, 5, 1}}, // to patch order: 3 x 2 patches of 4 x 4 pixels
		{[]int{2, 3, 4, 2, 4, 5}, []int{480, 160, 20, 80, 5, 1}}, // from patch order
		{[]int{2, 2, 2, 2, 2, 2}, []int{1, 2, 4, 8, 16, 32}},     // all axes reversed
		{[]int{70001, 3}, []int{1, 70001}},
	} {
		t.Run(fmt.Sprint(test.shape), func(t *testing.T) {
			gpu := gputest.New(t)
			count := 1
			for _, n := range test.shape {
				count *= n
			}
			x := normal(1, count)
			m, err := NewPermute(gpu.Dev, PermuteConfig{})
			require.NoError(t, err)
			defer m.Close()
			a := PermuteArgs{X: gpu.In("x", x), Y: gpu.Out("y", 4*count), Shape: test.shape, Strides: test.strides}
			gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
			assert.Equal(t, ref.Permute(x, test.shape, test.strides), gpu.Float32("y"))
		})
	}
}

// Bytes are copied in words, the last of which is padded.
func TestPermuteBytes(t *testing.T) {
	for _, test := range []struct{ shape, strides []int }{
		{[]int{1}, []int{7}}, {[]int{257}, []int{1}}, {[]int{3, 5}, []int{1, 3}}, {[]int{1023, 4}, []int{1, 1023}},
		{[]int{2, 3, 2, 5, 3}, []int{90, 30, 3, 6, 1}},
		{[]int{2, 2, 2, 2, 2, 2}, []int{1, 2, 4, 8, 16, 32}},
		{[]int{70001, 3}, []int{1, 70001}},
	} {
		t.Run(fmt.Sprint(test.shape), func(t *testing.T) {
			count := 1
			for _, n := range test.shape {
				count *= n
			}
			gpu := gputest.New(t)
			x := make([]uint8, count)
			for i := range x {
				x[i] = uint8(1 + i%251)
			}
			x[count/2] = 0
			truth := make([]uint8, count)
			for i, v := range x {
				truth[i] = min(v, 1)
			}
			bools, err := NewPermute(gpu.Dev, PermuteConfig{Bytes: true, Truth: true})
			require.NoError(t, err)
			defer bools.Close()
			m, err := NewPermute(gpu.Dev, PermuteConfig{Bytes: true})
			require.NoError(t, err)
			defer m.Close()
			a := PermuteArgs{X: gpu.In("x", x), Y: gpu.Out("y", (count+3)/4*4), Shape: test.shape, Strides: test.strides}
			b := a
			b.Y = gpu.Out("truth", (count+3)/4*4)
			gpu.Run(func(list *vk.CommandList) error {
				if err := bools.Record(list, b); err != nil {
					return err
				}
				return m.Record(list, a)
			})
			padding := make([]uint8, -count&3)
			assert.Equal(t, append(ref.Permute(x, test.shape, test.strides), padding...), gpu.Uint8("y"))
			assert.Equal(t, append(ref.Permute(truth, test.shape, test.strides), padding...), gpu.Uint8("truth"))
			if count%4 != 0 {
				a.Y = a.Y.Slice(0, uint64(count))
				assertRecordError(t, gpu, fmt.Sprintf("y has %d bytes, want [elements %d] u8", count, (count+3)/4*4), func(list *vk.CommandList) error { return m.Record(list, a) })
			}
		})
	}
}

func TestPermuteBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewPermute(gpu.Dev, PermuteConfig{Truth: true})
	assert.ErrorContains(t, err, "pipelines: Permute: Truth is true without Bytes")
	m, err := NewPermute(gpu.Dev, PermuteConfig{})
	require.NoError(t, err)
	defer m.Close()
	x, y := gpu.In("x", normal(1, 6)), gpu.Out("y", 24)
	good := PermuteArgs{X: x, Y: y, Shape: []int{2, 3}, Strides: []int{1, 2}}
	assertRejected(t, gpu, good, m.Record, []badArgs[PermuteArgs]{
		{"Shape has 0 axes and Strides 2, want 1 to 6", func(a *PermuteArgs) { a.Shape = nil }},
		{"Shape has 2 axes and Strides 1, want 1 to 6, the same number of both", func(a *PermuteArgs) { a.Strides = []int{1} }},
		{"Shape has 7 axes", func(a *PermuteArgs) { a.Shape, a.Strides = make([]int, 7), make([]int, 7) }},
		{"Shape[1] is 0, want 1", func(a *PermuteArgs) { a.Shape = []int{2, 0} }},
		{"Strides are [1 3] for Shape [2 3], want the strides of a dense tensor", func(a *PermuteArgs) { a.Strides = []int{1, 3} }},
		{"Strides are [1 1] for Shape [2 3]", func(a *PermuteArgs) { a.Strides = []int{1, 1} }},
		{"Strides[0] is -1, want at least 0", func(a *PermuteArgs) { a.Shape, a.Strides = []int{1, 6}, []int{-1, 1} }},
		{"want at most 2147483647 elements", func(a *PermuteArgs) { a.Shape, a.Strides = []int{1 << 16, 1 << 16}, []int{1 << 16, 1} }},
		{"x is missing, want [elements 6] f32, 24 bytes", func(a *PermuteArgs) { a.X = vk.Range{} }},
		{"y has 12 bytes, want [elements 6] f32, 24 bytes", func(a *PermuteArgs) { a.Y = y.Slice(0, 12) }},
	})
}
