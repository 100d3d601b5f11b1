package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// normedBackward records the gradient of the two products for normalised rows [items, count, C]: from dy of the same shape to
// the gradient of normed, which the caller releases. hidden is what GELU is applied to; it is released. out receives the results;
// absent and not wanted: no memory for them.
func (f feedForward) normedBackward(b *builder, normed, hidden, dy operand, items, count int, out gradient) operand {
	up := projection{weight: f.w1, bias: f.bias1, items: items, rows: count, fixedRows: f.fixedRows}
	down := projection{weight: f.w2, bias: f.bias2, items: items, rows: count}
	dhidden := down.operandBackward(b, dy)
	record(b, pipelines.NewGELUBackward, pipelines.GELUBackwardConfig{DType: b.dtypeOf(hidden)}, pipelines.GELUBackwardArgs{
		X: hidden.Range, Dy: dhidden.Range, Dx: dhidden.Range, Y: hidden.Range, N: items * count * f.hidden,
	})
	if out.wanted {
		down.forward(b, hidden, floatOperand(out.Range, f.dim), pipelines.LinearConfig{})
	}
	down.parametersBackward(b, hidden, dy)
	b.release(hidden.allocation)
	up.parametersBackward(b, normed, dhidden)
	dnormed := up.normedBackward(b, dhidden)
	b.release(dhidden.allocation)
	return dnormed
}

// rowsBackward records the gradient of the feedforward of all rows of x [items, count, C], added to dx.
func (f feedForward) rowsBackward(b *builder, x, dy vk.Range, dx gradient, items, count int) {
	normed, upstream := b.rmsNorm(x, f.gamma, items*count), b.rounded(dy, f.dim, items*count)
	hidden := f.preactivation(b, x, normed, items*count)
	dnormed := f.normedBackward(b, normed, hidden, upstream, items, count, gradient{})
	b.release(normed.allocation, upstream.allocation)
	b.rmsNormRowsBackward(x, f.gamma, dnormed, dx, items, count)
	b.release(dnormed.allocation)
}

// preactivation is what GELU is applied to, for count rows of x: what the forward pass has kept, or computed again.
func (f feedForward) preactivation(b *builder, x vk.Range, normed operand, count int) operand {
	if kept := b.keptBy(f.w1); kept != nil {
		return kept[0]
	}
	hidden, a := b.allocOperand(f.hidden, count), pipelines.LinearArgs{X: x, Batch: 1, Rows: count}
	if normed.is16 {
		a.X = normed.Range
	}
	f.beforeGELU(b, hidden, normed.is16, pipelines.LinearConfig{}, a)
	return hidden
}

// heavyPreactivation is preactivation of the heavy branch.
func (f *routedFeedForward) heavyPreactivation(b *builder, x vk.Range, normed operand, q *routerState) operand {
	if kept := b.keptBy(f.heavy.w1); kept != nil {
		return kept[0]
	}
	hidden := f.allocPreactivation(b, normed, q)
	product, a := selectedRows(x, normed, q)
	f.heavy.beforeGELU(b, hidden, normed.is16, product, a)
	return hidden
}

// backward records the backward pass of a FeedForward.
func (f feedForward) backward(b *builder) {
	items := b.items()
	f.rowsBackward(b, b.arg("x"), b.upstream("y").Range, b.startedGradient("x"), items, b.rowCount()/items)
}

// backward records the backward pass of a ConditionalRoutedFeedForward.
func (f *routedFeedForward) backward(b *builder) {
	f.inputBackward(b, feedForwardInput{
		b: b.dim(dimB), n: b.dim(dimN), tokens: b.tokenCount("NumHeavyTokens"), masked: b.given("Mask"), x: b.arg("x"), mask: b.arg("Mask"),
	}, b.upstream("y").Range, b.startedGradient("x"))
}

// inputBackward records the gradient of the layer for an input, added to dx. With residual, dx starts at dy.
func (f *routedFeedForward) inputBackward(b *builder, a feedForwardInput, dy vk.Range, dx gradient) {
	c := f.config
	q := newRouterState(a.name+"router", f.routingToken, c.Router, c.RouterStraightThrough, c.Router.selectionShape(a.b, a.n, 1, c.Dim, a.tokens), a.masked)
	b.recordLogits(a.x, q)
	b.recordRouterTopK(a.mask, q)
	f.light.rowsBackward(b, a.x, dy, dx, a.b, a.n)

	normed := b.rmsNormSelected(a.x, f.heavy.gamma, q)
	selected, gathered := b.gatherRows(dy, c.Dim, q)
	var out allocation
	scored := b.routerHasGradient(q, dx)
	if scored {
		out = b.floats(a.b, q.k, c.Dim)
	}
	upstream := b.rounded(selected, c.Dim, a.b*q.k)
	hidden := f.heavyPreactivation(b, a.x, normed, q)
	dnormed := f.heavy.normedBackward(b, normed, hidden, upstream, a.b, q.k, gradient{Range: out.Range, wanted: scored})
	b.release(normed.allocation, upstream.allocation, gathered) // with float32, upstream is gathered
	b.rmsNormBackward(a.x, f.heavy.gamma, dnormed, dx, q, 0)
	b.release(dnormed.allocation)
	if scored {
		dscores := b.rowScoresBackward(dy, out.Range, c.Dim, q)
		b.release(out)
		b.routerBackward(a.x, a.mask, q, dscores.Range, dx)
		b.release(dscores)
	}
	b.release(q.logits, q.indices, q.valid, q.scores)
}
