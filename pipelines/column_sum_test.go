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

// columnSumCase is a sum over rows.
type columnSumCase struct {
	batch, rows, c int
	add, skip      bool

	x       DType
	aligned bool // columns are added in groups of 4
	items   bool // the items are added
}

// steps is the number of dispatches: blocks of rows, all rows of an item, and the items.
func (c columnSumCase) steps() int {
	steps := 1
	if c.rows > 256 {
		steps++
	}
	if rows := columnSumRowsLeft(c.rows); c.items && rows > 64 {
		steps++
	}
	return steps
}

// test runs the case and returns y.
func (c columnSumCase) test(t *testing.T, x []float32) []float32 {
	gpu := gputest.New(t)
	s, err := NewColumnSum(gpu.Dev, ColumnSumConfig{C: c.c, Add: c.add, SumItems: c.items, X: c.x})
	require.NoError(t, err)
	defer s.Close()
	x = c.x.roundAll(x)
	var skip []uint32
	var base []float32
	a := ColumnSumArgs{Batch: c.batch, Rows: c.rows}
	if c.skip {
		x, skip = slices.Clone(x), make([]uint32, c.batch*c.rows)
		for i := range skip {
			if skip[i] = uint32(i % 3 << 30); skip[i] != 0 && i%2 == 0 {
				x[i*c.c] = float32(math.NaN()) // what a row that is left out holds has no effect
			}
		}
		a.Skip = inputAt(gpu, "skip", skip, wordAlign)
	}
	align := uint64(wordAlign)
	if c.aligned {
		align = vec4Align
	}
	a.X = inputAt(gpu, "x", encode(c.x, x), align)
	outputs, bytes := c.batch, ColumnSumScratch(c.batch, c.rows, c.c)
	if c.items {
		outputs, bytes = 1, ColumnSumItemsScratch(c.batch, c.rows, c.c)
	}
	if c.add {
		base = normal(2, outputs*c.c)
		a.Y = gpu.InOut("y", base)
	} else {
		a.Y = gpu.Out("y", 4*outputs*c.c)
	}
	if bytes > 0 {
		a.Scratch = gpu.Out("scratch", int(bytes))
	}
	gpu.Run(func(list *vk.CommandList) error { return s.Record(list, a) })
	assert.Len(t, gpu.StepNames(), c.steps())
	assert.Equal(t, c.aligned && c.c%4 == 0, strings.HasSuffix(gpu.StepNames()[0], "_vec4"))
	last := gpu.StepNames()[c.steps()-1]
	assert.Equal(t, c.items || columnSumRowsLeft(c.rows) <= 16 && c.batch*c.c >= 16384, strings.HasPrefix(last, "column_sum_few"), last)
	want, naive := ref.ColumnSum(x, skip, nil, c.batch, c.c), ref.ColumnSum32(x, skip, nil, c.batch, c.c)
	if c.items {
		want, naive = ref.ColumnSum(x, skip, nil, 1, c.c), ref.ColumnSum32(x, skip, nil, 1, c.c)
	}
	for i, v := range base {
		want[i], naive[i] = want[i]+float64(v), naive[i]+v
	}
	assert.NoError(t, ref.MaxErr(gpu.Float32("y"), want).Within(ref.Bound(naive, want, 1e-6)))
	return gpu.Float32("y")
}

func TestColumnSum(t *testing.T) {
	for _, size := range []struct{ batch, rows, c int }{
		{1, 1, 1}, {1, 2, 3}, {3, 7, 31}, {1, 8, 32}, {2, 9, 33}, {5, 255, 64}, {1, 256, 5}, {3, 257, 65}, {2, 513, 100},
		{1, 65536, 3}, {2, 65537, 2}, {1, 70001, 1},
	} {
		if testing.Short() && size.rows != 9 && size.rows != 257 {
			continue // CPU drivers compile a kernel for each
		}
		for i := range 4 {
			c := columnSumCase{batch: size.batch, rows: size.rows, c: size.c, add: i&1 != 0, skip: i&2 != 0}
			t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { c.test(t, normal(1, c.batch*c.rows*c.c)) })
		}
	}
}

// The bits of an item do not depend on the batch or on its position.
func TestColumnSumBits(t *testing.T) {
	c := columnSumCase{batch: 3, rows: 1031, c: 37}
	item := normal(5, c.rows*c.c)
	y := c.test(t, slices.Concat(normal(6, len(item)), item, item))
	c.batch = 1
	one := c.test(t, item)
	assert.Equal(t, one, y[c.c:2*c.c])
	assert.Equal(t, one, y[2*c.c:])
}

// Few rows of many columns give the bits of the same rows of few columns, to which other kernels belong.
func TestColumnSumFewRows(t *testing.T) {
	for i, c := range []columnSumCase{
		{batch: 2, rows: 5, c: 8192, aligned: true}, {batch: 3, rows: 16, c: 6001, add: true}, {batch: 1, rows: 1, c: 16384, skip: true}, {batch: 1, rows: 7, c: 16385},
		{batch: 5, rows: 9, c: 4000, add: true, skip: true, aligned: true}, {batch: 3, rows: 8, c: 16384, x: BF16},
	} {
		if testing.Short() && i != 0 {
			continue
		}
		x := normal(1, c.batch*c.rows*c.c)
		all := c.test(t, x)
		part := c
		part.batch, part.c, part.add, part.skip = 1, 32, false, false // the columns from first on of the last item
		for _, first := range []int{0, c.c - part.c} {
			var columns []float32
			for r := range c.rows {
				columns = append(columns, x[((c.batch-1)*c.rows+r)*c.c+first:][:part.c]...)
			}
			if !c.add && !c.skip {
				assert.Equal(t, part.test(t, columns), all[(c.batch-1)*c.c+first:][:part.c], "%+v", c)
			}
		}
	}
}

