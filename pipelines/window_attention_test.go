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

// paddingMask returns a mask of b items of n tokens. Padding is every fifth token, the middle third of the first item,
// and all of the second item.
func paddingMask(b, n int) []uint8 {
	m := make([]uint8, b*n)
	for i := range m {
		if i%5 != 0 && (i >= n || i < n/3 || i >= 2*n/3) && i/n != 1 {
			m[i] = 1
		}
	}
	return m
}

func TestWindowAttention(t *testing.T) {
	type config = WindowAttentionConfig
	for _, group := range []struct {
		config
		sizes []struct{ b, n int }
		scale float32
	}{
		{config: config{Heads: 2, DimHead: 16, Window: 8}, sizes: []struct{ b, n int }{{1, 1}, {2, 7}, {2, 8}, {3, 9}, {2, 101}}},
		{config: config{Heads: 2, DimHead: 16, Window: 8, Causal: true}, sizes: []struct{ b, n int }{{1, 1}, {2, 7}, {2, 8}, {3, 9}, {2, 101}}},
		{config: config{Heads: 2, DimHead: 17, Window: 7, Causal: true, Exact: true}, sizes: []struct{ b, n int }{{1, 1}, {2, 7}, {2, 8}, {3, 9}, {2, 101}}},
		{config: config{Heads: 1, DimHead: 64, Window: 40, Causal: true, Exact: true}, sizes: []struct{ b, n int }{{2, 200}}},
		{config: config{Heads: 3, DimHead: 17, Window: 31, Causal: true}, sizes: []struct{ b, n int }{{2, 97}}},
		{config: config{Heads: 1, DimHead: 64, Window: 64}, sizes: []struct{ b, n int }{{2, 200}}},
		{config: config{Heads: 1, DimHead: 64, Window: 33, Causal: true}, sizes: []struct{ b, n int }{{2, 200}}, scale: 30},
		{config: config{Heads: 1, DimHead: 128, Window: 1}, sizes: []struct{ b, n int }{{2, 40}}},
		{config: config{Heads: 2, DimHead: 24, Window: 1000}, sizes: []struct{ b, n int }{{2, 70}}},
		{config: config{Heads: 1, DimHead: 1, Window: 3, Causal: true}, sizes: []struct{ b, n int }{{1, 40}}},
	} {
		if gputest.Reduced() && group.Window != 7 {
			continue // CPU drivers compile kernels for 25 s for all groups
		}
		w, err := NewWindowAttention(gputest.Device(t), group.config)
		require.NoError(t, err)
		defer w.Close()
		for _, size := range group.sizes {
			for _, masked := range []bool{false, true} {
				bothKernels(t, fmt.Sprintf("%+v %+v %v", group.config, size, masked), func(t *testing.T, gpuKernel bool) {
					if gputest.Reduced() && gpuKernel && size.n > 9 {
						t.Skip("compiles a large tile for 6 s on CPU drivers")
					}
					w.kernels.gpuKernel = gpuKernel
					gpu := gputest.New(t)
					a := ref.WindowAttentionArgs{
						QKV: normal(1, size.b*size.n*3*group.Heads*group.DimHead), B: size.b, N: size.n, Heads: group.Heads, DimHead: group.DimHead,
						Window: group.Window, Causal: group.Causal, Exact: group.Exact,
					}
					for i := range a.QKV {
						a.QKV[i] *= max(group.scale, 1)
					}
					g := WindowAttentionArgs{QKV: gpu.In("qkv", a.QKV), Y: gpu.Out("y", 4*len(a.QKV)/3), Items: size.b, N: size.n}
					if masked {
						a.Mask = paddingMask(size.b, size.n)
						g.Mask = gpu.In("mask", a.Mask)
					}
					gpu.Run(func(t *vk.CommandList) error { return w.Record(t, g) })
					want, naive := ref.WindowAttention(a), ref.WindowAttention32(a)
					// The error of a weight is that of its logit plus that of exp2. With logits of several hundred, an
					// NVIDIA H200 had an error of 4.3e-5 where the naive error allowed 3.8e-5.
					assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 2e-6*max(float64(group.scale), 1))))
				})
			}
		}
	}
}

