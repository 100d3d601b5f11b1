package colt5

import (
	"fmt"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// logitsLayer is a layer whose last step is a product that may be the logits of labels. Where nothing but a cross-entropy
// uses them, the node computes the loss itself, see addLoss: its call then has labels and loss in place of y.
type logitsLayer interface {
	layer
	computesLoss()
}

// lossBytes is the memory of the logits that a node with a loss holds at a time, in float32.
const lossBytes = 64 << 20

// head is a product of all rows of a call, after an optional RMSNorm, or the cross-entropy of the product.
type head struct {
	weight, bias, gamma *Tensor // bias nil: none; gamma nil: no norm
	budget              int     // bytes of logits at a time, for a loss
}

// rowPart is some rows of a tensor [items, rows, ..]: whole items, or a part of one.
type rowPart struct{ item, items, row, rows int }

// first is the number of the first row.
func (p rowPart) first(rows int) int { return p.item*rows + p.row }

func (p rowPart) count() int { return p.items * p.rows }

// lossParts divides rows, so that the logits of a part need at most budget bytes, unless 16 rows need more. The division of an
// item depends on its size only, and so does the order of every sum.
func (h head) lossParts(items, rows int) []rowPart {
	const multiple = 16 // of rows, for the alignment of operands
	most := h.budget / 4 / h.classes()
	var parts []rowPart
	if whole := most / rows; whole > 0 {
		for i := 0; i < items; i += whole {
			parts = append(parts, rowPart{item: i, items: min(whole, items-i), rows: rows})
		}
		return parts
	}
	most = max(most/multiple*multiple, multiple)
	for i := range items {
		for r := 0; r < rows; r += most {
			parts = append(parts, rowPart{item: i, items: 1, row: r, rows: min(most, rows-r)})
		}
	}
	return parts
}

// record records what the call wants of the rows x: logits, or the loss.
func (h head) record(b *builder, x vk.Range, items, n int) {
	if !b.given("loss") {
		h.logits(b, x, b.arg("y"), operand{}, items*n)
		return
	}
	losses, sums := b.floats(items*n), b.floats(items, 2)
	invalid := b.alloc(16)
	b.fill(invalid.Range, 0)
	a := pipelines.CrossEntropyArgs{Losses: losses.Range, InvalidLabels: rows(invalid.Range, 0, 1, 4)}
	for _, part := range h.lossParts(items, n) {
		b.release(h.partLoss(b, x, operand{}, a, part, n))
	}
	config := pipelines.CrossEntropyConfig{V: h.classes()}
	record(b, pipelines.NewCrossEntropy, config, pipelines.CrossEntropyArgs{Labels: b.arg("labels"), Losses: losses.Range, Sums: sums.Range, Items: items, N: n})
	b.treeSum(sums.Range, b.arg("loss"), items, 2)
	b.checkIDs(a.InvalidLabels, "labels", fmt.Sprintf("labels that are neither -1 nor below %d", h.classes()))
	b.release(losses, sums, invalid)
}

// backward records the gradients of the parameters and of the rows x, which are added to dx.
func (h head) backward(b *builder, x vk.Range, dx gradient, items, n int) {
	in, parts := h.weight.shape[1], []rowPart{{items: items, rows: n}}
	a, release := pipelines.CrossEntropyArgs{}, []allocation(nil)
	if b.given("loss") {
		parts = h.lossParts(items, n)
		losses, invalid := b.floats(items*n), b.alloc(16)
		b.fill(invalid.Range, 0)
		a.Losses, a.InvalidLabels, a.Upstream = losses.Range, rows(invalid.Range, 0, 1, 4), rows(b.upstream("loss").Range, 0, 1, 4)
		release = append(release, losses, invalid)
	}
	var operands, dnormed operand // of all rows
	if h.gamma == nil {
		operands = b.rounded(x, in, items*n)
		if len(parts) > 1 {
			b.begin(dx)
		}
	} else {
		operands = b.rmsNorm(x, h.gamma, items*n)
		dnormed = b.allocNormedGradient(in, items*n)
	}
	for _, part := range parts {
		first, count := part.first(n), part.count()
		p := projection{weight: h.weight, bias: h.bias, item: part.item, items: part.items, rows: part.rows}
		dlogits, logits := b.upstream("y").Range, allocation{}
		if b.given("loss") {
			logits = h.partLoss(b, x, operands, a, part, n)
			dlogits = logits.Range
		}
		dy := b.rounded(dlogits, h.classes(), count)
		p.parametersBackward(b, operands.part(first, count), dy)
		if h.gamma == nil {
			p.addInputBackward(b, dy, dx.rows(first, count, 4*in))
		} else {
			p.operandInputBackward(b, dy, dnormed.part(first, count))
		}
		b.release(dy.allocation, logits)
	}
	if b.release(operands.allocation); h.gamma != nil {
		b.rmsNormRowsBackward(x, h.gamma, dnormed, dx, items, n)
	}
	b.release(append(release, dnormed.allocation)...)
}

func (h head) classes() int { return h.weight.shape[0] }

// logits records the product of count rows of x. operands are these rows as 16-bit operands, after the norm, or absent.
func (h head) logits(b *builder, x, y vk.Range, operands operand, count int) {
	c, a := pipelines.LinearConfig{}, pipelines.LinearArgs{X: x, Y: y, Batch: 1, Rows: count}
	if h.bias != nil {
		c.Bias, a.Bias = true, h.bias.memory
	}
	var normed operand
	if h.gamma != nil && !operands.is16 && b.uses16Bit(h.weight.shape[1]) {
		normed = b.rmsNorm(x, h.gamma, count)
		operands = normed
	}
	switch {
	case operands.is16:
		c.X16, a.X = true, operands.Range
	case h.gamma != nil:
		c.Norm, a.Gamma = true, h.gamma.memory
	}
	b.linear(h.weight, 0, 0, c, a)
	b.release(normed.allocation)
}

// partLoss records logits and losses of some rows of x [items, n, In]; operands is all rows, as in logits. With a.Upstream their gradient is in the memory that is
// returned, which the caller releases.
func (h head) partLoss(b *builder, x vk.Range, operands operand, a pipelines.CrossEntropyArgs, part rowPart, n int) allocation {
	first, count := part.first(n), part.count()
	logits := b.floats(count, h.classes())
	h.logits(b, rows(x, first, count, 4*h.weight.shape[1]), logits.Range, operands.part(first, count), count)
	a.Logits, a.Labels, a.Losses = logits.Range, rows(b.arg("labels"), first, count, 4), rows(a.Losses, first, count, 4)
	if !a.Upstream.IsZero() {
		a.DLogits = logits.Range
	}
	a.Items, a.N = part.items, part.rows
	record(b, pipelines.NewCrossEntropy, pipelines.CrossEntropyConfig{V: h.classes()}, a)
	return logits
}

// addLoss makes a cross-entropy n a part of the node that computes its logits, if nothing else uses them: then never all of them
// are in memory. uses counts the uses of values; nil: not known, nothing is
// changed.
func (p *program) addLoss(n *node, uses []int) bool {
	logits, labels, loss := n.values[0], n.values[1], n.values[2]
	if _, ok := n.layer.(crossEntropy); !ok || uses == nil || uses[logits] != 1 || p.values[labels].external < 0 {
		return false
	}
	for i, from := range p.nodes {
		if _, ok := from.layer.(logitsLayer); ok && from.values[1] == logits {
			copy(from.call.args[1:], n.call.args[1:3])
			from.call.args[2].name = "loss"
			from.values[1], from.values[2] = labels, loss
			p.values[loss].bytes, p.values[loss].last = uint64(n.call.args[2].tensor.size()), i
			return true
		}
	}
	return false
}
