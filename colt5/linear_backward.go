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
	items, rows  int // rows of an item
}

// outputs is the number of outputs.
func (p projection) outputs() int {
	if p.count > 0 {
		return p.count
	}
	return p.weight.shape[0]
}

// forward records the product in float32.
func (p projection) forward(b *builder, x, y vk.Range, c pipelines.LinearConfig) {
	a := pipelines.LinearArgs{X: x, Y: y, Batch: 1, Rows: p.items * p.rows}
	if p.bias != nil {
		c.Bias, a.Bias = true, p.bias.memory
	}
	b.linear(p.weight, p.first, p.count, c, a)
}

// parametersBackward records the gradients of weight and bias.
func (p projection) parametersBackward(b *builder, x, dy vk.Range) {
	p.weightBackward(b, x, dy)
	if p.bias != nil {
		b.columnSum(dy, vk.Range{}, b.parameter(p.bias), p.items, p.rows, p.outputs())
	}
}

// inputBackward records dx [rows, in] = dy w, with add added to what dx has.
func (p projection) inputBackward(b *builder, dy vk.Range, dx gradient, add bool) {
	if !dx.wanted {
		return
	}
	c := pipelines.LinearConfig{In: p.outputs(), Out: p.weight.shape[1], Precision: pipelines.F32, Residual: add}
	a := pipelines.LinearArgs{X: dy, W: b.transposed(p.weight, p.first, p.count), Y: dx.Range, Batch: 1, Rows: p.items * p.rows}
	if add {
		a.Residual = dx.Range
	}
	record(b, pipelines.NewLinear, c, a)
}

// workspaceGradient is workspace for a gradient.
func workspaceGradient(m allocation) gradient { return gradient{m.Range, true} }

// weightBackward records the gradient of the weight. A part of the outputs goes through workspace, because the gradients of
// the items are not contiguous.
func (p projection) weightBackward(b *builder, x, dy vk.Range) {
	g := b.parameter(p.weight)
	if !g.wanted {
		return
	}
	out, in, all := p.outputs(), p.weight.shape[1], p.weight.shape[0]
	scratch := b.alloc(pipelines.LinearBackwardScratch(p.items, p.rows, in, out))
	a := pipelines.LinearBackwardArgs{DY: dy, X: x, DW: g.Range, Scratch: scratch.Range, Batch: p.items, Rows: p.rows}
	config := pipelines.LinearBackwardConfig{In: in, Out: out, Add: true}
	if out == all {
		record(b, pipelines.NewLinearBackward, config, a)
		b.release(scratch)
		return
	}
	if p.items == 1 {
		a.DW = rows(g.Range, p.first, out, 4*in)
		record(b, pipelines.NewLinearBackward, config, a)
		b.release(scratch)
		return
	}
	part := b.floats(p.items, out, in)
	to := g.Range
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

// columnSum records y [items, width] += the sums over the rows of x [items, count, width], without the rows whose word of
// skip [items, count] is not 0.
func (b *builder) columnSum(x, skip vk.Range, y gradient, items, count, width int) {
	if !y.wanted {
		return
	}
	scratch := b.alloc(pipelines.ColumnSumScratch(items, count, width))
	record(b, pipelines.NewColumnSum, pipelines.ColumnSumConfig{C: width, Add: true}, pipelines.ColumnSumArgs{
		X: x, Skip: skip, Y: y.Range, Scratch: scratch.Range, Batch: items, Rows: count,
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
