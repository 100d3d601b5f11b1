package colt5

import (
	"fmt"
	"math"

	"github.com/colt5-vulkan/colt5/pipelines"
	"github.com/colt5-vulkan/colt5/vk"
)

// CrossEntropy is the cross-entropy of logits [.., V] with labels [..] i32, -1 for a position without one: f32 [2], the sum of
// the losses and the count of the labels. So the mean over several runs, such as the micro-batches of a step, is the quotient
// of the sums. A label that is neither -1 nor below V is an error of the run. Backward uses the upstream gradient of the sum;
// that of the count has no effect.
//
//	loss = log(sum_j exp(logits_j)) - logits_label
//
// The sums of the items of a batch are added in a balanced binary tree. Logits of a Linear or an AutoregressiveTransformer that a
// run uses for nothing else are never in memory all at once: the node that computes them computes the loss too, for rows whose
// logits need 64 MiB at a time, and the backward pass computes them again.
func (g *Graph) CrossEntropy(logits, labels *Tensor) *Tensor {
	return g.operation("CrossEntropy", crossEntropy{}, arg{name: "logits", tensor: logits, shape: shape{dimC}},
		arg{name: "labels", tensor: labels, dtype: I32})
}

// crossEntropy is the layer of CrossEntropy.
type crossEntropy struct{}

func (crossEntropy) result() shape { return shape{2} }

// setShapes makes the labels a tensor of the shape of the logits without the last dimension.
func (crossEntropy) setShapes(c *call) error {
	logits := &c.args[0]
	if t := logits.tensor; t == nil || len(t.shape) < 2 {
		return fmt.Errorf("logits is %v, want f32[* * *] or f32[* *]", t)
	}
	logits.lead = logits.tensor.shape[:len(logits.tensor.shape)-1]
	c.args[1].lead = logits.lead
	return nil
}

// args are the arguments of the kernel, with the workspace of its results.
func (crossEntropy) args(b *builder) (a pipelines.CrossEntropyArgs, release []allocation) {
	items, count := b.items(), b.call.lead()
	losses, sums := b.floats(count), b.floats(items, 2)
	a = pipelines.CrossEntropyArgs{
		Logits: b.arg("logits"), Labels: b.arg("labels"), Losses: losses.Range, Sums: sums.Range, Items: items, N: count / items,
	}
	return a, []allocation{losses, sums}
}

func (l crossEntropy) record(b *builder) {
	a, release := l.args(b)
	invalid := b.alloc(16)
	b.fill(invalid.Range, 0)
	a.InvalidLabels = rows(invalid.Range, 0, 1, 4)
	record(b, pipelines.NewCrossEntropy, pipelines.CrossEntropyConfig{V: b.dim(dimC)}, a)
	b.treeSum(a.Sums, b.arg("y"), a.Items, 2)
	b.checkIDs(a.InvalidLabels, "labels", fmt.Sprintf("labels that are neither -1 nor below %d", b.dim(dimC)))
	b.release(append(release, invalid)...)
}

// backward records the gradient of the logits.
func (l crossEntropy) backward(b *builder) {
	a, release := l.args(b)
	invalid := b.alloc(16)
	b.fill(invalid.Range, 0)
	a.InvalidLabels, a.Upstream = rows(invalid.Range, 0, 1, 4), rows(b.upstream("y").Range, 0, 1, 4)
	dlogits := b.startedGradient("logits")
	base, add := b.take(dlogits)
	own := dlogits
	count := b.call.lead() * b.dim(dimC)
	var memory allocation
	if add {
		memory = b.floats(count)
		own = workspaceGradient(memory)
	}
	a.DLogits = own.Range
	record(b, pipelines.NewCrossEntropy, pipelines.CrossEntropyConfig{V: b.dim(dimC)}, a)
	if add {
		b.addTo(dlogits.Range, base, own.Range, count)
	}
	b.release(append(release, memory, invalid)...)
}

// MeanSquaredError is the squared error of x and target, two f32 values of the same shape [B, ..]: f32 [2], the sum of the
// squares and the count of the elements. So the mean over several runs, such as the micro-batches of a step, is the quotient
// of the sums. Backward uses the upstream gradient of the sum; that of the count has no effect.
//
// The sums of the items of a batch are added in a balanced binary tree.
func (g *Graph) MeanSquaredError(x, target *Tensor) *Tensor {
	return g.operation("MeanSquaredError", squaredError{}, arg{name: "x", tensor: x}, arg{name: "target", tensor: target})
}

// squaredError is the layer of MeanSquaredError.
type squaredError struct{}

func (squaredError) result() shape { return shape{2} }

// setShapes makes the target a tensor of the shape of x.
func (squaredError) setShapes(c *call) error {
	x := c.args[0].tensor
	if x == nil || len(x.shape) == 0 {
		return fmt.Errorf("x is %v, want f32 of at least one dimension", x)
	}
	c.args[0].lead, c.args[1].lead = x.shape, x.shape
	return nil
}

// args are the arguments of the kernel, with the workspace of its results. The mean of one element makes it compute sums.
func (squaredError) args(b *builder) (a pipelines.MSEArgs, release []allocation) {
	items, count := b.items(), b.call.lead()
	n := count / items
	b.limitRow(n)
	losses, scratch := b.floats(items), b.alloc(pipelines.MSEScratch(items, n))
	a = pipelines.MSEArgs{
		Y: b.arg("x"), Target: b.arg("target"), Losses: losses.Range, Scratch: scratch.Range, Items: items, N: n, Count: 1,
	}
	return a, []allocation{losses, scratch}
}

func (l squaredError) record(b *builder) {
	a, release := l.args(b)
	record(b, pipelines.NewMSE, pipelines.MSEConfig{}, a)
	y := b.arg("y")
	b.treeSum(a.Losses, rows(y, 0, 1, 4), a.Items, 1)
	b.fill(rows(y, 1, 1, 4), math.Float32bits(float32(b.call.lead())))
	b.release(release...)
}

// backward records the gradients of x, and, with the two exchanged, of the target.
func (l squaredError) backward(b *builder) {
	a, release := l.args(b)
	a.Upstream = rows(b.upstream("y").Range, 0, 1, 4)
	own := b.floats(b.call.lead())
	a.DY = own.Range
	for _, name := range []string{"x", "target"} {
		if dx := b.inputGradient(name); dx.wanted {
			record(b, pipelines.NewMSE, pipelines.MSEConfig{}, a)
			b.add(dx.Range, own.Range, b.call.lead())
		}
		a.Y, a.Target = a.Target, a.Y
	}
	b.release(append(release, own)...)
}

// treeSum records the sum of items [items, count] in a balanced binary tree.
func (b *builder) treeSum(x, y vk.Range, items, count int) {
	scratch := b.alloc(pipelines.TreeSumScratch(items, count))
	record(b, pipelines.NewTreeSum, pipelines.TreeSumConfig{}, pipelines.TreeSumArgs{X: x, Y: y, Scratch: scratch.Range, Items: items, C: count})
	b.release(scratch)
}
