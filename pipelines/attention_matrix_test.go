package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Attention with 16-bit operands. CPU drivers compile each kernel for seconds: few configs, many sizes.

// halfULP is the floor of the error bounds: half a unit in the last place of 1, for a result that is rounded to the
// other neighbour while the emulation is exact.
func (p DType) halfULP() float64 { return map[DType]float64{F16: 0x1p-12, BF16: 0x1p-9}[p] }

// matrixPrecisions returns the 16-bit precisions that the device supports. For others, open must return an error that
// says what is missing.
func matrixPrecisions(t *testing.T, open func(DType) error) []DType {
	t.Helper()
	var list []DType
	for _, p := range []DType{F16, BF16} {
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

func windowPrecisions(t *testing.T) []DType {
	return matrixPrecisions(t, func(p DType) error {
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
			sizes     []size
			scale     float32
			viaShared bool // weights go through shared memory
		}{
			{config: config{Heads: 2, DimHead: 16, Window: 8}, sizes: []size{{1, 1}, {2, 7}, {2, 31}, {2, 32}, {3, 65}, {2, 101}}},
			{config: config{Heads: 2, DimHead: 16, Window: 8, Causal: true}, sizes: []size{{2, 7}, {2, 63}, {2, 64}, {3, 65}, {2, 101}}, viaShared: true},
			{config: config{Heads: 2, DimHead: 16, Window: 8, Causal: true, Exact: true}, sizes: []size{{2, 7}, {3, 65}, {2, 101}}},
			{config: config{Heads: 1, DimHead: 64, Window: 64}, sizes: []size{{2, 200}, {1, 333}}},
			{config: config{Heads: 1, DimHead: 32, Window: 33, Causal: true}, sizes: []size{{2, 200}}, scale: 30},
			{config: config{Heads: 3, DimHead: 22, Window: 1000}, sizes: []size{{2, 70}}, viaShared: true},
			{config: config{Heads: 1, DimHead: 96, Window: 1}, sizes: []size{{2, 40}}},
		} {
			group.Precision = p
			w, err := NewWindowAttention(gputest.Device(t), group.config)
			require.NoError(t, err)
			defer w.Close()
			w.kernels.weightsInRegisters = !group.viaShared
			for _, s := range group.sizes {
				for _, masked := range []bool{false, true} {
					t.Run(fmt.Sprintf("%+v %+v %v", group.config, s, masked), func(t *testing.T) {
						a := ref.WindowAttentionArgs{QKV: normal(1, s.b*s.n*3*group.Heads*group.DimHead), B: s.b, N: s.n, Heads: group.Heads,
							DimHead: group.DimHead, Window: group.Window, Causal: group.Causal, Exact: group.Exact}
						for i := range a.QKV {
							a.QKV[i] = p.round(a.QKV[i] * max(group.scale, 1))
						}
						gpu := gputest.New(t)
						g := WindowAttentionArgs{QKV: gpu.In("qkv", encode(p, a.QKV)), Y: gpu.Out("y", 2*len(a.QKV)/3), Items: s.b, N: s.n}
						if masked {
							a.Mask = paddingMask(s.b, s.n)
							g.Mask = gpu.In("mask", a.Mask)
						}
						gpu.Run(func(t *vk.CommandList) error { return w.Record(t, g) })
						require.Contains(t, gpu.StepNames()[0], matrixAttention("window_attention", p))
						want := ref.WindowAttention(a)
						a.Round = p.round
						naive := ref.WindowAttention32(a)
						assert.NoError(t, ref.MaxErr(decode(p, gpu, "y"), want).Within(ref.Bound(naive, want, p.halfULP())))
					})
				}
			}
		}
	}
}

// The bits do not depend on whether a sequence is computed as a whole or in parts, nor on masked tokens or tokens
// outside the window.
func TestWindowAttentionMatrixBits(t *testing.T) {
	const b, n, h, d, window = 2, 137, 2, 16, 8
	for _, p := range windowPrecisions(t) {
		w, err := NewWindowAttention(gputest.Device(t), WindowAttentionConfig{Heads: h, DimHead: d, Window: window, Precision: p})
		require.NoError(t, err)
		defer w.Close()
		data, valid := p.roundAll(normal(1, b*n*3*h*d)), make([]byte, b*n)
		for i := range valid {
			valid[i] = byte(specBool(i%5 != 0))
		}
		gpu := gputest.New(t)
		g := WindowAttentionArgs{QKV: gpu.In("qkv", encode(p, data)), Mask: gpu.In("mask", valid), Y: gpu.Out("y", 2*b*n*h*d), Items: b, N: n}
		gpu.Run(func(t *vk.CommandList) error { return w.Record(t, g) })
		whole := gpu.Uint16("y")

		for token, v := range valid {
			for i := h * d; v == 0 && i < 3*h*d; i++ {
				data[token*3*h*d+i] = float32(math.NaN())
			}
		}
		// The queries attend to 59 .. 115, and are in other rows of their matrices than in the whole sequence.
		const from, count, first, end = 67, 41, 50, 120
		for item := range b {
			for token := range n {
				for i := h * d; token < from-window && i < 3*h*d; i++ {
					data[(item*n+token)*3*h*d+i] = float32(math.Inf(1))
				}
			}
			part := gputest.New(t)
			g := WindowAttentionArgs{QKV: part.In("qkv", encode(p, data[(item*n+first)*3*h*d:][:(end-first)*3*h*d])), Mask: part.In("mask", valid),
				Y: part.Out("y", 2*count*h*d), Items: 1, N: n, Rows: end - first, First: first, From: from, Count: count, MaskItems: b, FirstItem: item}
			part.Run(func(t *vk.CommandList) error { return w.Record(t, g) })
			assert.Equal(t, whole[(item*n+from)*h*d:][:count*h*d], part.Uint16("y"))
		}
	}
}

func patchPrecisions(t *testing.T) []DType {
	return matrixPrecisions(t, func(p DType) error {
		_, err := NewPatchAttention(gputest.Device(t), PatchAttentionConfig{Heads: 1, DimHead: 8, Patch: 4, Precision: p})
		return err
	})
}

func TestPatchAttentionMatrix(t *testing.T) {
	for _, p := range patchPrecisions(t) {
		for _, c := range []struct {
			PatchAttentionConfig
			height, width int
			scale         float32
		}{
			{PatchAttentionConfig{Heads: 1, DimHead: 2, Patch: 1}, 1, 1, 1},
			{PatchAttentionConfig{Heads: 2, DimHead: 16, Patch: 1}, 3, 2, 1},
			{PatchAttentionConfig{Heads: 3, DimHead: 24, Patch: 4}, 8, 12, 1},
			{PatchAttentionConfig{Heads: 2, DimHead: 36, Patch: 7}, 14, 7, 1},
			{PatchAttentionConfig{Heads: 1, DimHead: 64, Patch: 16}, 16, 32, 6},
		} {
			c.Precision = p
			t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
				a := ref.PatchAttentionArgs{QKV: normal(31, c.height*c.width*3*c.Heads*c.DimHead), Height: c.height, Width: c.width, Heads: c.Heads,
					DimHead: c.DimHead, Patch: c.Patch}
				for i := range a.QKV {
					a.QKV[i] = p.round(a.QKV[i] * c.scale)
				}
				gpu := gputest.New(t)
				attention := newPatchAttention(t, gpu, c.PatchAttentionConfig)
				// Rows whose length is no multiple of 8 need an alignment of 4 bytes only.
				offset := 4 * int(specBool(c.DimHead%8 != 0))
				qkv := gpu.In("qkv", encode(p, append(make([]float32, offset/2), a.QKV...))).Slice(uint64(offset), uint64(2*len(a.QKV)))
				args := PatchAttentionArgs{QKV: qkv, Y: gpu.Out("y", 2*len(a.QKV)/3), Height: c.height, Width: c.width}
				gpu.Run(func(t *vk.CommandList) error { return attention.Record(t, args) })
				require.Contains(t, gpu.StepNames()[0], matrixAttention("patch_attention", p))
				want := ref.PatchAttention(a)
				a.Round = p.round
				naive := ref.PatchAttention32(a)
				assert.NoError(t, ref.MaxErr(decode(p, gpu, "y"), want).Within(ref.Bound(naive, want, p.halfULP())))
			})
		}
	}
}

