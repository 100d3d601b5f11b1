package colt5

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// inputBackward records the gradient of a block for an input, added to dx: the feedforward's first, then the attention's.
func (l *routedBlock) inputBackward(b *builder, a blockInput, dy vk.Range, dx gradient) {
	dim := l.attention.config.Dim
	count := a.b * a.n * dim
	attention := attentionInput{attentionSizes: a.attentionSizes, name: a.name + "conditional_attn.", x: a.x, mask: a.mask, residual: true}
	middle := l.middle(b, a, count)
	var dropped allocation
	dmiddle := b.floats(count)
	l.feedForward.inputBackward(b, feedForwardInput{
		b: a.b, n: a.n, tokens: a.tokensFF, masked: a.masked, name: a.name + "conditional_ff.", x: middle.Range, mask: a.mask,
	}, b.dropGradient(&dropped, dy, count, a.dropout, a.use+1), startingAt(dmiddle, dy))
	b.release(middle)
	dx = b.plus(dx, dmiddle.Range, count)
	l.attention.inputBackward(b, attention, b.dropGradient(&dropped, dmiddle.Range, count, a.dropout, a.use), dx)
	b.begin(dx)
	b.release(dmiddle, dropped)
}

// middle is the rows between attention and feedforward: those that the forward pass has kept, or computed again.
func (l *routedBlock) middle(b *builder, a blockInput, count int) allocation {
	if kept := b.keptBy(l); kept != nil {
		return kept[0].allocation
	}
	middle := b.floats(count)
	l.recordAttention(b, a, middle.Range)
	return middle
}

// backward records the backward pass of a ConditionalRoutedTransformerBlock.
func (l *routedBlock) backward(b *builder) {
	l.inputBackward(b, blockInput{blockSizes: blockSizesOf(b), x: b.arg("x"), mask: b.arg("Mask")}, b.upstream("y").Range, b.startedGradient("x"))
}

// backward records the backward pass of an Encoder. The inputs of all blocks are kept from the forward pass.
func (e *encoder) backward(b *builder) {
	c, s := e.config, blockSizesOf(b)
	count := s.b * s.n * c.Dim
	inputs := b.saved() // of the blocks, then the result of the last one
	current, next := b.floats(count), b.floats(count)
	b.rmsNormRowsBackward(inputs[c.Depth].Range, e.gamma, floatOperand(b.upstream("y").Range, c.Dim), startingAtZero(current), s.b, s.n)
	for i := c.Depth - 1; i >= 0; i-- {
		x := inputs[i].Range
		if i == 0 && e.embed == nil {
			x = b.arg("x")
		}
		e.blocks[i].inputBackward(b, blockInput{s, fmt.Sprintf("layers.%d.", i), vk.Range{}, x, b.arg("Mask"), c.Dropout, 1 + 2*i}, current.Range, startingAtZero(next))
		current, next = next, current
	}
	if e.embed != nil {
		if b.dropping(c.Dropout) {
			b.drop(current.Range, current.Range, count, c.Dropout, 0)
		}
		b.embedBackward(e.embed, current.Range, s.b, s.n)
	} else {
		b.addGradient(b.startedGradient("x"), current.Range, count)
	}
	b.release(current, next)
}

// embedBackward records the gradient of the embedding of the call's x, items of n token ids each, from dy [items, n, C].
func (b *builder) embedBackward(table *Tensor, dy vk.Range, items, n int) {
	g := b.parameter(table)
	if !g.wanted {
		return
	}
	v, c := table.shape[0], table.shape[1]
	_, add := b.take(g)
	config := pipelines.EmbedBackwardConfig{C: c, V: v, ByteIDs: b.isU8("x"), Add: add}
	scratch := b.alloc(pipelines.EmbedBackwardScratch(items, n, v))
	record(b, pipelines.NewEmbedBackward, config, pipelines.EmbedBackwardArgs{
		IDs: b.arg("x"), DY: dy, DTable: g.Range, Scratch: scratch.Range, Items: items, N: n,
	})
	b.release(scratch)
}

// backward records the backward pass of an Embedding.
func (l *embeddingLayer) backward(b *builder) {
	items := b.items()
	b.embedBackward(l.table, b.upstream("y").Range, items, b.rowCount()/items)
}
