package colt5

// backward records the backward pass of a ConditionalRoutedCrossAttention.
func (l *crossAttention) backward(b *builder) {
	q, kv := l.routers(b)
	x, context, dy := b.arg("x"), b.arg("context"), b.upstream("y").Range
	mask, contextMask := b.arg("Mask"), b.arg("ContextMask")
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: x, context: context, q: q, kv: kv}
	out := unselectedRows{b: b, q: q, null: l.null, dim: l.config.Dim}
	h.selectTokens(mask, contextMask)
	out.recordMembershipMask()
	out.nullBackward(dy)
	out.release()
	h.backward(heavyGradients{dy: dy, mask: mask, contextMask: contextMask, dx: b.startedGradient("x"), dcontext: b.startedGradient("context")})
}
