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

func TestPatchEmbedBackward(t *testing.T) {
	for _, test := range []struct {
		b int
		c PatchEmbedConfig
	}{
		{1, PatchEmbedConfig{1, 1, 1, 1, 1}}, {3, PatchEmbedConfig{3, 8, 12, 4, 4}}, {2, PatchEmbedConfig{3, 6, 35, 2, 7}}, {2, PatchEmbedConfig{2, 15, 9, 5, 3}},
		{1, PatchEmbedConfig{5, 7, 11, 7, 1}}, {2, PatchEmbedConfig{1, 40, 42, 2, 1}}, {2, PatchEmbedConfig{3, 32, 48, 16, 16}},
	} {
		if testing.Short() && test.c.Width != 35 {
			continue // CPU drivers compile five kernels for each
		}
		for _, add := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d_%v add %v", test.b, test.c, add), func(t *testing.T) {
				gpu := gputest.New(t)
				e, err := NewPatchEmbedBackward(gpu.Dev, PatchEmbedBackwardConfig{test.c, add})
				require.NoError(t, err)
				defer e.Close()
				c, row := test.c, test.c.row()
				size := test.b * c.patches() * row
				r := ref.PatchEmbedArgs{X: normal(1, size), Weight: normal(2, row), Bias: normal(3, row), B: test.b, Channels: c.Channels,
					Height: c.Height, Width: c.Width, PatchHeight: c.PatchHeight, PatchWidth: c.PatchWidth}
				dy := normal(4, size)
				a := PatchEmbedBackwardArgs{X: gpu.In("x", r.X), Weight: gpu.In("weight", r.Weight), DY: gpu.In("dy", dy), DX: gpu.Out("dx", 4*size),
					Scratch: gpu.Out("scratch", int(PatchEmbedBackwardScratch(c, test.b))), B: test.b}
				base := [2][]float32{make([]float32, test.b*row), make([]float32, test.b*row)}
				if add {
					base = [2][]float32{normal(5, test.b*row), normal(6, test.b*row)}
					a.DWeight, a.DBias = gpu.InOut("dweight", base[0]), gpu.InOut("dbias", base[1])
				} else {
					a.DWeight, a.DBias = gpu.Out("dweight", 4*test.b*row), gpu.Out("dbias", 4*test.b*row)
				}
				gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
				image := size / test.b
				for item := range test.b {
					one := r
					one.X, one.B = r.X[item*image:(item+1)*image], 1
					want, naive := ref.PatchEmbedBackward(one, dy[item*image:(item+1)*image]), ref.PatchEmbedBackward32(one, dy[item*image:(item+1)*image])
					for i := range row {
						for j, d := range [][]float64{want.Weight, want.Bias} {
							d[i] += float64(base[j][item*row+i])
						}
						for j, d := range [][]float32{naive.Weight, naive.Bias} {
							d[i] += base[j][item*row+i]
						}
					}
					assert.NoError(t, ref.MaxErr(gpu.Float32("dx")[item*image:(item+1)*image], want.X).Within(ref.Bound(naive.X, want.X, 2e-6)), "dx")
					assert.NoError(t, ref.MaxErr(gpu.Float32("dweight")[item*row:(item+1)*row], want.Weight).Within(ref.Bound(naive.Weight, want.Weight, 2e-6)), "dweight")
					assert.NoError(t, ref.MaxErr(gpu.Float32("dbias")[item*row:(item+1)*row], want.Bias).Within(ref.Bound(naive.Bias, want.Bias, 1e-6)), "dbias")
				}
			})
		}
	}
}

// Without dx the last dispatch is left out.
func TestPatchEmbedBackwardWithoutImages(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	gpu := gputest.New(t)
	c := PatchEmbedConfig{3, 4, 8, 4, 4}
	e, err := NewPatchEmbedBackward(gpu.Dev, PatchEmbedBackwardConfig{PatchEmbedConfig: c})
	require.NoError(t, err)
	x, out := gpu.In("x", normal(1, 192)), gpu.Out("dweight", 384)
	a := PatchEmbedBackwardArgs{X: x, Weight: gpu.In("weight", normal(2, 48)), DY: gpu.In("dy", normal(3, 192)), DX: gpu.Out("dx", 768), DWeight: out,
		DBias: gpu.Out("dbias", 384), Scratch: gpu.Out("scratch", int(PatchEmbedBackwardScratch(c, 2))), B: 2}
	gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
	steps, want := len(gpu.StepNames()), gpu.Float32("dweight")
	without := a
	without.DX = vk.Range{}
	gpu.Run(func(list *vk.CommandList) error { return e.Record(list, without) })
	assert.Equal(t, steps-1, len(gpu.StepNames()))
	assert.Equal(t, want, gpu.Float32("dweight"))

	assertRejected(t, gpu, a, e.Record, []badArgs[PatchEmbedBackwardArgs]{
		{"B is 0, want 1", func(a *PatchEmbedBackwardArgs) { a.B = 0 }},
		{"elements is 2147483712, want 1", func(a *PatchEmbedBackwardArgs) { a.B = 22369622 }},
		{"x has 384 bytes, want [B 2, Channels 3, Height 4, Width 8] f32, 768 bytes", func(a *PatchEmbedBackwardArgs) { a.X = out }},
		{"weight is missing, want [P1*P2*Channels 48] f32, 192 bytes", func(a *PatchEmbedBackwardArgs) { a.Weight = vk.Range{} }},
		{"dy has 384 bytes, want [rows 4, P1*P2*Channels 48] f32, 768 bytes", func(a *PatchEmbedBackwardArgs) { a.DY = out }},
		{"dx has 384 bytes", func(a *PatchEmbedBackwardArgs) { a.DX = out }},
		{"dweight is missing, want [B 2, P1*P2*Channels 48] f32, 384 bytes", func(a *PatchEmbedBackwardArgs) { a.DWeight = vk.Range{} }},
		{"dbias has 768 bytes", func(a *PatchEmbedBackwardArgs) { a.DBias = x }},
		{"scratch has 384 bytes, want PatchEmbedBackwardScratch, ", func(a *PatchEmbedBackwardArgs) { a.Scratch = out }},
	})
	_, err = NewPatchEmbedBackward(gpu.Dev, PatchEmbedBackwardConfig{PatchEmbedConfig: PatchEmbedConfig{3, 10, 8, 4, 4}})
	assert.ErrorContains(t, err, "Height is 10, want a multiple of PatchHeight, 4")
	assert.Zero(t, PatchEmbedBackwardScratch(PatchEmbedConfig{}, 1))
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
}
