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

func TestMeanPoolBackward(t *testing.T) {
	for _, size := range []struct{ b, n, c int }{
		{1, 1, 1}, {2, 7, 3}, {3, 8, 32}, {2, 255, 33}, {2, 256, 64}, {2, 257, 63}, {3, 131, 1024}, {2, 3, 1031}, {1, 40001, 2}, {300, 5, 4},
	} {
		if testing.Short() && size.n != 255 && size.n != 256 {
			continue // CPU drivers compile two kernels for each
		}
		for _, masked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v masked %v", size, masked), func(t *testing.T) {
				var mask []uint8
				if masked {
					mask = make([]uint8, size.b*size.n)
					for i := range mask { // the last item has no token, unless it is the only one
						if i < (size.b-1)*size.n || size.b == 1 {
							mask[i] = uint8(i*i%3) * 85
						}
					}
				}
				dy := normal(1, size.b*size.c)
				if masked && size.b > 1 {
					dy[len(dy)-1] = float32(math.Inf(1)) // of the item without tokens
				}
				gpu := gputest.New(t)
				m, err := NewMeanPoolBackward(gpu.Dev, MeanPoolConfig{C: size.c, Masked: masked})
				require.NoError(t, err)
				defer m.Close()
				a := MeanPoolBackwardArgs{DY: gpu.In("dy", dy), DX: gpu.Out("dx", 4*size.b*size.n*size.c), B: size.b, N: size.n}
				if masked {
					a.Mask = gpu.In("mask", mask)
				}
				gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
				want := ref.MeanPoolBackward(dy, mask, size.b, size.n, size.c)
				naive := ref.MeanPoolBackward32(dy, mask, size.b, size.n, size.c)
				got := gpu.Float32("dx")
				assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-7)))
				for i, v := range want { // gradients of long items are small
					require.InDelta(t, v, got[i], 1e-6*math.Abs(v), "element %d", i)
				}
			})
		}
	}
}

func TestMeanPoolBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewMeanPoolBackward(gpu.Dev, MeanPoolConfig{})
	assert.ErrorContains(t, err, "MeanPoolBackward: C is 0, want 1")
	m, err := NewMeanPoolBackward(gpu.Dev, MeanPoolConfig{C: 4, Masked: true})
	require.NoError(t, err)
	dy, dx, mask := gpu.In("dy", normal(1, 8)), gpu.Out("dx", 96), gpu.In("mask", make([]uint8, 6))
	good := MeanPoolBackwardArgs{DY: dy, DX: dx, Mask: mask, B: 2, N: 3}
	assertRejected(t, gpu, good, m.Record, []badArgs[MeanPoolBackwardArgs]{
		{"B is 0, want 1", func(a *MeanPoolBackwardArgs) { a.B = 0 }},
		{"N is -3, want 1", func(a *MeanPoolBackwardArgs) { a.N = -3 }},
		{"dy has 96 bytes, want [B 2, C 4] f32, 32 bytes", func(a *MeanPoolBackwardArgs) { a.DY = dx }},
		{"dx is missing, want [B 2, N 3, C 4] f32, 96 bytes", func(a *MeanPoolBackwardArgs) { a.DX = vk.Range{} }},
		{"mask is missing, want [B 2, N 3] u8, 6 bytes", func(a *MeanPoolBackwardArgs) { a.Mask = vk.Range{} }},
	})
	plain, err := NewMeanPoolBackward(gpu.Dev, MeanPoolConfig{C: 4})
	require.NoError(t, err)
	assertRejected(t, gpu, good, plain.Record, []badArgs[MeanPoolBackwardArgs]{
		{"mask has 6 bytes, want none", func(*MeanPoolBackwardArgs) {}},
	})
	require.NoError(t, plain.Close())
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
}