// The bits do not depend on whether a sequence is computed as a whole or in parts, with the tokens that these need or
// some more.
func TestWindowAttentionParts(t *testing.T) {
	const b, n, h, d, window = 2, 137, 2, 17, 7 // of TestWindowAttention, too
	for _, c := range []WindowAttentionConfig{{}, {Causal: true}, {Causal: true, Exact: true}} {
		if testing.Short() && !c.Exact {
			continue // CPU drivers compile a kernel for 1 s
		}
		c.Heads, c.DimHead, c.Window = h, d, window
		gpu := gputest.New(t)
		w, err := NewWindowAttention(gpu.Dev, c)
		require.NoError(t, err)
		defer w.Close()
		qkv, mask := gpu.In("qkv", normal(1, b*n*3*h*d)), gpu.In("mask", paddingMask(b, n))
		whole, parts := gpu.Out("whole", 4*b*n*h*d), gpu.Out("parts", 4*b*n*h*d)
		gpu.Run(func(t *vk.CommandList) error {
			if err := w.Record(t, WindowAttentionArgs{QKV: qkv, Mask: mask, Y: whole, Items: b, N: n}); err != nil {
				return err
			}
			for item := range b {
				for from := 0; from < n; from += 40 {
					count := min(40, n-from)
					first, end := w.config.keyRange(from, count, n)
					if from%80 != 0 {
						first, end = max(first-3, 0), min(end+5, n)
					}
					err := w.Record(t, WindowAttentionArgs{
						QKV: qkv.Slice(uint64(4*(item*n+first)*3*h*d), uint64(4*(end-first)*3*h*d)), Mask: mask,
						Y:     parts.Slice(uint64(4*(item*n+from)*h*d), uint64(4*count*h*d)),
						Items: 1, N: n, Rows: end - first, First: first, From: from, Count: count, MaskItems: b, FirstItem: item,
					})
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
		assert.Equal(t, gpu.Float32("whole"), gpu.Float32("parts"))
	}
}

func TestWindowAttentionBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]WindowAttentionConfig{
		"Heads is 0, want 1":              {DimHead: 16, Window: 4},
		"DimHead is 200, want 1 to 128":   {Heads: 1, DimHead: 200, Window: 4},
		"Window is 0, want 1":             {Heads: 1, DimHead: 16},
		"Window is 1073741824, want less": {Heads: 1, DimHead: 16, Window: 1 << 30},
		"Exact is true without Causal":    {Heads: 1, DimHead: 16, Window: 4, Exact: true},
	} {
		_, err := NewWindowAttention(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	w, err := NewWindowAttention(gpu.Dev, WindowAttentionConfig{Heads: 1, DimHead: 4, Window: 4})
	require.NoError(t, err)
	defer w.Close()
	qkv, y, mask := gpu.In("qkv", normal(1, 2*20*12)), gpu.Out("y", 4*2*20*4), gpu.In("mask", paddingMask(2, 20))
	good := WindowAttentionArgs{QKV: qkv, Y: y, Mask: mask, Items: 2, N: 20}
	for _, test := range []struct {
		want   string
		change func(*WindowAttentionArgs)
	}{
		{"Items is 0, want 1", func(a *WindowAttentionArgs) { a.Items = 0 }},
		{"Rows is -1, want 1", func(a *WindowAttentionArgs) { a.N = -1 }},
		{"From is 8 and Count 20, want a part of the N tokens, 20", func(a *WindowAttentionArgs) { a.From = 8 }},
		{"From is -1", func(a *WindowAttentionArgs) { a.From, a.Count = -1, 2 }},
		{"First is 5 and Rows 15, want a part of the N tokens, 20, with 4 to 19", func(a *WindowAttentionArgs) { a.First, a.Rows, a.From, a.Count = 5, 15, 8, 12 }},
		{"First is 0 and Rows 15, want a part of the N tokens, 20, with 0 to 15", func(a *WindowAttentionArgs) { a.Rows, a.Count = 15, 12 }},
		{"First is 0 and Rows 30", func(a *WindowAttentionArgs) { a.Rows = 30 }},
		{"FirstItem is 1, want 0 to MaskItems, 2, minus Items, 2", func(a *WindowAttentionArgs) { a.FirstItem = 1 }},
		{"qkv is missing, want [Items 2, Rows 20, 3 3, H 1, D 4] f32", func(a *WindowAttentionArgs) { a.QKV = vk.Range{} }},
		{"mask has 640 bytes, want [MaskItems 2, N 20] u8, 40 bytes", func(a *WindowAttentionArgs) { a.Mask = y }},
		{"y has 40 bytes, want [Items 2, Count 20, H 1, D 4] f32", func(a *WindowAttentionArgs) { a.Y = mask }},
	} {
		a := good
		test.change(&a)
		assertRecordError(t, gpu, test.want, func(t *vk.CommandList) error { return w.Record(t, a) })
	}
}