// The bits do not depend on the number of queries of a workgroup.
func TestAttentionMatrixTilesAgree(t *testing.T) {
	const side, heads, dim = 7, 2, 16
	for _, p := range patchPrecisions(t) {
		gpu := gputest.New(t)
		size := side * side * heads * dim
		qkv, y := gpu.In("qkv", encode(p, normal(33, 3*size))), gpu.Out("y", 2*size)
		for _, inRegisters := range []bool{true, false} { // a device may round ties of matrices and of scalars differently
			k, err := newAttentionKernels(gpu.Dev, "Test", attentionConfig{name: "patch_attention", heads: heads, dimHead: dim, precision: p,
				spec: map[uint32]uint32{shaders.PatchAttentionPatchSize: side}})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, k.Close()) })
			k.weightsInRegisters = inRegisters
			var first []uint16
			for _, tile := range []attentionTile{{64, 32, 4, false}, {32, 32, 2, false}, {128, 32, 4, false}} {
				if tile.queries > 64 && !inRegisters && gpu.Dev.Caps().CPU {
					continue // its compiler omits the rounding of weights that go through shared memory, and here of all rows except one
				}
				kernel, err := k.kernel(tile)
				require.NoError(t, err)
				groups := uint32(heads) * uint32(ceilDiv(side*side, uint64(tile.queries)))
				gpu.Run(func(t *vk.CommandList) error {
					return t.Dispatch(vk.Dispatch{Kernel: kernel, Groups: [3]uint32{groups, 1, 1}, Args: []vk.Access{vk.Read(qkv), vk.Write(y)},
						Push: vk.Scalars(&patchAttentionPush{side, 0, groups})})
				})
				if first == nil {
					first = gpu.Uint16("y")
				}
				assert.True(t, slices.Equal(first, gpu.Uint16("y")), "%v, weights in registers %t: other bits", tile, inRegisters)
			}
		}
	}
}

