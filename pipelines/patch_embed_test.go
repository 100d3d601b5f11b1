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

// newPatchEmbed makes the kernel, its arguments for a batch of images, and those of the reference.
func newPatchEmbed(t *testing.T, gpu *gputest.Harness, b int, c PatchEmbedConfig, offset float32) (*PatchEmbed, PatchEmbedArgs, ref.PatchEmbedArgs) {
	t.Helper()
	r := ref.PatchEmbedArgs{
		X: normal(1, b*c.Channels*c.Height*c.Width), Weight: normal(2, c.row()), Bias: normal(3, c.row()), B: b,
		Channels: c.Channels, Height: c.Height, Width: c.Width, PatchHeight: c.PatchHeight, PatchWidth: c.PatchWidth,
	}
	for i := range r.X {
		r.X[i] += offset
	}
	e, err := NewPatchEmbed(gpu.Dev, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e, PatchEmbedArgs{X: gpu.In("x", r.X), Weight: gpu.In("weight", r.Weight), Bias: gpu.In("bias", r.Bias), Y: gpu.Out("y", 4*len(r.X)), B: b}, r
}

func TestPatchEmbed(t *testing.T) {
	for _, test := range []struct {
		b      int
		c      PatchEmbedConfig
		offset float32
	}{
		{1, PatchEmbedConfig{1, 1, 1, 1, 1}, 0},
		{1, PatchEmbedConfig{3, 1, 1, 1, 1}, 0},
		{2, PatchEmbedConfig{3, 8, 12, 4, 4}, 0},
		{3, PatchEmbedConfig{3, 6, 35, 2, 7}, 0}, // rows of 42 floats
		{2, PatchEmbedConfig{2, 15, 9, 5, 3}, 0},
		{1, PatchEmbedConfig{5, 7, 11, 7, 1}, 0}, // 35 floats, patches one pixel wide
		{1, PatchEmbedConfig{1, 64, 64, 32, 32}, 0},
		{2, PatchEmbedConfig{3, 64, 96, 32, 32}, 0}, // rows of 3,072 floats
		{1, PatchEmbedConfig{3, 37, 37, 37, 37}, 0},
		{2, PatchEmbedConfig{1, 130, 131, 2, 1}, 0}, // many patches of two floats
		{1, PatchEmbedConfig{3, 32, 32, 16, 16}, 100},
	} {
		t.Run(fmt.Sprintf("%d_%v_%g", test.b, test.c, test.offset), func(t *testing.T) {
			gpu := gputest.New(t)
			e, a, r := newPatchEmbed(t, gpu, test.b, test.c, test.offset)
			gpu.Run(func(list *vk.CommandList) error { return e.Record(list, a) })
			want := ref.PatchEmbed(r)
			assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(ref.PatchEmbed32(r), want, 1e-6)))
		})
	}
}

// An image with a large mean keeps its accuracy, and has the same bits alone and in a batch.
func TestPatchEmbedBits(t *testing.T) {
	gpu := gputest.New(t)
	c := PatchEmbedConfig{3, 34, 51, 17, 17}
	e, a, r := newPatchEmbed(t, gpu, 3, c, 30000)
	alone := a
	image := a.X.Size() / 3
	alone.X, alone.Y, alone.B = a.X.Slice(2*image, image), gpu.Out("alone", int(image)), 1
	gpu.Run(func(list *vk.CommandList) error { return firstError(e.Record(list, a), e.Record(list, alone)) })
	y := gpu.Float32("y")
	assert.NoError(t, ref.MaxErr(y, ref.PatchEmbed(r)).Within(2e-6))
	assert.Equal(t, y[2*len(y)/3:], gpu.Float32("alone"))
}

func TestPatchEmbedBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for _, test := range []struct {
		c    PatchEmbedConfig
		want string
	}{
		{PatchEmbedConfig{0, 8, 8, 4, 4}, "Channels is 0, want 1"},
		{PatchEmbedConfig{3, -1, 8, 4, 4}, "Height is -1, want 1"},
		{PatchEmbedConfig{3, 8, 0, 4, 4}, "Width is 0, want 1"},
		{PatchEmbedConfig{3, 8, 8, 0, 4}, "PatchHeight is 0, want 1"},
		{PatchEmbedConfig{3, 8, 8, 4, 0}, "PatchWidth is 0, want 1"},
		{PatchEmbedConfig{3, 10, 8, 4, 4}, "Height is 10, want a multiple of PatchHeight, 4"},
		{PatchEmbedConfig{3, 8, 10, 4, 4}, "Width is 10, want a multiple of PatchWidth, 4"},
		{PatchEmbedConfig{3, 8, 4, 16, 4}, "Height is 8, want a multiple of PatchHeight, 16"},
		{PatchEmbedConfig{4, 1 << 14, 1 << 14, 4, 4}, "want a product of at most 1073741823"},
		{PatchEmbedConfig{1, math.MaxInt32, math.MaxInt32, 1, 1}, "want a product of at most 1073741823"},
	} {
		_, err := NewPatchEmbed(gpu.Dev, test.c)
		assert.ErrorContains(t, err, test.want)
	}
	e, good, _ := newPatchEmbed(t, gpu, 2, PatchEmbedConfig{3, 4, 8, 4, 4}, 0)
	big := gpu.In("big", make([]float32, 400))
	assertRejected(t, gpu, good, e.Record, []badArgs[PatchEmbedArgs]{
		{"B is 0, want 1", func(a *PatchEmbedArgs) { a.B = 0 }},
		{"rows is 2147483648, want 1", func(a *PatchEmbedArgs) { a.B = 1 << 30 }},
		{"x is missing, want [B 2, Channels 3, Height 4, Width 8] f32, 768 bytes", func(a *PatchEmbedArgs) { a.X = vk.Range{} }},
		{"x has 1600 bytes, want", func(a *PatchEmbedArgs) { a.X = big }},
		{"x starts at byte 260 of its buffer, want a multiple of 16", func(a *PatchEmbedArgs) { a.X = big.Slice(4, 768) }},
		{"weight is missing, want [P1*P2*Channels 48] f32, 192 bytes", func(a *PatchEmbedArgs) { a.Weight = vk.Range{} }},
		{"bias has 1600 bytes, want [P1*P2*Channels 48] f32, 192 bytes", func(a *PatchEmbedArgs) { a.Bias = big }},
		{"y is missing, want [rows 4, P1*P2*Channels 48] f32, 768 bytes", func(a *PatchEmbedArgs) { a.Y = vk.Range{} }},
	})
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
	require.NoError(t, (*PatchEmbed)(nil).Close())
	assertRejected(t, gpu, good, e.Record, []badArgs[PatchEmbedArgs]{{"closed", func(*PatchEmbedArgs) {}}})
}

func TestPatchPositions(t *testing.T) {
	// c = 12: omega is 1, 1/100, 1/10000. Patch 4 of 2 rows of 3 lies in column 1 of row 1; patch 2 in column 2 of row
	// 0.
	table, err := PatchPositions(2, 3, 12)
	require.NoError(t, err)
	require.Len(t, table, 2*3*12)
	for patch, want := range map[int][]float64{
		0: {0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1},
		2: {0.9092974268, 0.0199986667, 0.0002, -0.4161468365, 0.9998000067, 0.99999998, 0, 0, 0, 1, 1, 1},
		3: {0, 0, 0, 1, 1, 1, 0.8414709848, 0.0099998333, 0.0001, 0.5403023059, 0.9999500004, 0.999999995},
		4: {0.8414709848, 0.0099998333, 0.0001, 0.5403023059, 0.9999500004, 0.999999995,
			0.8414709848, 0.0099998333, 0.0001, 0.5403023059, 0.9999500004, 0.999999995},
	} {
		for i, v := range want {
			assert.InDelta(t, v, table[patch*12+i], 6e-8, "patch %d, column %d", patch, i)
		}
	}
	least, err := PatchPositions(1, 2, 8) // omega is 1 and 1/10000
	require.NoError(t, err)
	assert.InDeltaSlice(t, []float64{0.8414709848, 0.0001, 0.5403023059, 0.999999995, 0, 0, 1, 1}, least[8:], 6e-8)
	for _, test := range []struct {
		h, w, c int
		want    string
	}{
		{0, 1, 8, "h is 0, want 1"}, {1, -1, 8, "w is -1, want 1"}, {1, 1, 0, "c is 0, want 1"},
		{1, 1, 4, "c is 4, want a multiple of 4, at least 8"}, {1, 1, 10, "c is 10, want a multiple of 4, at least 8"},
		{1 << 15, 1 << 15, 8, "h*w is 1073741824 and c 8, want a product of at most"},
	} {
		_, err := PatchPositions(test.h, test.w, test.c)
		assert.ErrorContains(t, err, test.want)
	}
}
