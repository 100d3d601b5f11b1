package colt5

import (
	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// recordTraining keeps the inputs of all attentions and feedforwards for the backward pass.
func (v *routedViT) recordTraining(b *builder) {
	n, c, tokens := b.dim(dimB), v.config, v.config.tokens()
	current := b.floats(n, tokens, c.Dim)
	inputs := []allocation{current}
	scratch := b.floats(n, tokens, c.Dim)
	v.embedPatches(b, n, current, scratch, b.arg("x"))
	b.release(scratch)
	for i := range v.attention {
		b.nextLayer()
		middle, next := b.floats(n, tokens, c.Dim), b.floats(n, tokens, c.Dim)
		attention, feedForward := v.attentionInput(b, i), v.feedForwardInput(b, i)
		attention.y, attention.x = middle.Range, current.Range
		v.attention[i].forward(b, attention)
		feedForward.y, feedForward.x = next.Range, middle.Range
		v.feedForward[i].forward(b, feedForward)
		inputs, current = append(inputs, middle, next), next
	}
	v.recordHead(b, current.Range)
	b.save(inputs...)
}

// backward records the backward pass of a ConditionalRoutedViT.
func (v *routedViT) backward(b *builder) {
	c, n, tokens := v.config, b.dim(dimB), v.config.tokens()
	count := n * tokens * c.Dim
	inputs := b.saved()
	current, next := b.floats(count), b.floats(count)
	v.headBackward(b, inputs[2*c.Depth].Range, current.Range)
	for i := c.Depth - 1; i >= 0; i-- {
		attention, feedForward := v.attentionInput(b, i), v.feedForwardInput(b, i)
		attention.x, feedForward.x = inputs[2*i].Range, inputs[2*i+1].Range
		v.feedForward[i].inputBackward(b, feedForward, current.Range, startingAt(next, current.Range))
		v.attention[i].inputBackward(b, attention, next.Range, startingAt(current, next.Range))
	}
	b.release(next)
	v.patchesBackward(b, current.Range)
	b.release(current)
}

// headBackward records the gradient of the classifier, from that of the logits to dx of its input x [n, tokens, C].
func (v *routedViT) headBackward(b *builder, x, dx vk.Range) {
	c, n, tokens := v.config, b.dim(dimB), v.config.tokens()
	dy := b.upstream("y").Range
	mean, normed, dnormed, dmean := b.floats(n, c.Dim), b.floats(n, c.Dim), b.floats(n, c.Dim), b.floats(n, c.Dim)
	v.recordPooled(b, x, mean.Range, normed.Range)
	head := projection{weight: v.head.weight, bias: v.head.bias, items: n, rows: 1}
	upstream := b.rounded(dy, c.NumClasses, n)
	head.parametersBackward(b, floatOperand(normed.Range, c.Dim), upstream)
	head.inputBackward(b, upstream, dnormed)
	b.release(upstream.allocation)
	b.layerNormBackward(mean.Range, v.headNorm.weight, v.headNorm.bias, floatOperand(dnormed.Range, c.Dim), startingAtZero(dmean), n, 1)
	record(b, pipelines.NewMeanPoolBackward, pipelines.MeanPoolConfig{C: c.Dim}, pipelines.MeanPoolBackwardArgs{DY: dmean.Range, DX: dx, B: n, N: tokens})
	b.release(mean, normed, dnormed, dmean)
}

// patchesBackward records the gradient of the embedding of the images, from dy [n, tokens, C].
func (v *routedViT) patchesBackward(b *builder, dy vk.Range) {
	c, n, tokens := v.config, b.dim(dimB), v.config.tokens()
	patches, embedded := b.floats(n*tokens, c.patch()), b.floats(n*tokens, c.Dim)
	v.recordPatches(b, n, patches.Range, embedded.Range, b.arg("x"))
	dembedded := b.floats(n*tokens, c.Dim)
	b.layerNormBackward(embedded.Range, v.embedNorm.weight, v.embedNorm.bias, floatOperand(dy, c.Dim), startingAtZero(dembedded), n, tokens)
	b.release(embedded)
	embed := projection{weight: v.embed.weight, bias: v.embed.bias, items: n, rows: tokens}
	upstream := b.rounded(dembedded.Range, c.Dim, n*tokens)
	embed.parametersBackward(b, floatOperand(patches.Range, c.patch()), upstream)
	dpatches := b.floats(n*tokens, c.patch())
	embed.inputBackward(b, upstream, dpatches)
	b.release(dembedded, upstream.allocation)

	// The normalised patches are not needed any more: the memory takes the elements of the patches.
	order := v.patchOrder(n)
	record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, order.toInner(patches.Range, b.arg("x")))
	draw := b.floats(n*tokens, c.patch())
	b.layerNormBackward(patches.Range, v.patchNorm.weight, v.patchNorm.bias, floatOperand(dpatches.Range, c.patch()), startingAtZero(draw), n, tokens)
	if dx := b.startedGradient("x"); dx.wanted {
		record(b, pipelines.NewPermute, pipelines.PermuteConfig{}, order.toOuter(dpatches.Range, draw.Range))
		b.addGradient(dx, dpatches.Range, n*tokens*c.patch())
	}
	b.release(patches, dpatches, draw)
}

// patchOrder is the axes of n images: outside [n, Channels, H, W], inside the patches of an image, each row of a patch, pixel
// by pixel with all channels.
func (v *routedViT) patchOrder(n int) axes {
	c, g := v.config, v.config.grid()
	size, row := c.PatchSize, c.ImageSize.Width
	pixels := row * c.ImageSize.Height
	patch := c.patch()
	return axes{
		{n, c.Channels * pixels, c.Channels * pixels}, {g.Height, size.Height * row, g.Width * patch}, {g.Width, size.Width, patch},
		{size.Height, row, size.Width * c.Channels}, {size.Width, 1, c.Channels}, {c.Channels, pixels, 1},
	}
}