func routedPrecisions(t *testing.T) []DType {
	return matrixPrecisions(t, func(p DType) error {
		_, err := NewRoutedAttention(gputest.Device(t), RoutedAttentionConfig{Heads: 1, DimHead: 8, Routes: 1, Precision: p})
		return err
	})
}

func TestRoutedAttentionMatrix(t *testing.T) {
	all := func(c *RoutedAttentionConfig) {
		c.Valid, c.QueryValid, c.ScoreValues, c.ScoreKeys, c.ScoreQueries = true, true, true, true, true
	}
	noKeyScores := func(c *RoutedAttentionConfig) { c.ScoreKeys = false }
	noValueScores := func(c *RoutedAttentionConfig) { c.ScoreValues = false }
	indexed := func(c *RoutedAttentionConfig) { c.KeySource = KeySourceIndexed }
	prefix := func(c *RoutedAttentionConfig) { c.KeySource, c.Valid, c.QueryValid = KeySourcePrefix, true, true }
	own := ownKeys(2, 16, 1)
	valid := ownKeys(2, 16, 2).with(func(c *RoutedAttentionConfig) { c.Valid, c.QueryValid = true, true })
	for _, p := range routedPrecisions(t) {
		for _, c := range []routedCase{
			{RoutedAttentionConfig: own, lists: 1, queries: 1, keys: 1},
			{RoutedAttentionConfig: own, lists: 2, queries: 31, keys: 7},
			{RoutedAttentionConfig: own, lists: 2, queries: 32, keys: 64},
			{RoutedAttentionConfig: own, lists: 1, queries: 70, keys: 200, scale: 30},
			{RoutedAttentionConfig: own, lists: 1, queries: 5, keys: 63, scale: 1000},
			{RoutedAttentionConfig: ownKeys(4, 16, 2).with(all), lists: 2, queries: 64, keys: 65, gpuKernel: true},
			{RoutedAttentionConfig: ownKeys(4, 16, 2).with(all).with(noKeyScores), lists: 3, queries: 33, keys: 33},
			{RoutedAttentionConfig: ownKeys(2, 22, 1).with(all).with(noValueScores).with(indexed), lists: 6, queries: 8, keys: 145, perItem: 3, rows: 50, gpuKernel: true},
			{RoutedAttentionConfig: valid, lists: 2, queries: 9, keys: 33, validKeys: -1},
			{RoutedAttentionConfig: valid, lists: 2, queries: 5, keys: 300, validKeys: 1},
			{RoutedAttentionConfig: valid, lists: 2, queries: 5, keys: 300, validKeys: 128},
			{RoutedAttentionConfig: valid, lists: 2, queries: 65, keys: 197, gpuKernel: true},
			{RoutedAttentionConfig: own.with(prefix), lists: 6, queries: 31, perItem: 3, rows: 200, prefix: 70},
			{RoutedAttentionConfig: own.with(prefix), lists: 6, queries: 4, perItem: 3, rows: 90, prefix: 64, validKeys: 50},
			{RoutedAttentionConfig: ownKeys(1, 64, 1), lists: 1, queries: 40, keys: 129},
		} {
			c.Precision = p
			a := c.args()
			want := ref.RoutedAttention(a)
			a.Round = p.round
			bound := ref.Bound(ref.RoutedAttention32(a), want, p.halfULP())
			test := func(t *testing.T, gpuKernel bool) {
				assert.NoError(t, ref.MaxErr(c.run(t, a, gpuKernel), want).Within(bound))
			}
			if c.gpuKernel {
				bothKernels(t, fmt.Sprintf("%+v", c), test)
			} else {
				t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { test(t, false) })
			}
		}
		t.Run("no valid key", func(t *testing.T) { // the result is the null value, rounded
			c := routedCase{RoutedAttentionConfig: valid, lists: 1, queries: 3, keys: 40, validKeys: -1}
			c.Precision, c.QueryValid = p, false
			a := c.args()
			got, row := c.run(t, a, false), c.Heads*c.DimHead
			for i := range c.queries {
				assert.Equal(t, p.roundAll(a.Null[row:]), got[i*row:][:row])
			}
		})
		t.Run("bits", func(t *testing.T) { testRoutedBits(t, p, false) })
		t.Run("padding", func(t *testing.T) { testRoutedPadding(t, p, false) })
	}
}

