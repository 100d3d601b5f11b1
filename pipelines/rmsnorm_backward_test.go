package pipelines

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/colt5-vulkan/colt5/internal/gputest"
	"github.com/colt5-vulkan/colt5/internal/ref"
	"github.com/colt5-vulkan/colt5/vk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// normGradient is a gradient of RMSNorm. With inRows rows are gathered through list 1 of 3.
type normGradient struct {
	items, rows, c, inRows int
	add, addGamma          bool

	dyType  DType
	outside bool // with add, the sum of dx begins in another range
}

// normData are the tensors of a gradient. exponents scale the rows of x by powers of two.
type normData struct {
	x, gamma, dy, dx, dgamma []float32
	exponents                []int
	gather                   []int32
	valid                    []uint32
}

func (c normGradient) data() normData {
	xRows := c.items * max(c.inRows, c.rows)
	if c.inRows > 0 {
		xRows = c.items * c.inRows
	}
	d := normData{
		x: normal(1, xRows*c.c), gamma: normal(2, c.c), dy: normal(3, c.items*c.rows*c.c), dx: normal(4, xRows*c.c), dgamma: normal(5, c.items*c.c),
		exponents: make([]int, xRows),
	}
	for slot := range 3 * c.items * c.rows * min(c.inRows, 1) { // distinct rows in each list, and rows that do not exist
		d.gather = append(d.gather, int32(slot%c.rows*5%(c.inRows+3)-1))
		d.valid = append(d.valid, uint32(slot*slot%5<<30))
	}
	for slot := 4; slot < len(d.gather); slot += 11 {
		d.gather[slot] = -1 << 31
	}
	d.dy = c.dyType.roundAll(d.dy)
	return d
}

// source returns the row of x that a row of dy belongs to, or -1.
func (c normGradient) source(d normData, row int) int {
	if c.inRows == 0 {
		return row
	}
	item, r := row/c.rows, row%c.rows
	slot := (3*item+1)*c.rows + r
	if index := int(d.gather[slot]); d.valid[slot] != 0 && index >= 0 && index < c.inRows {
		return item*c.inRows + index
	}
	return -1
}

// normReference adds the gradients to dx and dgamma. backward is that of one row, in a precision.
func normReference[T ref.Float](c normGradient, d normData, backward func(x, gamma, dy []float32, rows, c int) (dx, dgamma []T)) (dx, dgamma []T) {
	dx, dgamma = make([]T, len(d.x)), make([]T, len(d.dgamma))
	for i := range dx {
		if c.add {
			dx[i] = T(d.dx[i])
		}
	}
	for i := range dgamma {
		if c.addGamma {
			dgamma[i] = T(d.dgamma[i])
		}
	}
	for row := range c.items * c.rows {
		source := c.source(d, row)
		if source < 0 {
			continue
		}
		rowDX, rowDGamma := backward(d.x[source*c.c:][:c.c], d.gamma, d.dy[row*c.c:][:c.c], 1, c.c)
		for i := range c.c {
			dx[source*c.c+i] += rowDX[i]
			dgamma[row/c.rows*c.c+i] += rowDGamma[i]
		}
	}
	return dx, dgamma
}

// run returns dx and dgamma. The rows of x are multiplied by powers of two, and those of dx divided by them.
func (c normGradient) run(t *testing.T, d normData) (dx, dgamma []float32) {
	return c.runWith(t, d, false)
}

func (c normGradient) runWith(t *testing.T, d normData, sumItems bool) (dx, dgamma []float32) {
	gpu := gputest.New(t)
	n, err := NewRMSNormBackward(gpu.Dev, RMSNormBackwardConfig{C: c.c, Gather: c.inRows > 0, Add: c.add, AddGamma: c.addGamma, SumItems: sumItems, DY: c.dyType})
	require.NoError(t, err)
	defer n.Close()
	x := scaleRows(d.x, d.exponents, c.c, 1)
	a := RMSNormBackwardArgs{
		X: inputAt(gpu, "x", x, rowAlign(c.c)), Gamma: inputAt(gpu, "gamma", d.gamma, rowAlign(c.c)), DY: inputAt(gpu, "dy", encode(c.dyType, d.dy), c.dyType.rowAlign(c.c)),
		Scratch: gpu.Out("scratch", int(RMSNormBackwardScratch(c.items, c.rows, c.c))), Items: c.items, Rows: c.rows,
	}
	base := scaleRows(d.dx, d.exponents, c.c, -1)
	switch {
	case c.outside:
		a.DX, a.Base = gpu.Out("dx", 4*len(d.dx)), inputAt(gpu, "base", base, rowAlign(c.c))
	case c.add:
		a.DX = gpu.InOut("dx", base)
	default:
		a.DX = gpu.Out("dx", 4*len(d.dx))
	}
	switch {
	case c.addGamma:
		a.DGamma = gpu.InOut("dgamma", d.dgamma)
	case sumItems:
		a.DGamma = gpu.Out("dgamma", 4*c.c)
	default:
		a.DGamma = gpu.Out("dgamma", 4*len(d.dgamma))
	}
	if c.inRows > 0 {
		a.Gather, a.Valid = inputAt(gpu, "gather", d.gather, wordAlign), inputAt(gpu, "valid", d.valid, wordAlign)
		a.InRows, a.Lists, a.List = c.inRows, 3, 1
	}
	gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
	names := gpu.StepNames()
	if FusedNormBackward(c.c) {
		assert.Equal(t, "rmsnorm_backward_fused", names[0])
	} else {
		assert.Equal(t, c.rows > 256, len(names) == 3, names)
	}
	return scaleRows(gpu.Float32("dx"), d.exponents, c.c, 1), gpu.Float32("dgamma")
}

