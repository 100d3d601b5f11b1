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

func TestMSE(t *testing.T) {
	for _, test := range []struct {
		items, n, count int
		scale           float32
	}{
		{1, 1, 0, 1}, {2, 7, 100, 1}, {3, 255, 0, 1}, {2, 256, 12345, 1}, {2, 257, 0, 1e-15}, {1, 4095, 0, 1}, {2, 4096, 0, 1e15}, {2, 4097, 1, 1},
		{3, 33001, 0, 1}, {1, 300001, 0, 1}, {1, 1100001, 0, 1}, {400, 3, 0, 1},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			if testing.Short() && test.n > 1000000 { // the only size with blocks of more than 4,096 elements
				t.Skip("takes 3 s")
			}
			gpu := gputest.New(t)
			m, err := NewMSE(gpu.Dev, MSEConfig{})
			require.NoError(t, err)
			defer m.Close()
			size, upstream, count := test.items*test.n, float32(1), test.count
			y, target := scaled(normal(1, size), test.scale), scaled(normal(2, size), test.scale)
			if count == 0 {
				count = size
			}
			a := MSEArgs{
				Y: inputAt(gpu, "y", y, wordAlign), Target: inputAt(gpu, "target", target, wordAlign), Losses: gpu.Out("losses", 4*test.items),
				DY: gpu.Out("dy", 4*size), Scratch: gpu.Out("scratch", int(MSEScratch(test.items, test.n))), Items: test.items, N: test.n, Count: test.count,
			}
			inPlace, lossOnly := a, a
			inPlace.Y, inPlace.Losses = gpu.InOut("y and dy", y), gpu.Out("losses 2", 4*test.items)
			inPlace.DY = inPlace.Y
			lossOnly.DY, lossOnly.Losses = vk.Range{}, gpu.Out("losses 3", 4*test.items)
			if test.n%2 == 1 {
				upstream = 0.375
				a.Upstream = gpu.In("upstream", []float32{upstream})
				inPlace.Upstream = a.Upstream
			}
			gpu.Run(func(list *vk.CommandList) error {
				return firstError(m.Record(list, a), m.Record(list, inPlace), m.Record(list, lossOnly))
			})
			losses, dy := ref.MSE(y, target, test.items, count, upstream)
			losses32, dy32 := ref.MSE32(y, target, test.items, count, upstream)
			assert.NoError(t, ref.MaxErr(gpu.Float32("losses"), losses).Within(ref.Bound(losses32, losses, 1e-6)))
			assert.NoError(t, ref.MaxErr(gpu.Float32("dy"), dy).Within(ref.Bound(dy32, dy, 1e-7)))
			gotLosses, gotDY := gpu.Float32("losses"), gpu.Float32("dy")
			for i, v := range losses { // relative, where losses are small or sums are long
				require.InEpsilon(t, v, gotLosses[i], 1e-6)
			}
			for i, v := range dy {
				require.InDelta(t, v, gotDY[i], 1e-6*max(v, -v, float64(test.scale)*1e-2/float64(count)), "element %d", i)
			}
			assert.Equal(t, gpu.Float32("dy"), gpu.Float32("y and dy"))
			assert.Equal(t, gpu.Float32("losses"), gpu.Float32("losses 2"))
			assert.Equal(t, gpu.Float32("losses"), gpu.Float32("losses 3"))
		})
	}
}

// The loss of an item does not depend on its place in a batch.
func TestMSEBits(t *testing.T) {
	const n = 9001
	y, target := normal(1, n), normal(2, n)
	run := func(y, target []float32, items int) []float32 {
		gpu := gputest.New(t)
		m, err := NewMSE(gpu.Dev, MSEConfig{})
		require.NoError(t, err)
		defer m.Close()
		a := MSEArgs{Y: gpu.In("y", y), Target: gpu.In("target", target), Losses: gpu.Out("losses", 4*items), Scratch: gpu.Out("scratch", int(MSEScratch(items, n))),
			Items: items, N: n, Count: 7}
		gpu.Run(func(list *vk.CommandList) error { return m.Record(list, a) })
		return gpu.Float32("losses")
	}
	all := run(append(normal(3, 2*n), y...), append(normal(4, 2*n), target...), 3)
	assert.Equal(t, run(y, target, 1), all[2:])
}

func TestMSEBadInput(t *testing.T) {
	gpu := gputest.New(t)
	m, err := NewMSE(gpu.Dev, MSEConfig{})
	require.NoError(t, err)
	y, out, losses, scratch := gpu.In("y", normal(1, 6)), gpu.Out("out", 24), gpu.Out("losses", 8), gpu.Out("scratch", 8)
	good := MSEArgs{Y: y, Target: y, Losses: losses, DY: out, Scratch: scratch, Items: 2, N: 3}
	assertRejected(t, gpu, good, m.Record, []badArgs[MSEArgs]{
		{"Items is 0, want 1", func(a *MSEArgs) { a.Items = 0 }},
		{"N is 0, want 1", func(a *MSEArgs) { a.N = 0 }},
		{"N is 1073741824, want at most 1073741823", func(a *MSEArgs) { a.N = 1 << 30 }},
		{"Count is -1, want at least 1, or 0 for Items * N", func(a *MSEArgs) { a.Count = -1 }},
		{"y has 8 bytes, want [Items 2, N 3] f32, 24 bytes", func(a *MSEArgs) { a.Y = losses }},
		{"target is missing, want [Items 2, N 3] f32, 24 bytes", func(a *MSEArgs) { a.Target = vk.Range{} }},
		{"losses has 24 bytes, want [Items 2] f32, 8 bytes", func(a *MSEArgs) { a.Losses = out }},
		{"dy has 8 bytes, want [Items 2, N 3] f32, 24 bytes", func(a *MSEArgs) { a.DY = losses }},
		{"upstream has 8 bytes, want none without dy", func(a *MSEArgs) { a.DY, a.Upstream = vk.Range{}, losses }},
		{"upstream has 8 bytes, want [Values 1] f32, 4 bytes", func(a *MSEArgs) { a.Upstream = losses }},
		{"scratch is missing, want MSEScratch, 8 bytes", func(a *MSEArgs) { a.Scratch = vk.Range{} }},
	})
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
}
