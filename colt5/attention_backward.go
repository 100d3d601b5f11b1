package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// outBackward records the gradients of the output projection of a light branch, and the gradient of attended [items, count, H,
// D], which the caller releases.
func (w lightWeights) outBackward(b *builder, c lightConfig, attended operand, dy vk.Range, items, count int) operand {
	out := projection{weight: w.toOut, items: items, rows: count}
	upstream := b.rounded(dy, w.toOut.shape[0], items*count)
	out.parametersBackward(b, attended, upstream)
	dattended := b.allocHeads(c.dimHead, c.heads, items*count)
	out.operandInputBackward(b, upstream, dattended)
	b.release(upstream.allocation)
	return dattended
}

// rowsBackward records the gradient of the branch for x [items, n, C], added to dx.
func (w *windowAttention) rowsBackward(b *builder, x, mask, dy vk.Range, dx gradient, items, n int) {
	b.limitTokens(n)
	b.limitHeads(items*n, 3, w.heads)
	project := projection{weight: w.toQKV, items: items, rows: n}
	all := tokenGroup{items: items, rows: n, count: n}
	qkv, attended := w.attendedRows(b, project, x, mask, all)
	config := w.attentionConfig(b, qkv)
	dattended := w.outBackward(b, w.lightConfig, attended, dy, items, n)
	dqkv := b.allocHeads(w.dimHead, 3*w.heads, items*n)
	scratch := b.alloc(pipelines.WindowAttentionBackwardScratch(config, items, n))
	record(b, pipelines.NewWindowAttentionBackward, config, pipelines.WindowAttentionBackwardArgs{
		QKV: qkv.Range, Mask: mask, Y: attended.Range, DY: dattended.Range, DQKV: dqkv.Range, Scratch: scratch.Range, Items: items, N: n,
	})
	b.release(scratch, dattended.allocation, attended.allocation, qkv.allocation)
	if w.rotary {
		w.recordRotary(b, b.inverseRotaryTable(n+w.queryShift(), w.dimHead), dqkv, all)
	}
	normed := w.normed(b, x, items*n) // not before: the attention has the most memory
	w.inputBackward(b, project, x, normed, dqkv, dx, items, n)
	b.release(normed.allocation)
}

// attendedRows is the projected rows and the results of the attention: those that the forward pass has kept, or computed again.
func (w *windowAttention) attendedRows(b *builder, project projection, x, mask vk.Range, all tokenGroup) (qkv, attended operand) {
	if kept := b.keptBy(w.toQKV); kept != nil {
		return kept[0], kept[1]
	}
	count := all.items * all.rows
	normed := w.normed(b, x, count)
	qkv = b.allocHeads(w.dimHead, 3*w.heads, count)
	project.forward(b, normed, qkv, pipelines.LinearConfig{})
	b.release(normed.allocation)
	w.recordRotary(b, w.rotaryTable(b, all.rows), qkv, all)
	attended = b.allocHeads(w.dimHead, w.heads, count)
	record(b, pipelines.NewWindowAttention, w.attentionConfig(b, qkv), pipelines.WindowAttentionArgs{
		QKV: qkv.Range, Mask: mask, Y: attended.Range, Items: all.items, N: all.rows, Rows: all.rows, Count: all.rows, MaskItems: all.items,
	})
	return qkv, attended
}

// normed is count rows of x as operands of the first projection, normalised if the branch has a norm. The caller releases them.
func (w *windowAttention) normed(b *builder, x vk.Range, count int) operand {
	if w.noNorm {
		return b.rounded(x, w.dim, count)
	}
	o := b.allocOperand(w.dim, count)
	record(b, pipelines.NewLayerNorm, pipelines.LayerNormConfig{C: w.dim, Y: b.dtypeOf(o)}, pipelines.LayerNormArgs{
		X: x, Weight: w.norm.memory, Bias: w.normBias.memory, Y: o.Range, Rows: count,
	})
	return o
}

// inputBackward records the gradients of the first projection and of the norm.
func (w *windowAttention) inputBackward(b *builder, project projection, x vk.Range, normed, dqkv operand, dx gradient, items, n int) {
	project.parametersBackward(b, normed, dqkv)
	if w.noNorm {
		project.addInputBackward(b, dqkv, dx)
		b.release(dqkv.allocation)
		return
	}
	dnormed := project.normedBackward(b, dqkv)
	b.release(dqkv.allocation)
	b.layerNormBackward(x, w.norm, w.normBias, dnormed, dx, items, n)
	b.release(dnormed.allocation)
}

// backward records the backward pass of a LocalMHA.
func (l *localMHA) backward(b *builder) {
	l.rowsBackward(b, b.arg("x"), b.arg("Mask"), b.upstream("y").Range, b.startedGradient("x"), b.dim(dimB), b.dim(dimN))
}

// nullBackward records the gradient of the null token: the sum of dy over the rows that get it.
func (o *unselectedRows) nullBackward(dy vk.Range) {
	if o.needsNull() {
		b, items := o.b, o.b.items()
		b.parameterColumnSum(floatOperand(dy, o.dim), o.membership.Range, o.null, 0, items, o.q.b*o.q.n/items)
	}
}

// backward records the backward pass of a ConditionalRoutedAttention.
func (l *routedAttention) backward(b *builder) {
	l.inputBackward(b, attentionInput{attentionSizes: attentionSizesOf(b), x: b.arg("x"), mask: b.arg("Mask")}, b.upstream("y").Range, b.startedGradient("x"))
}

// inputBackward records the gradient of the layer for an input, added to dx. With residual, the caller adds dy to dx.
func (l *routedAttention) inputBackward(b *builder, a attentionInput, dy vk.Range, dx gradient) {
	c := l.config
	q := newRouterState(a.name+"q_router", l.qRoutingToken, c.Router, c.RouterStraightThrough, c.Router.selectionShape(a.b, a.n, 1, c.Dim, a.tokensQ), a.masked)
	kv := newRouterState(a.name+"kv_router", l.kvRoutingTokens, c.Router, c.RouterStraightThrough, c.Router.selectionShape(a.b, a.n, c.NumRoutedKV, c.Dim, a.tokensKV), a.masked)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: a.x, context: a.x, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, null: l.null, dim: c.Dim}
	h.selectTokens(a.mask, a.mask)
	out.recordMembershipMask()
	out.nullBackward(dy)
	out.release()
	if c.HasLightAttn {
		l.light.rowsBackward(b, a.x, a.mask, dy, dx, a.b, a.n)
	}
	h.backward(heavyGradients{dy: dy, mask: a.mask, contextMask: a.mask, dx: dx, dcontext: dx})
}
