package colt5

import (
	"fmt"
	"math"
)

// This file holds what layers keep from the forward pass of a training step until their backward pass. With activation
// checkpointing, see Backward.Recompute, a layer keeps its inputs and the lists of its routers only.

// activationKey names rows that a layer keeps: by the node, and by a part of the layer that is the layer's alone.
type activationKey struct {
	node *node // of the forward pass
	of   any
}

// nextLayer begins a layer of the forward pass, and decides whether it keeps its activations.
func (b *builder) nextLayer() {
	b.keeping = false
	if b.training() {
		b.keeping = b.layers >= b.program.backward.recompute
		b.layers++
	}
}

// keep keeps rows of a layer that keeps its activations until its backward pass.
func (b *builder) keep(of any, list ...operand) { b.activations[activationKey{b.node, of}] = list }

// keptBy is the rows that the forward pass has kept, which the caller releases. nil: the backward pass computes them again.
func (b *builder) keptBy(of any) []operand { return b.activations[activationKey{b.gradients.of, of}] }

// recomputed is the number of layers that compute their activations again, for the value of an option with a name.
func recomputed(name string, layers int) (int, error) {
	switch {
	case layers == -1:
		return math.MaxInt, nil
	case layers < 0:
		return 0, fmt.Errorf("%s is %d, want a number of layers, or -1 for all", name, layers)
	}
	return layers, nil
}
