package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// rowsBackward records the gradient of the branch for x [height, width, C], added to dx.
func (w *patchAttention) rowsBackward(b *builder, x, dy vk.Range, dx gradient, height, width int) {
	items, count := b.items(), height*width
	b.limitHeads(count, 3, w.heads)
	project := projection{weight: w.toQKV, items: items, rows: count / items}
	qkv, attended := w.attendedRows(b, x, height, width)
	config := w.attentionConfig(b, qkv)
	dattended := w.outBackward(b, w.lightConfig, attended, dy, items, count/items)
	dqkv := b.allocHeads(w.dimHead, 3*w.heads, count)
	scratch := b.alloc(pipelines.PatchAttentionBackwardScratch(config, height, width))
	record(b, pipelines.NewPatchAttentionBackward, config, pipelines.PatchAttentionBackwardArgs{
		QKV: qkv.Range, Y: attended.Range, DY: dattended.Range, DQKV: dqkv.Range, Scratch: scratch.Range, Height: height, Width: width,
	})
	b.release(scratch, dattended.allocation, attended.allocation, qkv.allocation)
	normed := b.rmsNorm(x, w.gamma, count) // not before: the attention has the most memory
	project.parametersBackward(b, normed, dqkv)
	b.release(normed.allocation)
	dnormed := project.normedBackward(b, dqkv)
	b.release(dqkv.allocation)
	b.rmsNormRowsBackward(x, w.gamma, dnormed, dx, items, count/items)
	b.release(dnormed.allocation)
}

// attendedRows is the projected rows and the results of the attention: those that the forward pass has kept, or computed again.
func (w *patchAttention) attendedRows(b *builder, x vk.Range, height, width int) (qkv, attended operand) {
	if kept := b.keptBy(w.toQKV); kept != nil {
		return kept[0], kept[1]
	}
	qkv = b.allocHeads(w.dimHead, 3*w.heads, height*width)
	w.project(b, x, qkv, height*width)
	attended = b.allocHeads(w.dimHead, w.heads, height*width)
	record(b, pipelines.NewPatchAttention, w.attentionConfig(b, qkv), pipelines.PatchAttentionArgs{
		QKV: qkv.Range, Y: attended.Range, Height: height, Width: width,
	})
	return qkv, attended
}

// backward records the backward pass of a ConditionalRoutedImageAttention.
func (l *imageAttention) backward(b *builder) {
	sizes := imageSizes{b.dim(dimB), b.dim(dimH), b.dim(dimW), b.tokenCount("NumHeavyTokensQ"), b.tokenCount("NumHeavyTokensKV")}
	l.inputBackward(b, imageInput{imageSizes: sizes, x: b.arg("x"), mask: b.arg("Mask"), masked: b.given("Mask")}, b.upstream("y").Range, b.startedGradient("x"))
}

// inputBackward records the gradient of the layer for an input, added to dx, in the order of pixels that forward uses. With
// residual, the caller adds dy to dx.
func (l *imageAttention) inputBackward(b *builder, a imageInput, dy vk.Range, dx gradient) {
	c := l.config
	if !c.ChannelFirst && c.RouteScope != RouteScopeWindow {
		l.innerBackward(b, a, a.x, a.mask, dy, dx)
		return
	}
	count := a.b * a.height * a.width * c.Dim
	order := l.order(a.imageSizes, c.Dim, c.ChannelFirst)
	x, dinner := b.floats(count), b.floats(count)
	record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, order.toInner(x.Range, a.x))
	record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, order.toInner(dinner.Range, dy))
	mask, masks := l.innerMask(b, a)
	dxInner := b.floats(count)
	inner := startingAtZero(dxInner)
	l.innerBackward(b, a, x.Range, mask, dinner.Range, inner)
	b.begin(inner)
	b.release(masks)
	if dx.wanted {
		record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, order.toOuter(dinner.Range, dxInner.Range))
		b.addGradient(dx, dinner.Range, count)
	}
	b.release(x, dinner, dxInner)
}

// innerBackward is inputBackward for pixels in the order of forward.
func (l *imageAttention) innerBackward(b *builder, a imageInput, x, mask, dy vk.Range, dx gradient) {
	c := l.config
	items, n, height, width := l.innerSizes(a.imageSizes)
	q := newRouterState(a.name+"q_router", l.qRoutingToken, c.Router, c.RouterStraightThrough, c.Router.selectionShape(items, n, 1, c.Dim, a.tokensQ), a.masked)
	kv := newRouterState(a.name+"kv_router", l.kvRoutingTokens, c.Router, c.RouterStraightThrough, c.Router.selectionShape(items, n, c.NumRoutedKV, c.Dim, a.tokensKV), a.masked)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: x, context: x, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, null: l.null, dim: c.Dim}
	h.selectTokens(mask, mask)
	out.recordMembershipMask()
	out.nullBackward(dy)
	out.release()
	l.light.rowsBackward(b, x, dy, dx, height, width)
	h.backward(heavyGradients{dy: dy, mask: mask, contextMask: mask, dx: dx, dcontext: dx})
}