// scaleRows returns rows times sign * 2^exponent.
func scaleRows(x []float32, exponents []int, c, sign int) []float32 {
	y := slices.Clone(x)
	for i := range y {
		y[i] = float32(math.Ldexp(float64(y[i]), sign*exponents[i/c]))
	}
	return y
}

func (c normGradient) test(t *testing.T, d normData) {
	dx, dgamma := c.run(t, d)
	wantDX, wantDGamma := normReference(c, d, ref.RMSNormBackward)
	naiveDX, naiveDGamma := normReference(c, d, ref.RMSNormBackward32)
	assert.NoError(t, ref.MaxErr(dx, wantDX).Within(ref.Bound(naiveDX, wantDX, 1e-6)), "dx")
	assert.NoError(t, ref.MaxErr(dgamma, wantDGamma).Within(ref.Bound(naiveDGamma, wantDGamma, 1e-6)), "dgamma")
}

func TestRMSNormBackward(t *testing.T) {
	for _, c := range []normGradient{
		{1, 1, 1, 0, false, false, F32, false}, {2, 3, 4, 0, true, false, F32, false}, {1, 5, 31, 0, false, true, F32, false}, {3, 7, 32, 0, true, true, F32, false}, {2, 33, 100, 0, false, false, F32, false},
		{1, 255, 33, 0, true, true, F32, false}, {1, 256, 12, 0, false, true, F32, false}, {2, 257, 65, 0, false, true, F32, false}, {1, 700, 512, 0, true, false, F32, false}, {1, 2, 4099, 0, false, false, F32, false},
		{1, 1, 3, 1, true, false, F32, false}, {2, 9, 7, 11, true, true, F32, false}, {3, 8, 68, 8, true, false, F32, false}, {2, 300, 40, 301, true, true, F32, false},
	} {
		if testing.Short() && c.rows != 7 && c.rows != 300 {
			continue // CPU drivers compile two or three kernels for each
		}
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { c.test(t, c.data()) })
	}
}

// Rows of all lengths whose squares, or whose sums of squares, do not fit a float32, beside rows that do.
func TestRMSNormBackwardLengths(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, c := range []normGradient{{2, 40, 6, 0, false, false, F32, false}, {1, 40, 130, 0, true, true, F32, false}, {2, 19, 20, 23, true, false, F32, false}} {
		d := c.data()
		for row := range d.exponents {
			d.exponents[row] = []int{0, 62, 80, 100, -20, -35, 0, 70}[row%8]
		}
		c.test(t, d)
	}
}

// A row shorter than 1e-12 is divided by the constant 1e-12, and every longer one by its length.
func TestRMSNormBackwardShortRows(t *testing.T) {
	c := normGradient{items: 1, rows: 8, c: 40, add: true, addGamma: true}
	d := c.data()
	for row := range d.exponents {
		d.exponents[row] = []int{-40, -30, -20, -10}[row%4] // lengths of 6e-12 to 6e-3
	}
	c.test(t, d)
	c = normGradient{items: 1, rows: 3, c: 40}
	d = c.data()
	clear(d.x[:80])
	d.x[43], d.x[77] = 3e-13, -4e-13
	gradients, _ := c.run(t, d)
	for i, v := range gradients[:80] {
		assert.InEpsilon(t, math.Sqrt(40)*1e12*float64(d.gamma[i%40])*float64(d.dy[i]), v, 1e-6)
	}
}

// Empty slots add nothing, whatever their gradients are. The bits of an item do not depend on the batch.
func TestRMSNormBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, width := range []int{20, 21} { // fused, and not
		normGradient{items: 3, rows: 270, c: width, inRows: 280, add: true}.testBits(t)
	}
}

