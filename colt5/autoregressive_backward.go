package colt5

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// backward records the backward pass of a ConditionalRoutedAutoregressiveAttention.
func (l *autoregressiveAttention) backward(b *builder) {
	l.inputBackward(b, attentionInput{attentionSizes: attentionSizesOf(b), x: b.arg("x")}, b.upstream("y").Range, b.startedGradient("x"))
}

// inputBackward records the gradient of the layer for an input, added to dx. With residual, the caller adds dy to dx.
func (l *autoregressiveAttention) inputBackward(b *builder, a attentionInput, dy vk.Range, dx gradient) {
	c, window := l.config, l.config.window()
	l.light.rowsBackward(b, a.x, vk.Range{}, dy, dx, a.b, a.n)
	if a.n <= window {
		return
	}
	q, kv := l.routers(a)
	h := &heavyForward{heavyAttention: &l.heavy, b: b, x: a.x, context: a.x, q: q, kv: kv, projectAllKeys: true}
	out := unselectedRows{b: b, q: q, null: l.null, dim: c.Dim, prefix: window}
	b.recordLogits(a.x, q, kv)
	l.recordTopK(b, q, kv)
	out.recordMembershipMask()
	out.nullBackward(dy)
	out.release()
	g := heavyGradients{dy: dy, dx: dx, dcontext: dx}
	if c.CausalQueryRouting && q.routed {
		g.causalQueries = func(dscores vk.Range) { l.causalQueriesBackward(b, a.x, q, dscores, dx) }
	}
	h.backward(g)
}

// causalQueriesBackward records the gradient of the logits that select queries by a threshold.
func (l *autoregressiveAttention) causalQueriesBackward(b *builder, x vk.Range, q *routerState, dscores vk.Range, dx gradient) {
	dlogits := b.floats(q.lists(), q.n)
	record(b, pipelines.NewCausalSelectBackward, pipelines.CausalSelectConfig{}, pipelines.CausalSelectBackwardArgs{
		Logits: q.logits.Range, Thresholds: q.thresholds.Range, Indices: q.indices.Range, QueryValid: q.valid.Range,
		DScores: dscores, DLogits: dlogits.Range, B: q.b, N: q.n, Window: q.block, K: q.perBlock,
	})
	b.logitsBackward(x, q, dlogits.Range, dx)
	b.release(dlogits, q.thresholds)
}

// recordTraining keeps the inputs of all attentions and feedforwards for the backward pass.
func (t *autoregressiveTransformer) recordTraining(b *builder) {
	c, s := t.config, attentionSizesOf(b)
	count := s.b * s.n
	current := b.floats(count, c.Dim)
	inputs := []allocation{current}
	b.embed(t.embed, current.Range, count)
	if b.dropping(c.Dropout) {
		b.drop(current.Range, current.Range, count*c.Dim, c.Dropout, 0)
	}
	for i := range t.attention {
		b.nextLayer()
		middle, next := b.floats(count, c.Dim), b.floats(count, c.Dim)
		a := attentionInput{attentionSizes: s, name: fmt.Sprintf("layers.%d.attn.", i), y: middle.Range, x: current.Range, residual: true}
		if b.dropping(c.Dropout) {
			t.recordDropping(b, i, a, next.Range)
		} else {
			t.attention[i].forward(b, a)
			recordInterleaved(t.feedForward[i].phases(b, next.Range, middle.Range, count, hiddenBytes, true))
		}
		inputs, current = append(inputs, middle, next), next
	}
	t.head().record(b, current.Range, s.b, s.n)
	b.save(inputs...)
}

// recordDropping records a layer with dropout of the results of attention and feedforward.
func (t *autoregressiveTransformer) recordDropping(b *builder, i int, a attentionInput, y vk.Range) {
	count, rate, middle := a.b*a.n, t.config.Dropout, a.y
	branch := b.floats(count, t.config.Dim)
	a.y, a.residual = branch.Range, false
	t.attention[i].forward(b, a)
	b.dropAndAdd(middle, a.x, branch.Range, count*t.config.Dim, rate, 1+2*i)
	recordInterleaved(t.feedForward[i].phases(b, branch.Range, middle, count, hiddenBytes, false))
	b.dropAndAdd(y, middle, branch.Range, count*t.config.Dim, rate, 2+2*i)
	b.release(branch)
}

// backward records the backward pass of an AutoregressiveTransformer.
func (t *autoregressiveTransformer) backward(b *builder) {
	c, s := t.config, attentionSizesOf(b)
	count := s.b * s.n
	inputs := b.saved()
	current, next, dropped := b.floats(count, c.Dim), b.floats(count, c.Dim), allocation{}
	t.head().backward(b, inputs[2*c.Depth].Range, startingAtZero(current), s.b, s.n)
	for i := c.Depth - 1; i >= 0; i-- {
		x, middle := inputs[2*i].Range, inputs[2*i+1].Range
		dbranch := b.dropGradient(&dropped, current.Range, count*c.Dim, c.Dropout, 2+2*i)
		t.feedForward[i].rowsBackward(b, middle, dbranch, startingAt(next, current.Range), s.b, s.n)
		dx := startingAt(current, next.Range)
		dbranch = b.dropGradient(&dropped, next.Range, count*c.Dim, c.Dropout, 1+2*i)
		t.attention[i].inputBackward(b, attentionInput{attentionSizes: s, name: fmt.Sprintf("layers.%d.attn.", i), x: x}, dbranch, dx)
		b.begin(dx)
	}
	if b.dropping(c.Dropout) {
		b.drop(current.Range, current.Range, count*c.Dim, c.Dropout, 0)
	}
	b.embedBackward(t.embed, current.Range, s.b, s.n)
	b.release(current, next, dropped)
}