// The sum over items has the bits of the sums of the items in TreeSum's order.
func TestColumnSumItems(t *testing.T) {
	for i, c := range []columnSumCase{
		{batch: 3, rows: 5, c: 33}, {batch: 2, rows: 1, c: 1}, {batch: 1, rows: 64, c: 7, add: true}, {batch: 4, rows: 65, c: 12, skip: true, aligned: true},
		{batch: 5, rows: 700, c: 20, add: true, skip: true}, {batch: 6, rows: 16641, c: 8, aligned: true}, {batch: 7, rows: 100, c: 6, x: BF16, add: true},
		{batch: 8, rows: 17, c: 64, aligned: true, x: F16}, {batch: 8, rows: 8, c: 5}, {batch: 7, rows: 3, c: 5},
	} {
		if testing.Short() && i != 0 {
			continue
		}
		x, add := normal(1, c.batch*c.rows*c.c), c.add
		c.items = true
		got := c.test(t, x)
		c.items, c.add = false, false
		want := ref.TreeSum32(c.test(t, x), c.c)
		if add {
			for i, v := range normal(2, c.c) {
				want[i] += v
			}
		}
		assert.Equal(t, want, got, "%+v", c)
	}
}

func TestColumnSumBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewColumnSum(gpu.Dev, ColumnSumConfig{})
	assert.ErrorContains(t, err, "C is 0, want 1")
	s, err := NewColumnSum(gpu.Dev, ColumnSumConfig{C: 2})
	require.NoError(t, err)
	x, y, scratch := gpu.In("x", normal(1, 600)), gpu.Out("y", 8), gpu.Out("scratch", 16)
	good := ColumnSumArgs{X: x, Y: y, Scratch: scratch, Rows: 300}
	assertRejected(t, gpu, good, s.Record, []badArgs[ColumnSumArgs]{
		{"Batch is -1, want 1", func(a *ColumnSumArgs) { a.Batch = -1 }},
		{"x has 2400 bytes, want [Batch 2, Rows 300, C 2] f32, 4800 bytes", func(a *ColumnSumArgs) { a.Batch = 2 }},
		{"skip has 2400 bytes, want [Batch 1, Rows 300] u32, 1200 bytes", func(a *ColumnSumArgs) { a.Skip = x }},
		{"y has 8 bytes, want [Batch 2, C 2] f32, 16 bytes", func(a *ColumnSumArgs) { a.Batch, a.Rows = 2, 150 }},
		{"Rows is 0, want 1", func(a *ColumnSumArgs) { a.Rows = 0 }},
		{"x has 2400 bytes, want [Batch 1, Rows 299, C 2] f32, 2392 bytes", func(a *ColumnSumArgs) { a.Rows = 299 }},
		{"y is missing, want [Batch 1, C 2] f32, 8 bytes", func(a *ColumnSumArgs) { a.Y = vk.Range{} }},
		{"scratch is missing, want ColumnSumScratch, 16 bytes", func(a *ColumnSumArgs) { a.Scratch = vk.Range{} }},
		{"scratch has 16 bytes, want ColumnSumScratch, 0 bytes", func(a *ColumnSumArgs) { a.Rows, a.X = 1, x.Slice(0, 8) }},
	})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())

	items, err := NewColumnSum(gpu.Dev, ColumnSumConfig{C: 2, SumItems: true})
	require.NoError(t, err)
	defer items.Close()
	good = ColumnSumArgs{X: x, Y: y, Batch: 3, Rows: 100, Scratch: gpu.Out("sums", 24)}
	assertRejected(t, gpu, good, items.Record, []badArgs[ColumnSumArgs]{
		{"Batch is 9, want at most 8 with SumItems", func(a *ColumnSumArgs) { a.Batch, a.Rows = 9, 1 }},
		{"y has 16 bytes, want [C 2] f32, 8 bytes", func(a *ColumnSumArgs) { a.Y = scratch }},
		{"scratch is missing, want ColumnSumItemsScratch, 24 bytes", func(a *ColumnSumArgs) { a.Scratch = vk.Range{} }},
	})
}

// Groups of 4 columns give the bits of single columns, also of rows of 16 bits.
func TestColumnSumGroups(t *testing.T) {
	for _, x := range []DType{F32, F16, BF16} {
		if testing.Short() && x != F32 {
			continue
		}
		for _, c := range []columnSumCase{{batch: 2, rows: 5, c: 4, add: true}, {batch: 2, rows: 700, c: 136, skip: true}, {batch: 1, rows: 66000, c: 8, add: true}} {
			c.x = x
			data := normal(7, c.batch*c.rows*c.c)
			want := c.test(t, data)
			c.aligned = true
			assert.Equal(t, want, c.test(t, data), "%+v", c)
		}
	}
	_, err := NewColumnSum(gputest.Device(t), ColumnSumConfig{C: 3, X: F16})
	assert.ErrorContains(t, err, "C is 3, want an even number with X f16")
}
