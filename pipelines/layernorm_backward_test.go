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

// layerNormGradient is a gradient of LayerNorm.
type layerNormGradient struct {
	items, rows, c     int
	add, addParameters bool

	dyType  DType
	outside bool // with add, the sum of dx begins in another range
}

// layerNormData are the tensors of a gradient.
type layerNormData struct{ x, weight, dy, dx, dweight, dbias []float32 }

func (c layerNormGradient) data() layerNormData {
	n := c.items * c.rows * c.c
	d := layerNormData{normal(1, n), normal(2, c.c), normal(3, n), normal(4, n), normal(5, c.items*c.c), normal(6, c.items*c.c)}
	d.dy = c.dyType.roundAll(d.dy)
	setSpecialRows(d.x, c.items*c.rows, c.c)
	for i := range c.c { // a large mean
		d.x[len(d.x)-1-i] += 100
	}
	return d
}

// deviations are those of the rows of x. Gradients of rows have the scale of their inverses.
func (c layerNormGradient) deviations(x []float32) (list []float64) {
	for row := range slices.Chunk(x, c.c) {
		var mean, variance float64
		for _, v := range row {
			mean += float64(v) / float64(c.c)
		}
		for _, v := range row {
			variance += (float64(v) - mean) * (float64(v) - mean) / float64(c.c)
		}
		list = append(list, math.Sqrt(variance+1e-5))
	}
	return list
}

// run returns dx, dweight and dbias.
func (c layerNormGradient) run(t *testing.T, d layerNormData) (dx, dweight, dbias []float32) {
	return c.runWith(t, d, false)
}

func (c layerNormGradient) runWith(t *testing.T, d layerNormData, sumItems bool) (dx, dweight, dbias []float32) {
	gpu := gputest.New(t)
	n, err := NewLayerNormBackward(gpu.Dev, LayerNormBackwardConfig{C: c.c, Add: c.add, AddParameters: c.addParameters, SumItems: sumItems, DY: c.dyType})
	require.NoError(t, err)
	defer n.Close()
	output := func(name string, base []float32, add bool) vk.Range {
		if add {
			return gpu.InOut(name, base)
		}
		if sumItems && name != "dx" {
			return gpu.Out(name, 4*c.c)
		}
		return gpu.Out(name, 4*len(base))
	}
	a := LayerNormBackwardArgs{
		X: inputAt(gpu, "x", d.x, rowAlign(c.c)), Weight: inputAt(gpu, "weight", d.weight, rowAlign(c.c)), DY: inputAt(gpu, "dy", encode(c.dyType, d.dy), c.dyType.rowAlign(c.c)),
		DX: output("dx", d.dx, c.add && !c.outside), DWeight: output("dweight", d.dweight, c.addParameters), DBias: output("dbias", d.dbias, c.addParameters),
		Scratch: gpu.Out("scratch", int(LayerNormBackwardScratch(c.items, c.rows, c.c))), Items: c.items, Rows: c.rows,
	}
	if c.outside {
		a.Base = inputAt(gpu, "base", d.dx, rowAlign(c.c))
	}
	gpu.Run(func(list *vk.CommandList) error { return n.Record(list, a) })
	steps := 2
	if c.rows > 256 {
		steps = 4
	}
	if FusedNormBackward(c.c) {
		assert.Equal(t, "layernorm_backward_fused", gpu.StepNames()[0])
	} else {
		assert.Len(t, gpu.StepNames(), steps)
	}
	return gpu.Float32("dx"), gpu.Float32("dweight"), gpu.Float32("dbias")
}

