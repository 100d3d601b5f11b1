package pipelines

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// weightGradient is a gradient of a weight.
type weightGradient struct {
	batch, rows, in, out int
	add                  bool

	LinearBackwardConfig // precision and 16-bit tensors
}

// reference returns the gradient in float64 and in plain float32.
func (c weightGradient) reference(dy, x, base []float32) (want []float64, naive []float32) {
	for b := range c.batch {
		a := ref.LinearArgs{X: x[b*c.rows*c.in:][:c.rows*c.in], W: make([]float32, c.in*c.out), Rows: c.rows, In: c.in, Out: c.out}
		if c.Precision != F32 {
			a.RoundOperands = c.Precision.round
		}
		upstream := dy[b*c.rows*c.out:][:c.rows*c.out]
		want, naive = append(want, ref.LinearBackward(a, upstream).W...), append(naive, ref.LinearBackward32(a, upstream).W...)
	}
	for i, v := range base {
		want[i] += float64(v)
		naive[i] += v
	}
	return want, naive
}

// run computes the gradient with the kernel for GPUs or that for the device, and returns it.
func (c weightGradient) run(t *testing.T, gpuKernel bool, maxFlops float64, dy, x, base []float32) []float32 {
	return c.runTile(t, -1, gpuKernel, maxFlops, dy, x, base)
}

func (c weightGradient) runTile(t *testing.T, tile int, gpuKernel bool, maxFlops float64, dy, x, base []float32) []float32 {
	gpu := gputest.New(t)
	config := c.LinearBackwardConfig
	config.In, config.Out, config.Add = c.in, c.out, c.add
	l, err := NewLinearBackward(gpu.Dev, config)
	require.NoError(t, err)
	defer l.Close()
	l.gpuKernel, l.tile = gpuKernel, tile
	if maxFlops > 0 {
		l.maxFlops, l.minTiles = maxFlops, 1
	}
	a := LinearBackwardArgs{
		DY: inputAt(gpu, "dy", encode(config.dy(), dy), config.dy().rowAlign(c.out)), X: inputAt(gpu, "x", encode(config.x(), x), config.x().rowAlign(c.in)),
		Batch: c.batch, Rows: c.rows,
	}
	if c.add {
		a.DW = gpu.InOut("dw", base)
	} else {
		outputs := c.batch
		if c.SumItems {
			outputs = 1
		}
		a.DW = gpu.Out("dw", 4*outputs*c.in*c.out)
	}
	if bytes := LinearBackwardScratch(config, c.batch, c.rows); bytes > 0 {
		a.Scratch = gpu.Out("scratch", int(bytes))
	}
	gpu.Run(func(list *vk.CommandList) error { return l.Record(list, a) })
	names := gpu.StepNames()
	assert.Equal(t, c.rows > 1024, strings.HasPrefix(names[len(names)-1], "column_sum"))
	if c.Precision != F32 {
		assert.Contains(t, names[0], "linear_backward_matrix")
	} else if gpuKernel || !limitsOf(gpu.Dev).CPU {
		assert.Equal(t, "linear_backward", names[0])
	} else {
		assert.Equal(t, "linear_backward_cpu", names[0])
	}
	if maxFlops > 0 {
		assert.Greater(t, len(names), 2)
	}
	return gpu.Float32("dw")
}

// test compares both kernels with the reference; they give the same bits.
func (c weightGradient) test(t *testing.T) {
	dy, x, base := normal(1, c.batch*c.rows*c.out), normal(2, c.batch*c.rows*c.in), []float32(nil)
	if c.add {
		base = normal(3, c.batch*c.in*c.out)
	}
	want, naive := c.reference(dy, x, base)
	got := c.run(t, true, 0, dy, x, base)
	assert.NoError(t, ref.MaxErr(got, want).Within(ref.Bound(naive, want, 1e-6)))
	assert.Equal(t, got, c.run(t, false, 0, dy, x, base))
}

