package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// dropped is memory for a gradient: its own, or, if nothing needs it, workspace that the caller releases.
func (b *builder) dropped(g gradient, sizes ...int) (vk.Range, allocation) {
	if g.wanted {
		b.begin(g)
		return g.Range, allocation{}
	}
	m := b.floats(sizes...)
	b.fill(m.Range, 0)
	return m.Range, m
}

// sumParts records the sums of consecutive rows of parts [count, width], count / items of them each, which are added to the
// gradients of a parameter: those from parts of batch items, such as patches and windows.
func (b *builder) sumParts(parts vk.Range, w *Tensor, count, width int) {
	b.parameterColumnSum(floatOperand(parts, width), vk.Range{}, w, 0, b.items(), count/b.items())
}

// rmsNormBackward records the gradient of RMSNorm: from dy [B, K, C] of the rows of x [B, N, C] that a router's list names (the
// list of a route), to dx [B, N, C] and gamma. Without lists it is that of all rows.
func (b *builder) rmsNormBackward(x vk.Range, gamma *Tensor, dy operand, dx gradient, s *routerState, route int) {
	width := gamma.shape[0]
	a := pipelines.RMSNormBackwardArgs{X: x, Gamma: gamma.memory, DY: dy.Range, Items: s.b, Rows: s.k}
	if s.hasLists {
		a.Gather, a.Valid, a.InRows, a.Lists, a.List = s.indices.Range, s.valid.Range, s.n, s.r, route
	}
	b.recordRMSNormBackward(a, gamma, dy, dx, s.hasLists, width)
}

// rmsNormRowsBackward is rmsNormBackward for all rows of x [items, count, C].
func (b *builder) rmsNormRowsBackward(x vk.Range, gamma *Tensor, dy operand, dx gradient, items, count int) {
	b.recordRMSNormBackward(pipelines.RMSNormBackwardArgs{
		X: x, Gamma: gamma.memory, DY: dy.Range, Items: items, Rows: count,
	}, gamma, dy, dx, false, gamma.shape[0])
}

func (b *builder) recordRMSNormBackward(a pipelines.RMSNormBackwardArgs, gamma *Tensor, dy operand, dx gradient, gather bool, width int) {
	g := b.parameter(gamma)
	if !g.wanted && !dx.wanted {
		return
	}
	c := pipelines.RMSNormBackwardConfig{C: width, Gather: gather, Add: true, DY: b.dtypeOf(dy)}
	var noX, parts allocation
	a.DX, a.Base, c.Add, noX = b.normInput(dx, width, !gather, a.Items, max(a.InRows, a.Rows), width)
	scratch := b.alloc(pipelines.RMSNormBackwardScratch(a.Items, a.Rows, width))
	a.Scratch, a.DGamma = scratch.Range, g.Range
	each := g.wanted && a.Items == b.items()
	switch {
	case each && pipelines.FusedNormBackward(width) && b.sumsItems(gamma):
		c.SumItems = true
	case each:
		_, c.AddGamma = b.take(g)
	default: // items of the kernel are parts of batch items, or nothing needs the gradient
		parts = b.floats(a.Items, width)
		a.DGamma = parts.Range
	}
	record(b, pipelines.NewRMSNormBackward, c, a)
	b.release(noX, scratch)
	if !each {
		b.sumParts(parts.Range, gamma, a.Items, width)
		b.release(parts)
	}
}

// normInput is where the gradient of a norm's input goes: memory, what it is added to, and whether it is; and memory that the
// caller releases. A kernel that writes all rows takes what the gradient starts from.
func (b *builder) normInput(dx gradient, width int, all bool, sizes ...int) (to, base vk.Range, add bool, unused allocation) {
	if dx.wanted && all && pipelines.FusedNormBackward(width) {
		if base, add = b.take(dx); !add || base == dx.Range {
			base = vk.Range{}
		}
		return dx.Range, base, add, allocation{}
	}
	to, unused = b.dropped(dx, sizes...)
	return to, vk.Range{}, true, unused
}

// layerNormBackward records the gradient of LayerNorm for all rows of x [items, count, C], added to dx.
func (b *builder) layerNormBackward(x vk.Range, weight, bias *Tensor, dy operand, dx gradient, items, count int) {
	width := weight.shape[0]
	dweight, dbias := b.parameter(weight), b.parameter(bias)
	if !dweight.wanted && !dbias.wanted && !dx.wanted {
		return
	}
	a := pipelines.LayerNormBackwardArgs{X: x, Weight: weight.memory, DY: dy.Range, Items: items, Rows: count}
	c := pipelines.LayerNormBackwardConfig{C: width, DY: b.dtypeOf(dy)}
	var noX, noWeight, noBias allocation
	a.DX, a.Base, c.Add, noX = b.normInput(dx, width, true, items, count, width)
	switch sums := items == b.items() && pipelines.FusedNormBackward(width); {
	case sums && b.sumsItems(weight, bias):
		c.SumItems, a.DWeight, a.DBias = true, dweight.Range, dbias.Range
	case dweight.empty() && dbias.empty():
		b.take(dweight)
		b.take(dbias)
		a.DWeight, a.DBias = dweight.Range, dbias.Range
	default:
		c.AddParameters = true
		a.DWeight, noWeight = b.dropped(dweight, items, width)
		a.DBias, noBias = b.dropped(dbias, items, width)
	}
	scratch := b.alloc(pipelines.LayerNormBackwardScratch(items, count, width))
	a.Scratch = scratch.Range
	record(b, pipelines.NewLayerNormBackward, c, a)
	b.release(noX, noWeight, noBias, scratch)
}

// backward records the backward pass of an RMSNorm.
func (r rmsNorm) backward(b *builder) {
	items := b.items()
	dy := floatOperand(b.upstream("y").Range, r.gamma.shape[0])
	b.rmsNormRowsBackward(b.arg("x"), r.gamma, dy, b.startedGradient("x"), items, b.rowCount()/items)
}

// backward records the backward pass of a Linear.
func (l *linearLayer) backward(b *builder) {
	items := b.items()
	l.head().backward(b, b.arg("x"), b.startedGradient("x"), items, b.rowCount()/items)
}