// layerNormReference returns all gradients in a precision; rows of dx are multiplied by factors.
func layerNormReference[T ref.Float](c layerNormGradient, d layerNormData, factors []float64, backward func(ref.LayerNormArgs, []float32) ref.LayerNormGradsOf[T]) (dx, dweight, dbias []T) {
	n := c.rows * c.c
	for item := range c.items {
		g := backward(ref.LayerNormArgs{X: d.x[item*n:][:n], Weight: d.weight, Bias: make([]float32, c.c), Rows: c.rows, C: c.c}, d.dy[item*n:][:n])
		dx, dweight, dbias = append(dx, g.X...), append(dweight, g.Weight...), append(dbias, g.Bias...)
	}
	for i := range dx {
		if c.add {
			dx[i] += T(d.dx[i])
		}
		dx[i] = T(float64(dx[i]) * factors[i/c.c])
	}
	for i := range dweight {
		if c.addParameters {
			dweight[i] += T(d.dweight[i])
			dbias[i] += T(d.dbias[i])
		}
	}
	return dx, dweight, dbias
}

func (c layerNormGradient) test(t *testing.T) {
	d := c.data()
	dx, dweight, dbias := c.run(t, d)
	factors := c.deviations(d.x)
	for i := range factors {
		if c.add {
			factors[i] = min(factors[i], 1) // what is added to has scale 1
		}
	}
	for i := range dx {
		dx[i] = float32(float64(dx[i]) * factors[i/c.c])
	}
	wantDX, wantDWeight, wantDBias := layerNormReference(c, d, factors, ref.LayerNormBackward)
	naiveDX, naiveDWeight, naiveDBias := layerNormReference(c, d, factors, ref.LayerNormBackward32)
	assert.NoError(t, ref.MaxErr(dx, wantDX).Within(ref.Bound(naiveDX, wantDX, 1e-6)), "dx")
	assert.NoError(t, ref.MaxErr(dweight, wantDWeight).Within(ref.Bound(naiveDWeight, wantDWeight, 1e-6)), "dweight")
	assert.NoError(t, ref.MaxErr(dbias, wantDBias).Within(ref.Bound(naiveDBias, wantDBias, 1e-6)), "dbias")
}

func TestLayerNormBackward(t *testing.T) {
	for _, c := range []layerNormGradient{
		{1, 1, 1, false, false, F32, false}, {2, 3, 4, true, false, F32, false}, {1, 5, 31, false, true, F32, false}, {3, 7, 32, true, true, F32, false}, {2, 33, 100, false, false, F32, false},
		{1, 255, 33, true, true, F32, false}, {1, 256, 12, false, true, F32, false}, {2, 257, 65, false, true, F32, false}, {1, 700, 512, true, false, F32, false}, {1, 2, 4099, false, false, F32, false},
	} {
		if testing.Short() && c.rows != 7 && c.rows != 257 {
			continue // CPU drivers compile two or three kernels for each
		}
		t.Run(fmt.Sprintf("%+v", c), c.test)
	}
}

// A mean that is large compared with the deviation does not cost accuracy.
func TestLayerNormBackwardLargeMean(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	c := layerNormGradient{items: 1, rows: 9, c: 508}
	d := c.data()
	for i := range d.x {
		d.x[i] = 1000 + float32(i*7%13)/64 // exact
	}
	dx, dweight, _ := c.run(t, d)
	wantDX, wantDWeight, _ := layerNormReference(c, d, slices.Repeat([]float64{1}, c.rows), ref.LayerNormBackward)
	assert.NoError(t, ref.MaxErr(dx, wantDX).Within(2e-6), "dx")
	assert.NoError(t, ref.MaxErr(dweight, wantDWeight).Within(2e-6), "dweight")
}

// The bits of an item do not depend on the batch or on its position.
func TestLayerNormBackwardBits(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels for 1 s on CPU drivers")
	}
	for _, width := range []int{20, 21} { // fused, and not
		layerNormGradient{items: 3, rows: 270, c: width}.testBits(t)
	}
}