func TestLinearBackward(t *testing.T) {
	for i, s := range []struct {
		batch, rows, in, out int
		add                  bool
	}{
		{1, 1, 1, 1, false}, {2, 3, 1, 5, true}, {1, 2, 4, 1, false}, {3, 7, 3, 2, true}, {1, 15, 63, 8, true}, {2, 16, 64, 64, false}, {1, 17, 65, 9, true},
		{1, 33, 68, 130, false}, {2, 101, 132, 67, false}, {1, 1023, 5, 7, true}, {2, 1024, 4, 4, true}, {2, 1025, 12, 3, true}, {1, 2049, 3, 70, false},
		{1, 16384, 2, 3, true}, {2, 16385, 4, 2, false}, {1, 20011, 5, 1, true},
	} {
		if testing.Short() && i != 11 {
			continue // CPU drivers compile two kernels for each
		}
		t.Run(fmt.Sprintf("%+v", s), weightGradient{batch: s.batch, rows: s.rows, in: s.in, out: s.out, add: s.add}.test)
	}
}

// The bits of an item do not depend on the batch, on its position, or on the division into dispatches.
func TestLinearBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 2 s on CPU drivers")
	}
	one := weightGradient{batch: 1, rows: 1100, in: 36, out: 10}
	three, dy, x := one, normal(1, one.rows*one.out), normal(2, one.rows*one.in)
	three.batch = 3
	all := three.run(t, false, 0, slices.Concat(normal(3, len(dy)), dy, dy), slices.Concat(normal(4, len(x)), x, x), nil)
	want := one.run(t, false, 0, dy, x, nil)
	assert.Equal(t, want, all[len(want):2*len(want)])
	assert.Equal(t, want, all[2*len(want):])

	large := weightGradient{batch: 2, rows: 3, in: 130, out: 70, add: true}
	dy, x = normal(1, 2*large.rows*large.out), normal(2, 2*large.rows*large.in)
	base := normal(3, 2*large.in*large.out)
	assert.Equal(t, large.run(t, true, 0, dy, x, base), large.run(t, true, 1, dy, x, base))
}

func TestLinearBackwardParts(t *testing.T) {
	for _, c := range []struct{ rows, in, out, rowsPerPart, parts int }{
		{1, 512, 2048, 1024, 1}, {1024, 4096, 4096, 4096, 1}, {8192, 512, 2048, 4096, 2}, {8192, 512, 1536, 1024, 8}, {8192, 512, 512, 1024, 8},
		{8192, 512, 1024, 2048, 4}, {8192, 512, 1792, 2048, 4}, {8192, 512, 1664, 1024, 8},
		{2049, 4096, 4096, 4096, 1}, {4097, 4096, 4096, 4096, 2}, {3000, 1, 8065, 2048, 2}, {3000, 1, 8064, 1024, 3}, {16384, 1, 1, 1024, 16},
		{32768, 512, 2048, 4096, 8}, {65536, 512, 2048, 4096, 16}, {65537, 512, 2048, 4097, 16},
	} {
		rowsPerPart, parts := linearBackwardParts(c.rows, c.in, c.out)
		assert.Equal(t, []int{c.rowsPerPart, c.parts}, []int{int(rowsPerPart), int(parts)}, "%+v", c)
	}
}

// The sum over items has the bits of the gradients of the items in TreeSum's order.
func TestLinearBackwardItems(t *testing.T) {
	for i, c := range []weightGradient{{batch: 3, rows: 1025, in: 12, out: 3}, {batch: 2, rows: 7, in: 3, out: 5}, {batch: 8, rows: 2100, in: 5, out: 4}} {
		if testing.Short() && i > 0 {
			continue
		}
		dy, x := normal(1, c.batch*c.rows*c.out), normal(2, c.batch*c.rows*c.in)
		want := ref.TreeSum32(c.run(t, false, 0, dy, x, nil), c.in*c.out)
		c.SumItems = true
		assert.Equal(t, want, c.run(t, false, 0, dy, x, nil), "%+v", c)
	}
}

// An infinite element of the last row makes a gradient infinite, not NaN: no product of it and 0 is added.
func TestLinearBackwardInfinite(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	c := weightGradient{batch: 1, rows: 3, in: 5, out: 4}
	for _, infinite := range []int{0, 1} {
		tensors := [2][]float32{slices.Repeat([]float32{1}, c.rows*c.out), slices.Repeat([]float32{1}, c.rows*c.in)}
		last := tensors[infinite]
		last[len(last)-1] = float32(math.Inf(1))
		for _, gpuKernel := range []bool{false, true} {
			dw := c.run(t, gpuKernel, 0, tensors[0], tensors[1], nil)
			for i, v := range dw {
				want := 3.0
				if infinite == 0 && i/c.in == c.out-1 || infinite == 1 && i%c.in == c.in-1 {
					want = math.Inf(1)
				}
				assert.EqualValues(t, want, v, "element %d, gpuKernel %v", i, gpuKernel)
			}
		}
	}
}

func TestLinearBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	for want, c := range map[string]LinearBackwardConfig{
		"In is 0 and Out 1, want at least 1":                        {Out: 1},
		"In is 1 and Out -1, want at least 1":                       {In: 1, Out: -1},
		"In is 65536 and Out 65536, want at least 1, and a product": {In: 1 << 16, Out: 1 << 16},
	} {
		_, err := NewLinearBackward(gpu.Dev, c)
		assert.ErrorContains(t, err, want)
	}
	_, err := NewLinearBackward(gpu.Dev, LinearBackwardConfig{In: 1, Out: 1, Add: true, SumItems: true})
	assert.ErrorContains(t, err, "Add and SumItems are set, want one of them")
	l, err := NewLinearBackward(gpu.Dev, LinearBackwardConfig{In: 2, Out: 3})
	require.NoError(t, err)
	x, dy, dw, scratch := gpu.In("x", normal(1, 2*2000)), gpu.In("dy", normal(2, 3*2000)), gpu.Out("dw", 24), gpu.Out("scratch", 48)
	good := LinearBackwardArgs{DY: dy, X: x, DW: dw, Scratch: scratch, Rows: 2000}
	assertRejected(t, gpu, good, l.Record, []badArgs[LinearBackwardArgs]{
		{"Rows is 0, want 1", func(a *LinearBackwardArgs) { a.Rows = 0 }},
		{"Batch is -1, want 1", func(a *LinearBackwardArgs) { a.Batch = -1 }},
		{"Batch*Rows is 4294967294000, want 1", func(a *LinearBackwardArgs) { a.Batch = math.MaxInt32 }},
		{"Batch is 100000000 with Out 3, want Batch*Out of at most", func(a *LinearBackwardArgs) { a.Batch, a.Rows = 100000000, 1 }},
		{"dy has 24000 bytes, want [Batch 1, Rows 1999, Out 3] f32, 23988 bytes", func(a *LinearBackwardArgs) { a.Rows = 1999 }},
		{"x is missing, want [Batch 1, Rows 2000, In 2] f32, 16000 bytes", func(a *LinearBackwardArgs) { a.X = vk.Range{} }},
		{"dw has 20 bytes, want [Batch 1, Out 3, In 2] f32, 24 bytes", func(a *LinearBackwardArgs) { a.DW = dw.Slice(0, 20) }},
		{"scratch is missing, want LinearBackwardScratch, 48 bytes", func(a *LinearBackwardArgs) { a.Scratch = vk.Range{} }},
		{"scratch has 48 bytes, want LinearBackwardScratch, 0 bytes", func(a *LinearBackwardArgs) { a.Rows, a.X, a.DY = 1, x.Slice(0, 8), dy.Slice(0, 12) }},
	})
	if gpu.Dev.Caps().CPU {
		const rows = 16*maxCPUIterations + 1
		assertRecordError(t, gpu, "a sum of 960001 rows needs 60001 loop iterations", func(list *vk.CommandList) error {
			return l.Record(list, LinearBackwardArgs{DY: dy, X: x, DW: dw, Scratch: scratch, Rows: rows})
		})
	}
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())

	items, err := NewLinearBackward(gpu.Dev, LinearBackwardConfig{In: 2, Out: 3, SumItems: true})
	require.NoError(t, err)
	good = LinearBackwardArgs{DY: dy, X: x, DW: dw, Scratch: gpu.Out("items", 48), Batch: 2, Rows: 1000}
	assertRejected(t, gpu, good, items.Record, []badArgs[LinearBackwardArgs]{
		{"Batch is 9, want at most 8 with SumItems", func(a *LinearBackwardArgs) { a.Batch, a.Rows = 9, 1 }},
		{"dw has 48 bytes, want [Out 3, In 2] f32, 24 bytes", func(a *LinearBackwardArgs) { a.DW = scratch }},
		{"scratch is missing, want LinearBackwardScratch, 48 bytes", func(a *LinearBackwardArgs) { a.Scratch = vk.Range{} }},
	})
	require.NoError(t, items.Close())
}
