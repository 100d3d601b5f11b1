package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// projection is a linear layer y = x w^T + bias over rows of all batch items, or with count > 0 its outputs first .. first +
// count - 1.
type projection struct {
	weight, bias *Tensor // bias nil: none
	first, count int
	item         int // the first of the items, of those of the call
	items, rows  int // rows of an item
	fixedRows    int // rows if the configuration alone determines them, else 0; enables split-K in the gradient of x, see LinearSplit
}

// outputs is the number of outputs.
func (p projection) outputs() int {
	if p.count > 0 {
		return p.count
	}
	return p.weight.shape[0]
}

// forward records the product.
func (p projection) forward(b *builder, x, y operand, c pipelines.LinearConfig) {
	c.X16, c.Y16 = x.is16, y.is16
	a := pipelines.LinearArgs{X: x.Range, Y: y.Range, Batch: 1, Rows: p.items * p.rows}
	if p.bias != nil {
		c.Bias, a.Bias = true, p.bias.memory
	}
	b.linear(p.weight, p.first, p.count, c, a)
}

// parametersBackward records the gradients of weight and bias.
func (p projection) parametersBackward(b *builder, x, dy operand) {
	p.weightBackward(b, x, dy)
	if p.bias != nil {
		b.parameterColumnSum(dy, vk.Range{}, p.bias, p.item, p.items, p.rows)
	}
}

// addInputBackward adds dy w to dx [rows, in].
func (p projection) addInputBackward(b *builder, dy operand, dx gradient) {
	if !dx.wanted {
		return
	}
	base, add := b.take(dx)
	c, a := pipelines.LinearConfig{Residual: add}, pipelines.LinearArgs{Y: dx.Range}
	if add {
		a.Residual = base
	}
	p.recordInputBackward(b, dy, c, a)
}

// inputBackward records dx [rows, in] = dy w in float32.
func (p projection) inputBackward(b *builder, dy operand, dx allocation) {
	p.recordInputBackward(b, dy, pipelines.LinearConfig{}, pipelines.LinearArgs{Y: dx.Range})
}

// normedBackward records dx [rows, in] = dy w, the gradient of normalised rows, which the caller releases: an operand, if the
// backward pass of the norm reads 16 bits.
func (p projection) normedBackward(b *builder, dy operand) operand {
	dx := b.allocNormedGradient(p.weight.shape[1], p.items*p.rows)
	p.operandInputBackward(b, dy, dx)
	return dx
}

// allocNormedGradient allocates the gradient of count normalised rows.
func (b *builder) allocNormedGradient(in, count int) operand {
	if !pipelines.FusedNormBackward(in) {
		return operand{allocation: b.floats(count, in), width: in}
	}
	return b.allocOperand(in, count)
}

// operandBackward records dx [rows, in] = dy w, an operand of further products that the caller releases.
func (p projection) operandBackward(b *builder, dy operand) operand {
	dx := b.allocOperand(p.weight.shape[1], p.items*p.rows)
	p.operandInputBackward(b, dy, dx)
	return dx
}

// operandInputBackward records dx = dy w, rows of an operand.
func (p projection) operandInputBackward(b *builder, dy, dx operand) {
	p.recordInputBackward(b, dy, pipelines.LinearConfig{Y16: dx.is16}, pipelines.LinearArgs{Y: dx.Range})
}

// recordInputBackward records the product of dy and the weight. With 16 bits the kernel reads the copy of the weight that
// the forward pass reads.
func (p projection) recordInputBackward(b *builder, dy operand, c pipelines.LinearConfig, a pipelines.LinearArgs) {
	c.In, c.Out, c.Precision, c.X16 = p.outputs(), p.weight.shape[1], b.precision, dy.is16
	a.X, a.Batch, a.Rows = dy.Range, 1, p.items*p.rows
	if c.Split = pipelines.LinearSplit(c.Precision, p.fixedRows, c.In, c.Out); c.Split > 1 {
		scratch := b.floats(c.Split, a.Rows, c.Out)
		a.Scratch = scratch.Range
		defer b.release(scratch)
	}
	switch {
	case c.Precision == F32:
		a.W = b.transposed(p.weight, p.first, p.count)
	case b.list != nil:
		c.TransposedW = true
		a.W = rows(p.weight.cast.Range(), p.first, c.In, 2*c.Precision.Columns(c.Out))
	}
	record(b, pipelines.NewLinear, c, a)
}