func (c layerNormGradient) testBits(t *testing.T) {
	d := c.data()
	n := c.rows * c.c
	copy(d.x[2*n:], d.x[n:2*n])
	copy(d.dy[2*n:], d.dy[n:2*n])
	dx, dweight, dbias := c.run(t, d)
	one := c
	one.items = 1
	d.x, d.dy, d.dx, d.dweight, d.dbias = d.x[n:2*n], d.dy[n:2*n], d.dx[:n], d.dweight[:c.c], d.dbias[:c.c]
	oneDX, oneDWeight, oneDBias := one.run(t, d)
	for item := 1; item < 3; item++ {
		assert.Equal(t, oneDX, dx[item*n:][:n])
		assert.Equal(t, oneDWeight, dweight[item*c.c:][:c.c])
		assert.Equal(t, oneDBias, dbias[item*c.c:][:c.c])
	}
}

func TestLayerNormBackwardBadInput(t *testing.T) {
	gpu := gputest.New(t)
	_, err := NewLayerNormBackward(gpu.Dev, LayerNormBackwardConfig{})
	assert.ErrorContains(t, err, "C is 0, want 1")
	_, err = NewLayerNormBackward(gpu.Dev, LayerNormBackwardConfig{C: 6, DY: BF16})
	assert.ErrorContains(t, err, "C is 6 with DY bf16, want a multiple of 4, at most 4096")
	n, err := NewLayerNormBackward(gpu.Dev, LayerNormBackwardConfig{C: 8})
	require.NoError(t, err)
	x, weight, dx, dweight := gpu.In("x", normal(1, 40)), gpu.In("weight", normal(2, 8)), gpu.Out("dx", 160), gpu.Out("dweight", 32)
	good := LayerNormBackwardArgs{X: x, Weight: weight, DY: x, DX: dx, DWeight: dweight, DBias: gpu.Out("dbias", 32), Scratch: gpu.Out("scratch", 64), Rows: 5}
	assertRejected(t, gpu, good, n.Record, []badArgs[LayerNormBackwardArgs]{
		{"Rows is 0, want 1", func(a *LayerNormBackwardArgs) { a.Rows = 0 }},
		{"Items is -1, want 1", func(a *LayerNormBackwardArgs) { a.Items = -1 }},
		{"x has 160 bytes, want [Items 2, Rows 5, C 8] f32, 320 bytes", func(a *LayerNormBackwardArgs) { a.Items = 2 }},
		{"weight has 160 bytes, want [C 8] f32, 32 bytes", func(a *LayerNormBackwardArgs) { a.Weight = x }},
		{"dy is missing, want [Items 1, Rows 5, C 8] f32, 160 bytes", func(a *LayerNormBackwardArgs) { a.DY = vk.Range{} }},
		{"dx has 156 bytes", func(a *LayerNormBackwardArgs) { a.DX = dx.Slice(0, 156) }},
		{"dweight has 28 bytes, want [Items 1, C 8] f32, 32 bytes", func(a *LayerNormBackwardArgs) { a.DWeight = dweight.Slice(0, 28) }},
		{"dbias is missing, want [Items 1, C 8] f32, 32 bytes", func(a *LayerNormBackwardArgs) { a.DBias = vk.Range{} }},
		{"scratch has 32 bytes, want LayerNormBackwardScratch, 64 bytes", func(a *LayerNormBackwardArgs) { a.Scratch = dweight }},
	})
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())

	items, err := NewLayerNormBackward(gpu.Dev, LayerNormBackwardConfig{C: 8, SumItems: true})
	require.NoError(t, err)
	defer items.Close()
	assertRejected(t, gpu, good, items.Record, []badArgs[LayerNormBackwardArgs]{
		{"Items is 9, want at most 8 with SumItems", func(a *LayerNormBackwardArgs) { a.Items = 9 }},
		{"dweight has 160 bytes, want [C 8] f32, 32 bytes", func(a *LayerNormBackwardArgs) { a.DWeight = x }},
	})
}

// The fused kernel reads dy of 16 bits, adds dx to another range, and divides many rows into blocks.
func TestLayerNormBackwardFused(t *testing.T) {
	for _, c := range []layerNormGradient{
		{items: 2, rows: 1027, c: 8, add: true, outside: true, dyType: F16},
		{items: 3, rows: 66, c: 8, addParameters: true, dyType: BF16},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) { c.test(t) })
	}
}
