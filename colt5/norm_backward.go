package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// dropped is memory for a gradient: its own, or, if nothing needs it, workspace that the caller releases.
func (b *builder) dropped(g gradient, sizes ...int) (vk.Range, allocation) {
	if g.wanted {
		return g.Range, allocation{}
	}
	m := b.floats(sizes...)
	b.fill(m.Range, 0)
	return m.Range, m
}

// sumParts records y [items, width] += the sums of consecutive rows of parts [count, width], count / items of them each: the
// gradients of a parameter from parts of batch items, such as patches and windows.
func (b *builder) sumParts(parts vk.Range, y gradient, count, width int) {
	b.columnSum(parts, vk.Range{}, y, b.items(), count/b.items(), width)
}

// rmsNormBackward records the gradient of RMSNorm: from dy [B, K, C] of the rows of x [B, N, C] that a router's list names (the
// list of a route), to dx [B, N, C] and gamma. Without lists it is that of all rows.
func (b *builder) rmsNormBackward(x vk.Range, gamma *Tensor, dy vk.Range, dx gradient, s *routerState, route int) {
	width := gamma.shape[0]
	a := pipelines.RMSNormBackwardArgs{X: x, Gamma: gamma.memory, DY: dy, Items: s.b, Rows: s.k}
	if s.hasLists {
		a.Gather, a.Valid, a.InRows, a.Lists, a.List = s.indices.Range, s.valid.Range, s.n, s.r, route
	}
	b.recordRMSNormBackward(a, gamma, dx, s.hasLists, width)
}

// rmsNormRowsBackward is rmsNormBackward for all rows of x [items, count, C].
func (b *builder) rmsNormRowsBackward(x vk.Range, gamma *Tensor, dy vk.Range, dx gradient, items, count int) {
	b.recordRMSNormBackward(pipelines.RMSNormBackwardArgs{
		X: x, Gamma: gamma.memory, DY: dy, Items: items, Rows: count,
	}, gamma, dx, false, gamma.shape[0])
}

func (b *builder) recordRMSNormBackward(a pipelines.RMSNormBackwardArgs, gamma *Tensor, dx gradient, gather bool, width int) {
	g := b.parameter(gamma)
	if !g.wanted && !dx.wanted {
		return
	}
	var noX allocation
	a.DX, noX = b.dropped(dx, a.Items, max(a.InRows, a.Rows), width)
	scratch := b.alloc(pipelines.RMSNormBackwardScratch(a.Items, a.Rows, width))
	a.Scratch = scratch.Range
	parts := b.floats(a.Items, width)
	a.DGamma = parts.Range
	record(b, pipelines.NewRMSNormBackward, pipelines.RMSNormBackwardConfig{C: width, Gather: gather, Add: true}, a)
	b.release(noX, scratch)
	b.sumParts(parts.Range, g, a.Items, width)
	b.release(parts)
}

// layerNormBackward records the gradient of LayerNorm for all rows of x [items, count, C], added to dx.
func (b *builder) layerNormBackward(x vk.Range, weight, bias *Tensor, dy vk.Range, dx gradient, items, count int) {
	width := weight.shape[0]
	dweight, dbias := b.parameter(weight), b.parameter(bias)
	if !dweight.wanted && !dbias.wanted && !dx.wanted {
		return
	}
	a := pipelines.LayerNormBackwardArgs{X: x, Weight: weight.memory, DY: dy, Items: items, Rows: count}
	var noX, noWeight, noBias allocation
	a.DX, noX = b.dropped(dx, items, count, width)
	a.DWeight, noWeight = b.dropped(dweight, items, width)
	a.DBias, noBias = b.dropped(dbias, items, width)
	scratch := b.alloc(pipelines.LayerNormBackwardScratch(items, count, width))
	a.Scratch = scratch.Range
	record(b, pipelines.NewLayerNormBackward, pipelines.LayerNormBackwardConfig{C: width, Add: true, AddParameters: true}, a)
	b.release(noX, noWeight, noBias, scratch)
}

// backward records the backward pass of an RMSNorm.
func (r rmsNorm) backward(b *builder) {
	items := b.items()
	b.rmsNormRowsBackward(b.arg("x"), r.gamma, b.upstream("y").Range, b.inputGradient("x"), items, b.rowCount()/items)
}

// backward records the backward pass of a Linear.
func (l *linearLayer) backward(b *builder) {
	items := b.items()
	p := projection{weight: l.weight, bias: l.bias, items: items, rows: b.rowCount() / items}
	count := items * p.rows
	x, dy := b.rounded(b.arg("x"), l.weight.shape[1], count), b.rounded(b.upstream("y").Range, l.weight.shape[0], count)
	p.parametersBackward(b, x, dy)
	p.inputBackward(b, dy, b.inputGradient("x"), true)
	b.release(x.allocation, dy.allocation)
}
