package pipelines

import (
	"fmt"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newPatchAttention(t testing.TB, gpu *gputest.Harness, c PatchAttentionConfig) *PatchAttention {
	t.Helper()
	p, err := NewPatchAttention(gpu.Dev, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

func TestPatchAttention(t *testing.T) {
	for _, c := range []struct {
		height, width, heads, dim, patch int
		scale                            float32
	}{
		{1, 1, 1, 1, 1, 1}, {3, 2, 2, 16, 1, 1}, {4, 6, 3, 24, 2, 1}, {10, 15, 1, 64, 5, 1}, {14, 7, 2, 17, 7, 1},
		{8, 8, 1, 64, 8, 6}, {16, 16, 1, 128, 16, 1}, {11, 22, 1, 128, 11, 5}, {32, 32, 1, 64, 32, 1},
	} {
		if testing.Short() && c.patch != 2 {
			continue // CPU drivers compile kernels for 14 s for all sizes
		}
		name := fmt.Sprintf("%dx%dx%dx%d patch %d scale %v", c.height, c.width, c.heads, c.dim, c.patch, c.scale)
		bothKernels(t, name, func(t *testing.T, gpuKernel bool) {
			gpu := gputest.New(t)
			if gpuKernel && gpu.Dev.Caps().CPU && (testing.Short() || gputest.Reduced() && c.patch > 11) {
				return // CPU drivers compile these kernels for 10 s
			}
			a := ref.PatchAttentionArgs{QKV: normal(31, c.height*c.width*3*c.heads*c.dim), Height: c.height, Width: c.width,
				Heads: c.heads, DimHead: c.dim, Patch: c.patch}
			for i := range a.QKV {
				a.QKV[i] *= c.scale
			}
			p := newPatchAttention(t, gpu, PatchAttentionConfig{Heads: c.heads, DimHead: c.dim, Patch: c.patch})
			p.kernels.gpuKernel = gpuKernel
			args := PatchAttentionArgs{QKV: gpu.In("qkv", a.QKV), Y: gpu.Out("y", 4*len(a.QKV)/3), Height: c.height, Width: c.width}
			gpu.Run(func(list *vk.CommandList) error { return p.Record(list, args) })
			kernel := "patch_attention"
			if !gpuKernel {
				kernel += "_cpu"
			}
			require.Len(t, gpu.StepNames(), 1)
			assert.Contains(t, gpu.StepNames()[0], kernel)
			want, naive := ref.PatchAttention(a), ref.PatchAttention32(a)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 1e-6)))
		})
	}
}

// The bits do not depend on whether an image is computed as a whole, in bands, or in several dispatches.
func TestPatchAttentionBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 5 s on CPU drivers")
	}
	bothKernels(t, "bits", testPatchAttentionBits)
}

func testPatchAttentionBits(t *testing.T, gpuKernel bool) {
	const height, width, heads, dim, patch = 24, 20, 2, 20, 4
	row := width * heads * dim
	gpu := gputest.New(t)
	qkv := normal(32, 3*height*row)
	p := newPatchAttention(t, gpu, PatchAttentionConfig{Heads: heads, DimHead: dim, Patch: patch})
	p.kernels.gpuKernel = gpuKernel
	args := PatchAttentionArgs{QKV: gpu.In("qkv", qkv), Y: gpu.Out("y", 4*height*row), Height: height, Width: width}
	gpu.Run(func(list *vk.CommandList) error { return p.Record(list, args) })
	whole := gpu.Float32("y")
	p.kernels.maxFlops = 1
	gpu.Run(func(list *vk.CommandList) error { return p.Record(list, args) })
	dispatches := height / patch * (width / patch) * heads
	if !gpuKernel { // whose workgroups have 8 queries, not 32
		dispatches *= 2
	}
	assert.Len(t, gpu.StepNames(), dispatches)
	assert.Equal(t, whole, gpu.Float32("y"))

	band := gputest.New(t)
	part := PatchAttentionArgs{QKV: band.In("qkv", qkv[3*8*row:3*20*row]), Y: band.Out("y", 4*12*row), Height: 12, Width: width}
	band.Run(func(list *vk.CommandList) error { return p.Record(list, part) })
	assert.Equal(t, whole[8*row:20*row], band.Float32("y"))
}