func TestAttentionMatrixBadConfig(t *testing.T) {
	dev := gputest.Device(t)
	_, err := NewWindowAttention(dev, WindowAttentionConfig{Heads: 1, DimHead: 16, Window: 4, Precision: 3})
	assert.ErrorContains(t, err, "WindowAttention: Precision is i32, want f32, f16 or bf16")
	_, err = NewWindowAttention(dev, WindowAttentionConfig{Heads: 1, DimHead: 17, Window: 4, Precision: F16})
	assert.ErrorContains(t, err, "WindowAttention: DimHead is 17, want an even number with Precision f16")
}

// A query that is NaN or infinite affects only its own result: the other queries of its matrix keep their bits.
func TestAttentionMatrixNaNQueries(t *testing.T) {
	const n, d = 40, 16
	for _, p := range windowPrecisions(t) {
		w, err := NewWindowAttention(gputest.Device(t), WindowAttentionConfig{Heads: 1, DimHead: d, Window: 4, Precision: p})
		require.NoError(t, err)
		defer w.Close()
		run := func(bad func(token int) bool, value float64) []uint16 {
			data := normal(1, 3*n*d)
			for token := range n {
				for i := range d * int(specBool(bad(token))) {
					data[token*3*d+i] = float32(value)
				}
			}
			gpu := gputest.New(t)
			g := WindowAttentionArgs{QKV: gpu.In("qkv", encode(p, data)), Y: gpu.Out("y", 2*n*d), Items: 1, N: n}
			gpu.Run(func(t *vk.CommandList) error { return w.Record(t, g) })
			return gpu.Uint16("y")
		}
		good := run(func(int) bool { return false }, 0)
		for _, value := range []float64{math.NaN(), math.Copysign(math.NaN(), -1), math.Inf(1), math.Inf(-1)} {
			for pattern := 1; pattern <= 8; pattern++ {
				bad := func(token int) bool { return token%8 == 8-pattern || pattern == 8 && token%8 > 4 }
				got := run(bad, value)
				for token := range n {
					if !bad(token) {
						assert.Equal(t, good[token*d:][:d], got[token*d:][:d], "%v: token %d next to %v, pattern %d", p, token, value, pattern)
					}
				}
			}
		}
	}
}
