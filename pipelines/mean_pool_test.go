package pipelines

import (
	"fmt"
	"math"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMeanPool(t *testing.T) {
	for _, size := range []struct{ b, n, c int }{
		{1, 1, 1}, {2, 7, 3}, {3, 8, 32}, {2, 9, 33}, {2, 255, 31}, {1, 257, 64}, {4, 64, 1024}, {1, 70001, 2}, {300, 5, 4},
	} {
		if testing.Short() && size.n != 255 && size.n != 257 {
			continue // CPU drivers compile two kernels for each
		}
		t.Run(fmt.Sprintf("%+v", size), func(t *testing.T) {
			testMeanPool(t, size.b, size.n, size.c, nil)
		})
		t.Run(fmt.Sprintf("%+v masked", size), func(t *testing.T) {
			mask := make([]uint8, size.b*size.n)
			for i := range mask { // the last item has no token, unless it is the only one
				if i < (size.b-1)*size.n || size.b == 1 {
					mask[i] = uint8(i*i%3) * 85
				}
			}
			testMeanPool(t, size.b, size.n, size.c, mask)
		})
	}
}

func testMeanPool(t *testing.T, b, n, c int, mask []uint8) {
	gpu := gputest.New(t)
	x := normal(1, b*n*c)
	for i := range x {
		x[i] += 100 // a plain float32 sum loses digits
		if mask != nil && mask[i/c] == 0 {
			x[i] = float32(math.NaN()) // padding is not read
		}
	}
	m, err := NewMeanPool(gpu.Dev, MeanPoolConfig{C: c, Masked: mask != nil})
	require.NoError(t, err)
	defer m.Close()
	a := MeanPoolArgs{X: gpu.In("x", x), Y: gpu.Out("y", 4*b*c), B: b, N: n}
	if mask != nil {
		a.Mask = gpu.In("mask", mask)
	}
	gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
	want := ref.MeanPool(x, mask, b, n, c)
	naive := ref.MeanPool32(x, mask, b, n, c)
	got := ref.MaxErr(gpu.Float32("y"), want)
	assert.NoError(t, got.Within(ref.Bound(naive, want, 1e-7)))
	assert.NoError(t, got.Within(1e-6), "long sums stay accurate")
}

func TestMeanPoolBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewMeanPool(gpu.Dev, MeanPoolConfig{})
	assert.ErrorContains(t, err, "C is 0, want 1")
	m, err := NewMeanPool(gpu.Dev, MeanPoolConfig{C: 4})
	require.NoError(t, err)
	defer m.Close()
	x, y := gpu.In("x", normal(1, 24)), gpu.Out("y", 32)
	good := MeanPoolArgs{X: x, Y: y, B: 2, N: 3}
	assertRejected(t, gpu, good, m.Record, []badArgs[MeanPoolArgs]{
		{"B is 0, want 1", func(a *MeanPoolArgs) { a.B = 0 }},
		{"N is 0, want 1", func(a *MeanPoolArgs) { a.N = 0 }},
		{"N is 520001, want at most 520000", func(a *MeanPoolArgs) { a.N = 520001 }},
		{"x is missing, want [B 2, N 3, C 4] f32, 96 bytes", func(a *MeanPoolArgs) { a.X = vk.Range{} }},
		{"mask has 24 bytes, want none", func(a *MeanPoolArgs) { a.Mask = y.Slice(0, 24) }},
		{"y has 96 bytes, want [B 2, C 4] f32, 32 bytes", func(a *MeanPoolArgs) { a.Y = x }},
	})
	masked, err := NewMeanPool(gpu.Dev, MeanPoolConfig{C: 4, Masked: true})
	require.NoError(t, err)
	defer masked.Close()
	assertRejected(t, gpu, good, masked.Record, []badArgs[MeanPoolArgs]{{"mask is missing, want [B 2, N 3] u8, 6 bytes", func(*MeanPoolArgs) {}}})
}
