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

// windowGradient is a backward pass with its data.
type windowGradient struct {
	WindowAttentionConfig
	items, n int
	scale    float32 // of queries, keys and values; 0: 1
	mask     []uint8
	ties     bool // all keys of an item are equal
}

func (c windowGradient) String() string {
	return fmt.Sprintf("%+v items %d n %d scale %g mask %v ties %v", c.WindowAttentionConfig, c.items, c.n, c.scale, c.mask != nil, c.ties)
}

// data returns the arguments of the CPU reference.
func (c windowGradient) data() (a ref.WindowAttentionArgs, dy []float32) {
	a = ref.WindowAttentionArgs{
		QKV: c.Precision.roundAll(scaled(normal(1, c.items*c.n*3*c.Heads*c.DimHead), max(c.scale, 1))), Mask: c.mask, B: c.items, N: c.n, Heads: c.Heads, DimHead: c.DimHead,
		Window: c.Window, Causal: c.Causal, Exact: c.Exact,
	}
	row := c.Heads * c.DimHead
	for token := range c.items * c.n {
		if c.ties {
			copy(a.QKV[(3*token+1)*row:][:row], a.QKV[(3*(token-token%c.n)+1)*row:])
		}
	}
	return a, c.Precision.roundAll(normal(2, c.items*c.n*row))
}

// poisonMasked makes the keys and values of masked tokens NaN.
func (c windowGradient) poisonMasked(qkv []float32) []float32 {
	row := c.Heads * c.DimHead
	for token, valid := range c.mask {
		for i := row; i < 3*row && valid == 0; i++ {
			qkv[3*token*row+i] = float32(math.NaN())
		}
	}
	return qkv
}

func (c windowGradient) open(t *testing.T, gpu *gputest.Harness) *WindowAttentionBackward {
	t.Helper()
	w, err := NewWindowAttentionBackward(gpu.Dev, c.WindowAttentionConfig)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

// compute returns dqkv of a device. Rows whose length is no multiple of 16 bytes start at a multiple of 4 only.
func (c windowGradient) compute(t *testing.T, w *WindowAttentionBackward, gpu *gputest.Harness, qkv, dy []float32) []float32 {
	t.Helper()
	p, offset := c.Precision, c.Precision.rowAlign(c.DimHead)
	y := ref.WindowAttention32(ref.WindowAttentionArgs{
		QKV: qkv, Mask: c.mask, B: c.items, N: c.n, Heads: c.Heads, DimHead: c.DimHead, Window: c.Window, Causal: c.Causal, Exact: c.Exact,
	})
	a := WindowAttentionBackwardArgs{
		Y: inputAt(gpu, "y", encode(p, y), offset), QKV: inputAt(gpu, "qkv", encode(p, qkv), offset), DY: inputAt(gpu, "dy", encode(p, dy), offset), DQKV: p.outputAt(gpu, "dqkv", len(qkv), offset),
		Scratch: gpu.Out("scratch", int(WindowAttentionBackwardScratch(c.WindowAttentionConfig, c.items, c.n))), Items: c.items, N: c.n,
	}
	if c.mask != nil {
		a.Mask = gpu.In("mask", c.mask)
	}
	gpu.Run(func(list *vk.CommandList) error { return w.Record(list, a) })
	return p.outputFrom(t, gpu, "dqkv", offset)
}

// onlyValid returns a mask of n tokens with some valid ones.
func onlyValid(n int, tokens ...int) []uint8 {
	mask := make([]uint8, n)
	for _, i := range tokens {
		mask[i] = 1
	}
	return mask
}

func TestWindowAttentionBackward(t *testing.T) {
	type config = WindowAttentionConfig
	causal, exact := config{Heads: 2, DimHead: 64, Window: 16, Causal: true}, config{Heads: 2, DimHead: 7, Window: 5, Causal: true, Exact: true}
	var list []windowGradient
	for _, n := range []int{1, 7, 15, 16, 17, 101} {
		list = append(list, windowGradient{config{Heads: 2, DimHead: 16, Window: 8}, 2, n, 0, nil, false},
			windowGradient{causal, 2, n, 0, paddingMask(2, n), false}, windowGradient{exact, 3, n, 0, paddingMask(3, n), false})
	}
	list = append(list, []windowGradient{
		{config{Heads: 1, DimHead: 1, Window: 1}, 1, 40, 0, nil, false},
		{config{Heads: 3, DimHead: 7, Window: 31, Causal: true}, 2, 97, 0, nil, false},
		{config{Heads: 2, DimHead: 100, Window: 40}, 2, 130, 0, paddingMask(2, 130), false},
		{config{Heads: 1, DimHead: 128, Window: 33, Causal: true, Exact: true}, 2, 140, 0, paddingMask(2, 140), false},
		{config{Heads: 1, DimHead: 128, Window: 33, Causal: true}, 1, 140, 0, nil, false},
		{config{Heads: 2, DimHead: 24, Window: 1000}, 2, 70, 0, paddingMask(2, 70), false},
		{config{Heads: 2, DimHead: 24, Window: 1000}, 1, 70, 0, onlyValid(70, 31, 64), false}, // the last and the first of a tile
		{config{Heads: 2, DimHead: 24, Window: 20}, 2, 70, 0, make([]uint8, 140), false},      // no valid token
		{config{Heads: 2, DimHead: 32, Window: 20}, 2, 70, 0, paddingMask(2, 70), true},
		{config{Heads: 1, DimHead: 64, Window: 33, Causal: true}, 2, 100, 6, nil, false},
		{config{Heads: 1, DimHead: 64, Window: 33}, 1, 100, 1e4, nil, false}, // every softmax is 1 and 0
	}...)
	opened := map[config]*WindowAttentionBackward{}
	for _, c := range list {
		if testing.Short() && c.WindowAttentionConfig != exact {
			continue // CPU drivers compile kernels for seconds
		}
		if opened[c.WindowAttentionConfig] == nil {
			opened[c.WindowAttentionConfig] = c.open(t, gputest.New(t))
		}
		t.Run(c.String(), func(t *testing.T) {
			gpu, w := gputest.New(t), opened[c.WindowAttentionConfig]
			a, dy := c.data()
			want, naive := ref.WindowAttentionBackward(a, dy), ref.WindowAttentionBackward32(a, dy)
			got := c.compute(t, w, gpu, c.poisonMasked(a.QKV), dy)
			assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 2e-6)))
			for token, valid := range c.mask {
				row := c.Heads * c.DimHead
				if valid == 0 {
					assert.Equal(t, make([]float32, 2*row), got[(3*token+1)*row:][:2*row], "key and value of the masked token %d", token)
				}
			}
			assert.Equal(t, []string{"window_attention_backward_queries", "window_attention_backward_keys"}, gpu.StepNames())
		})
	}
}

