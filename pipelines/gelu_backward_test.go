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

// geluInputs has values of all magnitudes, and 0.
func geluInputs(n int) []float32 {
	x := scaled(normal(1, n), 3)
	for i, v := range []float32{0, 1e-30, -1e-30, 14.9, -14.9, 16, -16, 3e30, -3e30, math.MaxFloat32, -math.MaxFloat32} {
		if 2*i+1 < n {
			x[2*i+1] = v
		}
	}
	return x
}

// geluOf is the GELU in float64 and in plain float32: a product with 1 that is followed by it.
func geluOf(x []float32) (want []float64, naive []float32) {
	a := ref.LinearArgs{X: x, W: []float32{1}, Rows: len(x), In: 1, Out: 1, GELU: true}
	return ref.Linear(a), ref.Linear32(a)
}

func TestGELUBackward(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 1023, 1024, 1025, 4099, 70001} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			gpu := gputest.New(t)
			g, err := NewGELUBackward(gpu.Dev, GELUBackwardConfig{})
			require.NoError(t, err)
			defer g.Close()
			x, dy := geluInputs(n), normal(2, n)
			a := GELUBackwardArgs{X: gpu.In("x", x), Dy: gpu.In("dy", dy), Dx: gpu.Out("dx", 4*n), N: n}
			both := a
			both.Dx, both.Y = gpu.Out("dx beside y", 4*n), gpu.Out("y", 4*n)
			parts, divided := *g, both
			parts.most, divided.Dx, divided.Y = 1000, gpu.Out("dx in parts", 4*n), gpu.Out("y in parts", 4*n)
			gpu.Run(func(list *vk.CommandList) error {
				return firstError(g.Record(list, a), g.Record(list, both), parts.Record(list, divided))
			})
			assert.Equal(t, gpu.Float32("dx"), gpu.Float32("dx in parts"))
			assert.Equal(t, gpu.Float32("y"), gpu.Float32("y in parts"))
			want, naive := ref.GELUBackward(x, dy), ref.GELUBackward32(x, dy)
			assert.NoError(t, ref.MaxErr(gpu.Float32("dx"), want).Within(ref.Bound(naive, want, 1e-6)))
			assert.Equal(t, gpu.Float32("dx"), gpu.Float32("dx beside y"))
			y := gpu.Float32("y")
			for i, v := range x { // the scale of y varies
				wantY, naiveY := geluOf(x[i : i+1])
				require.NoError(t, ref.MaxErr(y[i:i+1], wantY).Within(ref.Bound(naiveY, wantY, 1e-6)), "gelu of %g", v)
			}
		})
	}
}

// The gradient may replace dy, and the GELU x.
func TestGELUBackwardInPlace(t *testing.T) {
	const n = 1027
	gpu := gputest.New(t)
	g, err := NewGELUBackward(gpu.Dev, GELUBackwardConfig{})
	require.NoError(t, err)
	defer g.Close()
	x, dy := geluInputs(n), normal(2, n)
	apart := GELUBackwardArgs{X: gpu.In("x", x), Dy: gpu.In("dy", dy), Dx: gpu.Out("dx", 4*n), Y: gpu.Out("y", 4*n), N: n}
	inPlace := GELUBackwardArgs{X: gpu.InOut("x and y", x), Dy: gpu.InOut("dy and dx", dy), N: n}
	inPlace.Y, inPlace.Dx = inPlace.X, inPlace.Dy
	gpu.Run(func(list *vk.CommandList) error { return firstError(g.Record(list, apart), g.Record(list, inPlace)) })
	assert.Equal(t, gpu.Float32("dx"), gpu.Float32("dy and dx"))
	assert.Equal(t, gpu.Float32("y"), gpu.Float32("x and y"))
}

func TestGELUBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	g, err := NewGELUBackward(gpu.Dev, GELUBackwardConfig{})
	require.NoError(t, err)
	x, y := gpu.In("x", normal(1, 6)), gpu.Out("y", 24)
	good := GELUBackwardArgs{X: x, Dy: x, Dx: y, N: 6}
	assertRejected(t, gpu, good, g.Record, []badArgs[GELUBackwardArgs]{
		{"N is 0, want 1 to 17179869184", func(a *GELUBackwardArgs) { a.N = 0 }},
		{"x is missing, want [N 6] f32, 24 bytes", func(a *GELUBackwardArgs) { a.X = vk.Range{} }},
		{"dy has 20 bytes, want [N 6] f32, 24 bytes", func(a *GELUBackwardArgs) { a.Dy = x.Slice(0, 20) }},
		{"dx has 20 bytes, want [N 6] f32, 24 bytes", func(a *GELUBackwardArgs) { a.Dx = y.Slice(0, 20) }},
		{"y has 20 bytes, want [N 6] f32, 24 bytes", func(a *GELUBackwardArgs) { a.Y = y.Slice(0, 20) }},
		{"dx and y are the same range", func(a *GELUBackwardArgs) { a.Y = y }},
	})
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
}
