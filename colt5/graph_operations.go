package colt5

import (
	"errors"
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// shaper is an operation whose arguments have shapes that follow from others by more than symbolic dimensions. setShapes
// runs before the arguments are checked, and sees whatever the caller passed.
type shaper interface {
	setShapes(c *call) error
}

// operation adds a node that computes one value without weights.
func (g *Graph) operation(kind string, l layer, inputs ...arg) *Tensor {
	n := &graphNode{layer: l}
	y := g.newValue("", F32, nil)
	err := g.building()
	if len(inputs) >= maxArgs {
		err = fmt.Errorf("%d tensors, want at most %d", len(inputs), maxArgs-1)
	}
	if err == nil {
		copy(n.call.args[:], inputs)
		n.call.args[len(inputs)] = arg{name: "y", tensor: y, kind: output, shape: l.(interface{ result() shape }).result()}
		err = g.add(n, kind)
	}
	if err != nil {
		g.reject("Graph."+kind, err)
	}
	return y
}

// tokens is the argument x [B, N, C] of an operation.
func tokens(x *Tensor) arg {
	return arg{name: "x", tensor: x, shape: shape{dimB, dimN, dimC}}
}

// Add is a + b, two values of the same shape: a residual connection, for example.
func (g *Graph) Add(a, b *Tensor) *Tensor {
	return g.operation("Add", sum{}, arg{name: "a", tensor: a}, arg{name: "b", tensor: b})
}

// Mean is the mean over the tokens of x [B, N, C]: [B, C]. With a mask [B, N] u8, it is the mean over the tokens whose
// mask is not 0, and 0 where there are none. mask may be nil.
func (g *Graph) Mean(x, mask *Tensor) *Tensor {
	return g.operation("Mean", mean{}, tokens(x), arg{name: "mask", tensor: mask, dtype: U8, shape: shape{dimB, dimN}, kind: optionalInput})
}

// First is the first token of each item of x [B, N, C]: [B, C].
func (g *Graph) First(x *Tensor) *Tensor {
	return g.operation("First", part{count: 1, first: 0, pooled: true}, tokens(x))
}

// Rows is count tokens of each item of x [B, N, C], from token first on: [B, count, C]. Where they are contiguous (B is
// 1), nothing is copied.
func (g *Graph) Rows(x *Tensor, first, count int) *Tensor {
	return g.operation("Rows", part{first: first, count: count}, tokens(x))
}

// Concat puts values of the same shape, but for the size of one dimension, behind each other along that dimension. A
// negative axis counts from the last one: -1 joins the elements of tokens, [B, N, C1] and [B, N, C2] to [B, N, C1 + C2].
// It takes at most 8 values.
func (g *Graph) Concat(axis int, list ...*Tensor) *Tensor {
	var inputs []arg
	for i, t := range list {
		inputs = append(inputs, arg{name: fmt.Sprintf("value %d", i), tensor: t})
	}
	return g.operation("Concat", concat{axis}, inputs...)
}

// sum is the layer of Add.
type sum struct{}

func (sum) result() shape { return shape{} }

// setShapes makes b and y tensors of the shape of a.
func (sum) setShapes(c *call) error {
	c.anyRank = true
	return nil
}

func (sum) record(b *builder) {
	n := 1
	for _, size := range b.call.sizes(b.call.find("y")) {
		n *= size
	}
	b.limitSum(n)
	record(b, pipelines.NewAdd, pipelines.AddConfig{}, pipelines.AddArgs{A: b.arg("a"), B: b.arg("b"), Y: b.arg("y"), N: n})
}

// mean is the layer of Mean.
type mean struct{}

func (mean) result() shape { return shape{dimB, dimC} }

func (mean) record(b *builder) {
	b.limitPooled(b.dim(dimN))
	record(b, pipelines.NewMeanPool, pipelines.MeanPoolConfig{C: b.dim(dimC), Masked: b.given("mask")}, pipelines.MeanPoolArgs{
		X: b.arg("x"), Mask: b.arg("mask"), Y: b.arg("y"), B: b.dim(dimB), N: b.dim(dimN),
	})
}

// part is the layer of First and Rows.
type part struct {
	first, count int
	pooled       bool // the result has no dimension of tokens
}

func (p part) result() shape {
	if p.pooled {
		return shape{dimB, dimC}
	}
	return shape{dimB, max(p.count, 1), dimC}
}

func (p part) setShapes(c *call) error {
	if p.first < 0 || p.count < 1 || p.first > math.MaxInt32-p.count {
		return fmt.Errorf("first is %d and count %d, want at least 0 and at least 1", p.first, p.count)
	}
	if x := c.args[0].tensor; x != nil && len(x.shape) == 3 && x.shape[1] > 0 && p.first+p.count > x.shape[1] {
		return fmt.Errorf("tokens %d to %d of %v, which has %d", p.first, p.first+p.count-1, x, x.shape[1])
	}
	return nil
}

// view is where the result is in x, in bytes. ok: it is contiguous, and aligned as kernels require.
func (p part) view(c *call) (offset uint64, ok bool) {
	offset = 4 * uint64(p.first) * uint64(c.dim(dimC))
	return offset, (c.dim(dimB) == 1 || p.count == c.dim(dimN)) && offset%16 == 0
}

func (p part) record(b *builder) {
	items, n, c := b.dim(dimB), b.dim(dimN), b.dim(dimC)
	x := b.arg("x")
	if !x.IsZero() {
		x = x.Slice(4*uint64(p.first)*uint64(c), pipelines.CopyRowsBytes(items, p.count*c, n*c))
	}
	b.copyRows(b.arg("y"), x, items, p.count*c, n*c, p.count*c)
}

// concat is the layer of Concat.
type concat struct{ axis int }

func (concat) result() shape { return shape{} }

func (o concat) setShapes(c *call) error {
	list := c.args.list()
	inputs, y := list[:len(list)-1], &list[len(list)-1]
	if len(inputs) == 0 || inputs[0].tensor == nil || len(inputs[0].tensor.shape) == 0 {
		return errors.New("there is no value, want at least one")
	}
	sizes := append([]int(nil), inputs[0].tensor.shape...)
	axis := o.dimension(len(sizes))
	if axis < 0 || axis >= len(sizes) {
		return fmt.Errorf("axis is %d, want %d to %d", o.axis, -len(sizes), len(sizes)-1)
	}
	total, known := 0, true
	for i := range inputs {
		inputs[i].lead = append([]int(nil), sizes...)
		if t := inputs[i].tensor; t != nil && len(t.shape) == len(sizes) {
			inputs[i].lead[axis] = t.shape[axis]
			total += t.shape[axis]
			known = known && t.shape[axis] > 0
		}
	}
	if !known {
		total = 0
	}
	sizes[axis] = total
	y.lead = sizes
	return nil
}

// dimension is the axis among so many dimensions.
func (o concat) dimension(rank int) int {
	if o.axis < 0 {
		return o.axis + rank
	}
	return o.axis
}

func (o concat) record(b *builder) {
	o.each(b, func(name string, outer, width, pitch, from int) {
		to := b.arg("y")
		if !to.IsZero() {
			to = to.Slice(4*uint64(from), pipelines.CopyRowsBytes(outer, width, pitch))
		}
		b.copyRows(to, b.arg(name), outer, width, width, pitch)
	})
}

// each calls f for each value: outer rows of width elements, which begin at element from of rows of pitch elements.
func (o concat) each(b *builder, f func(name string, outer, width, pitch, from int)) {
	list := b.call.args.list()
	y := list[len(list)-1]
	axis := o.dimension(len(y.lead))
	outer, pitch := 1, 1
	for i, n := range y.lead {
		if i < axis {
			outer *= n
		} else {
			pitch *= n
		}
	}
	from := 0
	for _, a := range list[:len(list)-1] {
		width := pitch / y.lead[axis] * a.lead[axis]
		f(a.name, outer, width, pitch, from)
		from += width
	}
}

// copyRows records the copy of rows of width words, whose starts are xPitch and yPitch words apart.
func (b *builder) copyRows(y, x vk.Range, count, width, xPitch, yPitch int) {
	if count == 1 || width == xPitch && width == yPitch {
		b.copy(y, x)
		return
	}
	if max(xPitch, yPitch) > maxRow { // longer than rows of the kernel, and then few
		for i := 0; i < count && b.list != nil; i++ {
			b.copy(y.Slice(4*uint64(i)*uint64(yPitch), 4*uint64(width)), x.Slice(4*uint64(i)*uint64(xPitch), 4*uint64(width)))
		}
		return
	}
	each := max(math.MaxInt32/width, 1)
	for first := 0; first < count; first += each {
		n := min(each, count-first)
		a := pipelines.CopyRowsArgs{Rows: n, Width: width, XPitch: xPitch, YPitch: yPitch}
		if b.list != nil {
			a.X = x.Slice(4*uint64(first)*uint64(xPitch), pipelines.CopyRowsBytes(n, width, xPitch))
			a.Y = y.Slice(4*uint64(first)*uint64(yPitch), pipelines.CopyRowsBytes(n, width, yPitch))
		}
		record(b, pipelines.NewCopyRows, pipelines.CopyRowsConfig{}, a)
	}
}
