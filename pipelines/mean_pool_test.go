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

func TestMeanPool(t *testing.T) {
	for _, size := range []struct{ b, n, c int }{
		{1, 1, 1}, {2, 7, 3}, {3, 8, 32}, {2, 9, 33}, {2, 255, 31}, {1, 257, 64}, {4, 64, 1024}, {1, 70001, 2}, {300, 5, 4},
	} {
		t.Run(fmt.Sprintf("%+v", size), func(t *testing.T) {
			gpu := gputest.New(t)
			x := normal(1, size.b*size.n*size.c)
			for i := range x {
				x[i] += 100 // a plain float32 sum loses digits
			}
			m, err := NewMeanPool(gpu.Dev, MeanPoolConfig{C: size.c})
			require.NoError(t, err)
			defer m.Close()
			a := MeanPoolArgs{X: gpu.In("x", x), Y: gpu.Out("y", 4*size.b*size.c), B: size.b, N: size.n}
			gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
			want := ref.MeanPool(x, size.b, size.n, size.c)
			naive := ref.MeanPool32(x, size.b, size.n, size.c)
			got := ref.MaxErr(gpu.Float32("y"), want)
			assert.NoError(t, got.Within(ref.Bound(naive, want, 1e-7)))
			assert.NoError(t, got.Within(1e-6), "long sums stay accurate")
		})
	}
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
		{"y has 96 bytes, want [B 2, C 4] f32, 32 bytes", func(a *MeanPoolArgs) { a.Y = x }},
	})
}