// The bits depend neither on the number of queries of a workgroup, nor on whether the kernel is that for few registers.
func TestAttentionTilesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 4 s")
	}
	const side, heads = 7, 2
	for _, dim := range []int{24, 64, 97, 128} { // 1 to 4 slices of a head
		if testing.Short() && dim != 64 && dim != 97 {
			continue
		}
		gpu := gputest.New(t)
		size := side * side * heads * dim
		data := normal(33, 3*size)
		qkv, y := gpu.In("qkv", data), gpu.Out("y", 4*size)
		want := ref.PatchAttention(ref.PatchAttentionArgs{QKV: data, Height: side, Width: side, Heads: heads, DimHead: dim, Patch: side})
		var first []float32
		for _, tile := range []attentionTile{{64, 32, 0, false}, {32, 32, 0, false}, {64, 32, 0, true}, {32, 32, 0, true}} {
			if tile.shared(dim, false) > gpu.Dev.Caps().MaxSharedBytes {
				continue
			}
			k, err := newAttentionKernels(gpu.Dev, "Test", attentionConfig{
				name: "patch_attention", heads: heads, dimHead: dim, spec: map[uint32]uint32{shaders.PatchAttentionPatchSize: side},
			})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, k.Close()) })
			kernel, err := k.kernel(tile)
			require.NoError(t, err)
			groups := uint32(heads) * uint32(ceilDiv(side*side, uint64(tile.queries)))
			gpu.Run(func(list *vk.CommandList) error {
				return list.Dispatch(vk.Dispatch{Kernel: kernel, Groups: [3]uint32{groups, 1, 1}, Args: []vk.Access{vk.Read(qkv), vk.Write(y)},
					Push: vk.Scalars(&patchAttentionPush{side, 0, groups})})
			})
			if first == nil {
				first = gpu.Float32("y")
				assert.NoError(t, ref.MaxErr(first, want).Within(1e-5))
			}
			assert.Equal(t, first, gpu.Float32("y"), "dim %d, %+v", dim, tile)
		}
	}
}

func TestPatchAttentionBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, test := range []struct {
		want   string
		config PatchAttentionConfig
	}{
		{"Heads is 0, want 1", PatchAttentionConfig{DimHead: 8, Patch: 4}},
		{"DimHead is 129, want 1 to 128", PatchAttentionConfig{Heads: 1, DimHead: 129, Patch: 4}},
		{"Patch is 0, want 1 to 1024", PatchAttentionConfig{Heads: 1, DimHead: 8}},
		{"Patch is 1025, want 1 to 1024", PatchAttentionConfig{Heads: 1, DimHead: 8, Patch: 1025}},
	} {
		_, err := NewPatchAttention(gpu.Dev, test.config)
		assert.ErrorContains(t, err, test.want)
	}
	p := newPatchAttention(t, gpu, PatchAttentionConfig{Heads: 2, DimHead: 8, Patch: 2})
	qkv, y := gpu.In("qkv", normal(1, 4*6*48)), gpu.Out("y", 4*4*6*16)
	good := PatchAttentionArgs{QKV: qkv, Y: y, Height: 4, Width: 6}
	for _, test := range []struct {
		name, want string
		change     func(*PatchAttentionArgs)
	}{
		{"height", "Height is 0, want 1", func(a *PatchAttentionArgs) { a.Height = 0 }},
		{"height odd", "Height is 3, want a multiple of Patch, 2", func(a *PatchAttentionArgs) { a.Height = 3 }},
		{"width odd", "Width is 7, want a multiple of Patch, 2", func(a *PatchAttentionArgs) { a.Width = 7 }},
		{"many", "want 4294967295 at most", func(a *PatchAttentionArgs) { a.Height, a.Width = 1<<16, 1<<16 }},
		{"qkv missing", "qkv is missing, want [Height 4, Width 6, 3 3, Heads 2, DimHead 8] f32, 4608 bytes", func(a *PatchAttentionArgs) { a.QKV = vk.Range{} }},
		{"qkv short", "qkv has 4604 bytes, want [Height 4", func(a *PatchAttentionArgs) { a.QKV = qkv.Slice(0, 4604) }},
		{"y missing", "y is missing, want [Height 4, Width 6, Heads 2, DimHead 8] f32, 1536 bytes", func(a *PatchAttentionArgs) { a.Y = vk.Range{} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := good
			test.change(&a)
			list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "bad"})
			require.NoError(t, err)
			defer list.Close()
			assert.ErrorContains(t, p.Record(list, a), test.want)
		})
	}
	require.NoError(t, p.Close())
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "closed"})
	require.NoError(t, err)
	defer list.Close()
	assert.ErrorIs(t, p.Record(list, good), vk.ErrClosed)
}
