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

// gradientNorm returns the norm of x and whether it overflows.
func gradientNorm(t *testing.T, x []float32) (norm float32, overflow uint32) {
	t.Helper()
	gpu := gputest.New(t)
	g, err := NewGradientNorm(gpu.Dev, GradientNormConfig{})
	require.NoError(t, err)
	defer g.Close()
	a := GradientNormArgs{X: gpu.In("x", x), Norm: gpu.Out("norm", 8), Scratch: gpu.Out("scratch", int(GradientNormScratch(len(x)))), N: len(x)}
	gpu.Run(func(list *vk.CommandList) error { return g.Record(list, a) })
	assert.Len(t, gpu.StepNames(), 2)
	return gpu.Float32("norm")[0], gpu.Uint32("norm")[1]
}

func TestGradientNorm(t *testing.T) {
	sizes := []int{1, 2, 3, 4, 5, 1023, 1024, 1025, 16383, 16384, 16385, 16387, 70001, 256*16384 + 1}
	if testing.Short() {
		sizes = sizes[:len(sizes)-1]
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			x := normal(1, n)
			x[n-1] = float32(math.Sqrt(float64(n))) // no element may be left out
			norm, overflow := gradientNorm(t, x)
			want, _ := ref.GradientNorm(x)
			assert.InEpsilon(t, want, norm, 1e-6)
			assert.Zero(t, overflow)
		})
	}
}

// The position of an element does not matter, nor do those beyond the last one.
func TestGradientNormPositions(t *testing.T) {
	const n = 16384 + 4099
	for _, i := range []int{0, 3, 4, 1023, 1024, 16383, 16384, n - 4, n - 1} {
		x := make([]float32, n)
		x[i] = -3
		norm, overflow := gradientNorm(t, x)
		assert.EqualValues(t, 3, norm, i)
		assert.Zero(t, overflow, i)
		x[i] = float32(math.NaN())
		norm, overflow = gradientNorm(t, x)
		assert.Zero(t, norm, i)
		assert.EqualValues(t, 1, overflow, i)
	}
}

// Squares that float32 cannot hold, alone and among others.
func TestGradientNormLarge(t *testing.T) {
	const n = 2000
	max := float32(math.MaxFloat32)
	for _, c := range []struct {
		small, large float32
		larges       int
	}{
		{1, 1 << 40, 1}, {1, 1<<40 - 1<<20, 1}, {1 << 39, 1 << 40, 1}, {1 << 39, 1 << 40, 1000}, {1, 1e19, 7}, {1e19, 1e20, 7}, {1e-3, 1e38, 2},
		{1e30, 1e30, 0}, {0, max, 1}, {0, -max, 1}, {1e-15, 1e-10, 3}, {0, 0, 0},
	} {
		x := make([]float32, n)
		for i := range x {
			x[i] = c.small
			if i < c.larges {
				x[i] = c.large
			}
		}
		norm, overflow := gradientNorm(t, x)
		want, _ := ref.GradientNorm(x)
		assert.InDelta(t, want, norm, 1e-6*want, "%+v", c)
		assert.Zero(t, overflow, "%+v", c)
	}
	norm, overflow := gradientNorm(t, []float32{max, max})
	assert.True(t, math.IsInf(float64(norm), 1), "above the largest float")
	assert.Zero(t, overflow, "every element is finite")
}

func TestGradientNormOverflow(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, bad := range []float32{inf, -inf, nan, math.Float32frombits(0xff800001)} {
		x := normal(1, 5)
		x[1], x[4] = bad, bad
		norm, overflow := gradientNorm(t, x)
		want, _ := ref.GradientNorm(x)
		assert.InEpsilon(t, want, norm, 1e-6)
		assert.EqualValues(t, 1, overflow)
	}
}

func TestGradientNormBadInput(t *testing.T) {
	gpu := gputest.New(t)
	g, err := NewGradientNorm(gpu.Dev, GradientNormConfig{})
	require.NoError(t, err)
	x, norm, scratch := gpu.In("x", normal(1, 20000)), gpu.Out("norm", 8), gpu.Out("scratch", 32)
	good := GradientNormArgs{X: x, Norm: norm, Scratch: scratch, N: 20000}
	assertRejected(t, gpu, good, g.Record, []badArgs[GradientNormArgs]{
		{"N is 0, want 1 to 17179869184", func(a *GradientNormArgs) { a.N = 0 }},
		{"x has 80000 bytes, want [N 19999] f32, 79996 bytes", func(a *GradientNormArgs) { a.N = 19999 }},
		{"norm is missing, want [Words 2] u32, 8 bytes", func(a *GradientNormArgs) { a.Norm = vk.Range{} }},
		{"scratch has 16 bytes, want GradientNormScratch, 32 bytes", func(a *GradientNormArgs) { a.Scratch = scratch.Slice(0, 16) }},
	})
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
}
