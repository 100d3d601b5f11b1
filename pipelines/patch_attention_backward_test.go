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

// patchGradient is a backward pass with its sizes.
type patchGradient struct {
	PatchAttentionConfig
	height, width int
	scale         float32 // of queries, keys and values; 0: 1
	ties          bool    // all queries and keys are equal
}

// data returns the arguments of the CPU reference.
func (c patchGradient) data() (a ref.PatchAttentionArgs, dy []float32) {
	pixels, row := c.height*c.width, c.Heads*c.DimHead
	a = ref.PatchAttentionArgs{
		QKV: c.Precision.roundAll(scaled(normal(1, pixels*3*row), max(c.scale, 1))), Height: c.height, Width: c.width, Heads: c.Heads, DimHead: c.DimHead, Patch: c.Patch,
	}
	for pixel := range pixels {
		if c.ties {
			copy(a.QKV[3*pixel*row:][:2*row], a.QKV)
		}
	}
	return a, c.Precision.roundAll(normal(2, pixels*row))
}

func (c patchGradient) compute(t *testing.T, p *PatchAttentionBackward, gpu *gputest.Harness, qkv, dy []float32) []float32 {
	t.Helper()
	precision, offset := c.Precision, c.Precision.rowAlign(c.DimHead)
	y := ref.PatchAttention32(ref.PatchAttentionArgs{
		QKV: qkv, Height: c.height, Width: c.width, Heads: c.Heads, DimHead: c.DimHead, Patch: c.Patch,
	})
	a := PatchAttentionBackwardArgs{
		Y: inputAt(gpu, "y", encode(precision, y), offset), QKV: inputAt(gpu, "qkv", encode(precision, qkv), offset), DY: inputAt(gpu, "dy", encode(precision, dy), offset),
		DQKV:    precision.outputAt(gpu, "dqkv", len(qkv), offset),
		Scratch: gpu.Out("scratch", int(PatchAttentionBackwardScratch(c.PatchAttentionConfig, c.height, c.width))), Height: c.height, Width: c.width,
	}
	gpu.Run(func(list *vk.CommandList) error { return p.Record(list, a) })
	return precision.outputFrom(t, gpu, "dqkv", offset)
}

func (c patchGradient) open(t *testing.T) *PatchAttentionBackward {
	t.Helper()
	p, err := NewPatchAttentionBackward(gputest.Device(t), c.PatchAttentionConfig)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func TestPatchAttentionBackward(t *testing.T) {
	type config = PatchAttentionConfig
	for _, c := range []patchGradient{
		{config{Heads: 1, DimHead: 1, Patch: 1}, 1, 1, 0, false},
		{config{Heads: 1, DimHead: 1, Patch: 1}, 3, 5, 0, false},
		{config{Heads: 3, DimHead: 7, Patch: 3}, 6, 9, 0, false},
		{config{Heads: 2, DimHead: 16, Patch: 4}, 4, 12, 0, false}, // one tile of tokens
		{config{Heads: 2, DimHead: 64, Patch: 5}, 10, 5, 0, false},
		{config{Heads: 1, DimHead: 100, Patch: 6}, 6, 12, 0, false},
		{config{Heads: 1, DimHead: 128, Patch: 7}, 7, 7, 0, false},
		{config{Heads: 2, DimHead: 20, Patch: 6}, 12, 6, 0, true},
		{config{Heads: 2, DimHead: 20, Patch: 6}, 6, 6, 6, false},
		{config{Heads: 2, DimHead: 20, Patch: 6}, 6, 6, 1e4, false}, // every softmax is 1 and 0
	} {
		if testing.Short() && c.Patch != 3 {
			continue // CPU drivers compile kernels for seconds
		}
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			gpu := gputest.New(t)
			a, dy := c.data()
			want, naive := ref.PatchAttentionBackward(a, dy), ref.PatchAttentionBackward32(a, dy)
			assert.NoError(t, ref.MaxErr(c.compute(t, c.open(t), gpu, a.QKV, dy), want).Within(ref.Bound(naive, want, 2e-6)))
			assert.Equal(t, []string{"patch_attention_backward_queries", "patch_attention_backward_keys"}, gpu.StepNames())
		})
	}
}

// The bits of a patch do not depend on other patches, nor on the number of dispatches.
func TestPatchAttentionBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	c := patchGradient{PatchAttentionConfig{Heads: 3, DimHead: 7, Patch: 3}, 18, 12, 0, false} // of TestPatchAttentionBackward, too
	p := c.open(t)
	a, dy := c.data()
	first := c.compute(t, p, gputest.New(t), a.QKV, dy)
	p.kernels.maxFlops = 1e5
	gpu := gputest.New(t)
	assert.Equal(t, first, c.compute(t, p, gpu, a.QKV, dy))
	assert.Greater(t, len(gpu.StepNames()), 4)

	band := c // the last two thirds of the image
	band.height = 12
	third := len(dy) / 3
	assert.Equal(t, first[3*third:], band.compute(t, p, gputest.New(t), a.QKV[3*third:], dy[third:]))
}

func TestPatchAttentionBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]PatchAttentionConfig{
		"PatchAttentionBackward: Heads is 0, want 1":            {DimHead: 8, Patch: 4},
		"PatchAttentionBackward: Patch is 1025, want 1 to 1024": {Heads: 1, DimHead: 8, Patch: 1025},
	} {
		_, err := NewPatchAttentionBackward(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	assert.Zero(t, PatchAttentionBackwardScratch(PatchAttentionConfig{Heads: 1}, 0, 1))
	p, err := NewPatchAttentionBackward(gpu.Dev, PatchAttentionConfig{Heads: 2, DimHead: 8, Patch: 2})
	require.NoError(t, err)
	qkv, dqkv, scratch := gpu.In("qkv", normal(1, 4*6*48)), gpu.Out("dqkv", 4*4*6*48), gpu.Out("scratch", 16*4*6*2)
	good := PatchAttentionBackwardArgs{QKV: qkv, Y: qkv.Slice(0, 1536), DY: qkv.Slice(0, 1536), DQKV: dqkv, Scratch: scratch, Height: 4, Width: 6}
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "good"})
	require.NoError(t, err)
	require.NoError(t, p.Record(list, good))
	require.NoError(t, list.Close())
	assertRejected(t, gpu, good, p.Record, []badArgs[PatchAttentionBackwardArgs]{
		{"Height is 0, want 1", func(a *PatchAttentionBackwardArgs) { a.Height = 0 }},
		{"Width is 7, want a multiple of Patch, 2", func(a *PatchAttentionBackwardArgs) { a.Width = 7 }},
		{"qkv is missing, want [Height 4, Width 6, 3 3, Heads 2, DimHead 8] f32, 4608 bytes", func(a *PatchAttentionBackwardArgs) { a.QKV = vk.Range{} }},
		{"y is missing, want [Height 4, Width 6, Heads 2, DimHead 8] f32", func(a *PatchAttentionBackwardArgs) { a.Y = vk.Range{} }},
		{"dy has 4608 bytes, want [Height 4, Width 6, Heads 2, DimHead 8] f32, 1536 bytes", func(a *PatchAttentionBackwardArgs) { a.DY = qkv }},
		{"dqkv is missing", func(a *PatchAttentionBackwardArgs) { a.DQKV = vk.Range{} }},
		{"scratch has 752 bytes, want PatchAttentionBackwardScratch, 768 bytes", func(a *PatchAttentionBackwardArgs) { a.Scratch = scratch.Slice(0, 752) }},
	})
	require.NoError(t, p.Close())
	require.NoError(t, p.Close())
}