// The bits of an item do not depend on other items, nor on the number of dispatches.
func TestWindowAttentionBackwardBits(t *testing.T) {
	// A config of TestWindowAttentionBackward, which need not be compiled again.
	c := windowGradient{WindowAttentionConfig{Heads: 2, DimHead: 7, Window: 5, Causal: true, Exact: true}, 3, 37, 0, paddingMask(3, 37), false}
	a, dy := c.data()
	gpu := gputest.New(t)
	w := c.open(t, gpu)
	first := c.compute(t, w, gpu, a.QKV, dy)
	w.kernels.maxFlops = 1e4
	gpu = gputest.New(t)
	assert.Equal(t, first, c.compute(t, w, gpu, a.QKV, dy))
	assert.Greater(t, len(gpu.StepNames()), 4)

	one, item := c, len(a.QKV)/3
	one.items, one.mask = 1, c.mask[2*c.n:]
	assert.Equal(t, first[2*item:], one.compute(t, w, gputest.New(t), a.QKV[2*item:], dy[2*item/3:]))
}

func TestWindowAttentionBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]WindowAttentionConfig{
		"WindowAttentionBackward: Heads is 0, want 1":           {DimHead: 16, Window: 4},
		"WindowAttentionBackward: Window is 0, want 1":          {Heads: 1, DimHead: 16},
		"WindowAttentionBackward: Exact is true without Causal": {Heads: 1, DimHead: 16, Window: 4, Exact: true},
	} {
		_, err := NewWindowAttentionBackward(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	assert.Zero(t, WindowAttentionBackwardScratch(WindowAttentionConfig{}, 1, 1))
	w, err := NewWindowAttentionBackward(gpu.Dev, WindowAttentionConfig{Heads: 1, DimHead: 4, Window: 4})
	require.NoError(t, err)
	qkv, dqkv, scratch := gpu.In("qkv", normal(1, 2*20*12)), gpu.Out("dqkv", 4*2*20*12), gpu.Out("scratch", 16*2*20)
	good := WindowAttentionBackwardArgs{QKV: qkv, Mask: qkv.Slice(0, 40), Y: qkv.Slice(0, 640), DY: qkv.Slice(0, 640), DQKV: dqkv, Scratch: scratch, Items: 2, N: 20}
	list, err := gpu.Dev.NewCommandList(vk.CommandListConfig{Name: "good"})
	require.NoError(t, err)
	require.NoError(t, w.Record(list, good))
	require.NoError(t, list.Close())
	assertRejected(t, gpu, good, w.Record, []badArgs[WindowAttentionBackwardArgs]{
		{"Items is 0, want 1", func(a *WindowAttentionBackwardArgs) { a.Items = 0 }},
		{"N is -1, want 1", func(a *WindowAttentionBackwardArgs) { a.N = -1 }},
		{"N is 1073741824, want less", func(a *WindowAttentionBackwardArgs) { a.Items, a.N = 1, 1<<30 }},
		{"qkv is missing, want [Items 2, N 20, 3 3, H 1, D 4] f32", func(a *WindowAttentionBackwardArgs) { a.QKV = vk.Range{} }},
		{"mask has 640 bytes, want [Items 2, N 20] u8, 40 bytes", func(a *WindowAttentionBackwardArgs) { a.Mask = a.DY }},
		{"y is missing, want [Items 2, N 20, H 1, D 4] f32", func(a *WindowAttentionBackwardArgs) { a.Y = vk.Range{} }},
		{"dy has 40 bytes, want [Items 2, N 20, H 1, D 4] f32", func(a *WindowAttentionBackwardArgs) { a.DY = a.Mask }},
		{"dqkv has 1904 bytes", func(a *WindowAttentionBackwardArgs) { a.DQKV = dqkv.Slice(16, 1904) }},
		{"scratch has 624 bytes, want WindowAttentionBackwardScratch, 640 bytes", func(a *WindowAttentionBackwardArgs) { a.Scratch = scratch.Slice(16, 624) }},
	})
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
}