// workspaceGradient is workspace for a gradient.
func workspaceGradient(m allocation) gradient { return gradient{Range: m.Range, wanted: true} }

// weightBackward records the gradient of the weight. A part of the outputs goes through workspace, because the gradients of
// the items are not contiguous.
func (p projection) weightBackward(b *builder, x, dy operand) {
	out, in, all := p.outputs(), p.weight.shape[1], p.weight.shape[0]
	g := b.parameter(p.weight)
	if !g.wanted {
		return
	}
	config := pipelines.LinearBackwardConfig{In: in, Out: out, Precision: b.precision, X16: x.is16, DY16: dy.is16}
	config.SumItems = out == all && p.items == b.items() && b.sumsItems(p.weight)
	if !config.SumItems {
		g, config.Add = b.itemsOf(g, p.item, p.items, 4*all*in), true
	}
	dw := g.Range
	scratch := b.alloc(pipelines.LinearBackwardScratch(config, p.items, p.rows))
	a := pipelines.LinearBackwardArgs{DY: dy.Range, X: x.Range, DW: dw, Scratch: scratch.Range, Batch: p.items, Rows: p.rows}
	if out == all {
		if !config.SumItems {
			_, config.Add = b.take(g)
		}
		record(b, pipelines.NewLinearBackward, config, a)
		b.release(scratch)
		return
	}
	b.begin(g)
	if p.items == 1 {
		a.DW = rows(dw, p.first, out, 4*in)
		record(b, pipelines.NewLinearBackward, config, a)
		b.release(scratch)
		return
	}
	part := b.floats(p.items, out, in)
	to := dw
	if !to.IsZero() {
		to = to.Slice(4*uint64(p.first)*uint64(in), pipelines.CopyRowsBytes(p.items, out*in, all*in))
	}
	b.copyRows(part.Range, to, p.items, out*in, all*in, out*in) // an earlier use of the weight may have added to it
	a.DW = part.Range
	record(b, pipelines.NewLinearBackward, config, a)
	b.release(scratch)
	b.copyRows(to, part.Range, p.items, out*in, out*in, all*in)
	b.release(part)
}

// parameterColumnSum records the sums over the rows of x [items, count, width], which are added to the gradients of a
// parameter for the items from the first on, without the rows whose word of skip [items, count] is not 0.
func (b *builder) parameterColumnSum(x operand, skip vk.Range, w *Tensor, first, items, count int) {
	y := b.parameter(w)
	if !y.wanted {
		return
	}
	c := pipelines.ColumnSumConfig{C: x.width, X: b.dtypeOf(x)}
	bytes := pipelines.ColumnSumScratch(items, count, x.width)
	if items == b.items() && b.sumsItems(w) {
		c.SumItems, bytes = true, pipelines.ColumnSumItemsScratch(items, count, x.width)
	} else {
		y = b.itemsOf(y, first, items, 4*x.width)
		_, c.Add = b.take(y)
	}
	scratch := b.alloc(bytes)
	record(b, pipelines.NewColumnSum, c, pipelines.ColumnSumArgs{
		X: x.Range, Skip: skip, Y: y.Range, Scratch: scratch.Range, Batch: items, Rows: count,
	})
	b.release(scratch)
}

// gatherRows records the rows of x [B, N, width] that a router's list names, times their scores, as [B, K, width]; empty slots are
// 0. Without lists all rows are returned as they are.
func (b *builder) gatherRows(x vk.Range, width int, s *routerState) (vk.Range, allocation) {
	if !s.hasLists {
		return x, allocation{}
	}
	y := b.floats(s.b, s.r*s.k, width)
	a := pipelines.GatherArgs{X: x, Indices: s.indices.Range, Valid: s.valid.Range, Y: y.Range, B: s.b, N: s.n, K: s.r * s.k}
	if s.usesSoftScores {
		a.Score = s.scores.Range
	}
	record(b, pipelines.NewGather, pipelines.GatherConfig{C: width}, a)
	return y.Range, y
}