func (c normGradient) testBits(t *testing.T) {
	d := c.data()
	for _, s := range [][]float32{d.x, d.dx, d.dy} {
		n := len(s) / 3
		copy(s[2*n:], s[n:2*n])
	}
	copy(d.gather[2*3*c.rows:], d.gather[3*c.rows:2*3*c.rows])
	copy(d.valid[2*3*c.rows:], d.valid[3*c.rows:2*3*c.rows])
	dx, dgamma := c.run(t, d)
	n := len(dx) / 3
	assert.Equal(t, dx[n:2*n], dx[2*n:])
	assert.Equal(t, dgamma[c.c:2*c.c], dgamma[2*c.c:])
	for row := range 3 * c.rows {
		if c.source(d, row) < 0 {
			d.dy[row*c.c] = float32(math.NaN())
		}
	}
	sameDX, sameDGamma := c.run(t, d)
	assert.Equal(t, dx, sameDX)
	assert.Equal(t, dgamma, sameDGamma)

	one := c
	one.items = 1
	d = normData{
		x: d.x[n : 2*n], gamma: d.gamma, dy: d.dy[c.rows*c.c:][:c.rows*c.c], dx: d.dx[n : 2*n], dgamma: d.dgamma[:c.c], exponents: d.exponents[:c.inRows],
		gather: d.gather[3*c.rows:][:3*c.rows], valid: d.valid[3*c.rows:][:3*c.rows],
	}
	oneDX, oneDGamma := one.run(t, d)
	assert.Equal(t, dx[n:2*n], oneDX)
	assert.Equal(t, dgamma[c.c:2*c.c], oneDGamma)
}

// The sums over items have the bits of the gradients of the items in TreeSum's order: of all rows, and of gathered ones.
func TestNormBackwardItems(t *testing.T) {
	for i, c := range []normGradient{{items: 3, rows: 5, c: 20}, {items: 2, rows: 4800, c: 8}, {items: 8, rows: 700, c: 20, inRows: 710, add: true}} {
		if testing.Short() && i > 0 {
			continue
		}
		d := c.data()
		_, want := c.run(t, d)
		_, got := c.runWith(t, d, true)
		assert.Equal(t, ref.TreeSum32(want, c.c), got, "%+v", c)
		if c.inRows == 0 {
			l := layerNormGradient{items: c.items, rows: c.rows, c: c.c}
			d := l.data()
			_, dweight, dbias := l.run(t, d)
			_, weightSum, biasSum := l.runWith(t, d, true)
			assert.Equal(t, ref.TreeSum32(dweight, c.c), weightSum, "%+v", l)
			assert.Equal(t, ref.TreeSum32(dbias, c.c), biasSum, "%+v", l)
		}
	}
	_, err := NewRMSNormBackward(gputest.Device(t), RMSNormBackwardConfig{C: 7, SumItems: true})
	assert.ErrorContains(t, err, "RMSNormBackward: C is 7 with SumItems, want a multiple of 4, at most 4096")
	_, err = NewLayerNormBackward(gputest.Device(t), LayerNormBackwardConfig{C: 4100, SumItems: true})
	assert.ErrorContains(t, err, "LayerNormBackward: C is 4100 with SumItems, want a multiple of 4, at most 4096")
}

func TestRMSNormBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewRMSNormBackward(gpu.Dev, RMSNormBackwardConfig{})
	assert.ErrorContains(t, err, "C is 0, want 1")
	_, err = NewRMSNormBackward(gpu.Dev, RMSNormBackwardConfig{C: 6, DY: F16})
	assert.ErrorContains(t, err, "C is 6 with DY f16, want a multiple of 4, at most 4096")
	n, err := NewRMSNormBackward(gpu.Dev, RMSNormBackwardConfig{C: 8})
	require.NoError(t, err)
	x, gamma, dx, dgamma := gpu.In("x", normal(1, 40)), gpu.In("gamma", normal(2, 8)), gpu.Out("dx", 160), gpu.Out("dgamma", 32)
	good := RMSNormBackwardArgs{X: x, Gamma: gamma, DY: x, DX: dx, DGamma: dgamma, Scratch: gpu.Out("scratch", 32), Rows: 5}
	assertRejected(t, gpu, good, n.Record, []badArgs[RMSNormBackwardArgs]{
		{"Rows is 0, want 1", func(a *RMSNormBackwardArgs) { a.Rows = 0 }},
		{"Items is -1, want 1", func(a *RMSNormBackwardArgs) { a.Items = -1 }},
		{"x has 160 bytes, want [Items 2, Rows 5, C 8] f32, 320 bytes", func(a *RMSNormBackwardArgs) { a.Items = 2 }},
		{"gamma has 160 bytes, want [C 8] f32, 32 bytes", func(a *RMSNormBackwardArgs) { a.Gamma = x }},
		{"dy is missing, want [Items 1, Rows 5, C 8] f32, 160 bytes", func(a *RMSNormBackwardArgs) { a.DY = vk.Range{} }},
		{"dx has 156 bytes", func(a *RMSNormBackwardArgs) { a.DX = dx.Slice(0, 156) }},
		{"dgamma has 28 bytes, want [Items 1, C 8] f32, 32 bytes", func(a *RMSNormBackwardArgs) { a.DGamma = dgamma.Slice(0, 28) }},
		{"scratch is missing, want RMSNormBackwardScratch, 32 bytes", func(a *RMSNormBackwardArgs) { a.Scratch = vk.Range{} }},
		{"base has 160 bytes, want none without Add", func(a *RMSNormBackwardArgs) { a.Base = x }},
		{"InRows, Lists, List, gather or valid is set, want none", func(a *RMSNormBackwardArgs) { a.InRows = 5 }},
		{"gather or valid is set, want none", func(a *RMSNormBackwardArgs) { a.Valid = gamma }},
	})
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())

	n, err = NewRMSNormBackward(gpu.Dev, RMSNormBackwardConfig{C: 8, Gather: true})
	require.NoError(t, err)
	defer n.Close()
	good.Gather, good.InRows = gpu.In("gather", make([]int32, 5)), 5
	assertRejected(t, gpu, good, n.Record, []badArgs[RMSNormBackwardArgs]{
		{"InRows is 0, want 1", func(a *RMSNormBackwardArgs) { a.InRows = 0 }},
		{"x has 160 bytes, want [Items 1, InRows 6, C 8] f32, 192 bytes", func(a *RMSNormBackwardArgs) { a.InRows = 6 }},
		{"gather has 20 bytes, want [Items 1, Lists 2, Rows 5] i32, 40 bytes", func(a *RMSNormBackwardArgs) { a.Lists = 2 }},
		{"valid has 32 bytes, want [Items 1, Lists 1, Rows 5] u32, 20 bytes", func(a *RMSNormBackwardArgs) { a.Valid = gamma }},
		{"List is 1, want 0 to 0", func(a *RMSNormBackwardArgs) { a.List = 1 }},
	})

	items, err := NewRMSNormBackward(gpu.Dev, RMSNormBackwardConfig{C: 4, SumItems: true})
	require.NoError(t, err)
	defer items.Close()
	x, gamma = gpu.In("items", normal(1, 40)), gpu.In("four", normal(2, 4))
	good = RMSNormBackwardArgs{X: x, Gamma: gamma, DY: x, DX: gpu.Out("d", 160), DGamma: gpu.Out("sum", 16), Scratch: gpu.Out("sums", 160), Items: 10, Rows: 1}
	assertRejected(t, gpu, good, items.Record, []badArgs[RMSNormBackwardArgs]{
		{"Items is 10, want at most 8 with SumItems", func(*RMSNormBackwardArgs) {}},
		{"dgamma has 32 bytes, want [C 4] f32, 16 bytes", func(a *RMSNormBackwardArgs) { a.Items, a.Rows, a.DGamma = 2, 5, dgamma }},
	})
}

// The fused kernel reads dy of 16 bits, adds dx to another range, and divides many rows into blocks.
func TestRMSNormBackwardFused(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, c := range []normGradient{
		{items: 2, rows: 1027, c: 8, add: true, outside: true, dyType: F16},
		{items: 3, rows: 66, c: 8, addGamma: true, dyType: BF16},
		{items: 2, rows: 30, c: 8, inRows: 31, add: true, addGamma: true, dyType: F16},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { c.test(t, c.data()) })
	}
}

// The blocks cover all rows, and are whole loop iterations.
func TestNormBackwardBlocks(t *testing.T) {
	for _, c := range []int{4, 8, 32, 100, 512, 1024, 4096} {
		for _, rows := range []int{1, 7, 64, 65, 1024, 32768, 1<<20 + 1} {
			each, blocks := normBackwardBlocks(rows, c)
			perRow, atATime := fusedNormInvocations(c)
			assert.EqualValues(t, normInvocations, perRow*atATime)
			assert.Zero(t, each%uint64(atATime))
			assert.LessOrEqual(t, blocks, uint64(normBackwardMaxBlocks))
			assert.GreaterOrEqual(t, each*blocks, uint64(rows))
			assert.Less(t, each*(blocks-1), uint64(rows))
		}
	}
}
