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

// Attention of 16 bits. Compilers of CPU drivers take seconds for a kernel: few configs, many sizes.

// half is the floor of the bounds: a result that is rounded the other way, where the emulation happens to hit.
func (p Precision) half() float64 { return map[Precision]float64{F16: 0x1p-12, BF16: 0x1p-9}[p] }

// matrixPrecisions are those of 16 bits that the device has. For others open must say what is missing.
func matrixPrecisions(t *testing.T, open func(Precision) error) []Precision {
	t.Helper()
	var list []Precision
	for _, p := range []Precision{F16, BF16} {
		if missing := p.Supported(gputest.Device(t).Caps()); missing != nil {
			err := open(p)
			require.ErrorIs(t, err, vk.ErrUnsupported)
			require.ErrorContains(t, err, missing.Error())
			continue
		}
		list = append(list, p)
	}
	return list
}

func windowPrecisions(t *testing.T) []Precision {
	return matrixPrecisions(t, func(p Precision) error {
		_, err := NewWindowAttention(gputest.Device(t), WindowAttentionConfig{Heads: 1, DimHead: 8, Window: 4, Precision: p})
		return err
	})
}

func TestWindowAttentionMatrix(t *testing.T) {
	type config = WindowAttentionConfig
	type size struct{ b, n int }
	for _, p := range windowPrecisions(t) {
		for _, group := range []struct {
			config
			sizes []size
			scale float32
			strip bool // weights go through shared memory
		}{
			{config: config{Heads: 2, DimHead: 16, Window: 8}, sizes: []size{{1, 1}, {2, 7}, {2, 31}, {2, 32}, {3, 65}, {2, 101}}},
			{config: config{Heads: 2, DimHead: 16, Window: 8, Causal: true}, sizes: []size{{2, 7}, {2, 63}, {2, 64}, {3, 65}, {2, 101}}, strip: true},
			{config: config{Heads: 1, DimHead: 64, Window: 64}, sizes: []size{{2, 200}, {1, 333}}},
			{config: config{Heads: 1, DimHead: 32, Window: 33, Causal: true}, sizes: []size{{2, 200}}, scale: 30},
			{config: config{Heads: 3, DimHead: 22, Window: 1000}, sizes: []size{{2, 70}}, strip: true},
			{config: config{Heads: 1, DimHead: 96, Window: 1}, sizes: []size{{2, 40}}},
		} {
			group.Precision = p
			w, err := NewWindowAttention(gputest.Device(t), group.config)
			require.NoError(t, err)
			defer w.Close()
			w.kernels.direct = !group.strip
			for _, s := range group.sizes {
				for _, masked := range []bool{false, true} {
					t.Run(fmt.Sprintf("%+v %+v %v", group.config, s, masked), func(t *testing.T) {
						a := ref.WindowAttentionArgs{QKV: normal(1, s.b*s.n*3*group.Heads*group.DimHead), B: s.b, N: s.n, Heads: group.Heads,
							Dim: group.DimHead, Window: group.Window, Causal: group.Causal}
						for i := range a.QKV {
							a.QKV[i] = p.round(a.QKV[i] * max(group.scale, 1))
						}
						lab := gputest.Open(t)
						g := WindowAttentionArgs{QKV: lab.In("qkv", numbersOf(p, a.QKV)), Y: lab.Out("y", 2*len(a.QKV)/3), Items: s.b, N: s.n}
						if masked {
							a.Mask = holes(s.b, s.n)
							g.Mask = lab.In("mask", a.Mask)
						}
						lab.Run(func(t *vk.Tape) error { return w.Record(t, g) })
						require.Contains(t, lab.Dispatches()[0], "window_attention_"+p.kind())
						want := ref.WindowAttention(a)
						a.Round = p.round
						naive := ref.WindowAttention32(a)
						assert.NoError(t, ref.MaxErr(floatsOf(p, lab, "y"), want).Within(ref.Bound(naive, want, p.half())))
					})
				}
			}
		}
	}
}

// A sequence in parts gives the bits of the whole, whatever lies in tokens that are not seen: masked ones, and those out of sight.
func TestWindowAttentionMatrixBits(t *testing.T) {
	const b, n, h, d, window = 2, 137, 2, 16, 8
	for _, p := range windowPrecisions(t) {
		w, err := NewWindowAttention(gputest.Device(t), WindowAttentionConfig{Heads: h, DimHead: d, Window: window, Precision: p})
		require.NoError(t, err)
		defer w.Close()
		data, valid := p.rounded(normal(1, b*n*3*h*d)), holes(b, n)
		lab := gputest.Open(t)
		g := WindowAttentionArgs{QKV: lab.In("qkv", numbersOf(p, data)), Mask: lab.In("mask", valid), Y: lab.Out("y", 2*b*n*h*d), Items: b, N: n}
		lab.Run(func(t *vk.Tape) error { return w.Record(t, g) })
		whole := lab.Uint16("y")

		for token, v := range valid {
			for i := h * d; v == 0 && i < 3*h*d; i++ {
				data[token*3*h*d+i] = float32(math.NaN())
			}
		}
		const from, count, first, end = 64, 40, 50, 120 // the queries see 56 .. 111
		for item := range b {
			for token := range n {
				for i := h * d; token < from-window && i < 3*h*d; i++ {
					data[(item*n+token)*3*h*d+i] = float32(math.Inf(1))
				}
			}
			part := gputest.Open(t)
			g := WindowAttentionArgs{QKV: part.In("qkv", numbersOf(p, data[(item*n+first)*3*h*d:][:(end-first)*3*h*d])), Mask: part.In("mask", valid),
				Y: part.Out("y", 2*count*h*d), Items: 1, N: n, Rows: end - first, First: first, From: from, Count: count, MaskItems: b, FirstItem: item}
			part.Run(func(t *vk.Tape) error { return w.Record(t, g) })
			assert.Equal(t, whole[(item*n+from)*h*d:][:count*h*d], part.Uint16("y"))
		}
	}
}

func TestAttentionMatrixBadConfig(t *testing.T) {
	dev := gputest.Device(t)
	_, err := NewWindowAttention(dev, WindowAttentionConfig{Heads: 1, DimHead: 16, Window: 4, Precision: 3})
	assert.ErrorContains(t, err, "WindowAttention: Precision is Precision(3), want F32, F16 or BF16")
	_, err = NewWindowAttention(dev, WindowAttentionConfig{Heads: 1, DimHead: 17, Window: 4, Precision: F16})
	assert.ErrorContains(t, err, "WindowAttention: DimHead is 17, want an even number with F16")
}
